"""Processes that tell what they do, a line of JSON for each thing; and all that they told."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from typing import Any

from tests.support.docs.pages import ROOT

Line = dict[str, Any]
END_SECONDS = 120.0
"""For how long a process may end what it does."""


def module(name: str, *arguments: str) -> list[str]:
    """The command line of a module of `tests.support.service`."""
    return [sys.executable, "-m", f"tests.support.service.{name}", *arguments]


class Tellers:
    """Processes by name, and what they told in the order in which it was read here."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        """Each has `by`, the name of its process."""
        self.dead: set[str] = set()
        """Those that were killed."""
        self._processes: dict[str, Process] = {}
        self._readers: list[asyncio.Task[None]] = []
        self._moved = asyncio.Event()

    async def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process."""
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE)
        self._processes[name] = process
        self._readers.append(asyncio.create_task(self._read(name, process)))

    async def _read(self, name: str, process: Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if not line.endswith(b"\n"):  # It was killed in the middle of it.
                break
            self.lines.append({"by": name, **json.loads(line)})
            self._moved.set()
        self._moved.set()

    def living(self) -> list[str]:
        """The names of those that were not killed."""
        return [name for name in self._processes if name not in self.dead]

    def count(self, what: str) -> int:
        """How many things of this kind were told."""
        return sum(line["what"] == what for line in self.lines)

    async def until(self, holds: Callable[[], object], seconds: float = 120) -> None:
        """Wait until this holds of what was told."""
        async with asyncio.timeout(seconds):
            while not holds():
                self._moved.clear()
                for name, process in self._processes.items():
                    assert name in self.dead or process.returncode is None, f"{name} ended with {process.returncode}"
                await self._moved.wait()

    async def kill(self, name: str) -> None:
        """Kill -9; what it told before is read."""
        self.dead.add(name)
        self._processes[name].kill()
        await self._processes[name].wait()

    def send(self, sign: signal.Signals, name: str) -> None:
        """Send it a signal."""
        self._processes[name].send_signal(sign)

    async def stop(self) -> None:
        """Let each end what it does."""
        living = [self._processes[name] for name in self.living()]
        for process in living:
            assert process.stdin is not None
            process.stdin.close()
        async with asyncio.timeout(END_SECONDS):
            assert {await process.wait() for process in living} == {0}
            await asyncio.gather(*self._readers)

    async def cancel(self) -> None:
        """End every process at once."""
        for process in self._processes.values():
            if process.returncode is None:
                process.kill()
                await process.wait()
        await asyncio.gather(*self._readers)
