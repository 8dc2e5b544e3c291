"""Leases that runs take by themselves: waiting for their end, and workers in processes of their own that are killed in their run."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import perdure

IN_MODEL = "the model was called"


async def free(store: perdure.Store) -> None:
    """Return once nobody holds anything."""
    async with asyncio.timeout(60):
        while [info async for info in store.leases()]:  # noqa: ASYNC110 - other threads release them
            await asyncio.sleep(0.01)


def hang() -> None:
    """Say that the model was called, and never answer."""
    print(IN_MODEL, flush=True)
    time.sleep(600)


@contextmanager
def worker_in_its_run(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The process of a program (Python's text), once its model was called. It is killed at the end, if it still runs."""
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == IN_MODEL
            yield process
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    """As the system does it when memory is short: nothing is released."""
    process.send_signal(signal.SIGKILL)
    process.wait()
