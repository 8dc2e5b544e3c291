"""Ctrl-C between any two bytecodes of Perdure: a trace function raises `KeyboardInterrupt` at the n-th of them."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import perdure

ROOM = str(Path(perdure.__file__).parent)


class Interrupts:
    """Counts the bytecodes that a call runs in this thread inside the package, and interrupts it before the n-th."""

    def __init__(self, at: int = -1) -> None:
        self.count = 0
        self._at = at

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(ROOM):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._local

    def _local(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            self.count += 1
            if self.count == self._at:
                raise KeyboardInterrupt
        return self._local


@pytest.fixture
def leftovers_collected() -> Iterator[None]:
    """What interrupts leave, coroutines that were never begun, is collected in the test that leaves it, which ignores the warnings."""
    yield
    gc.collect()


def length(work: Callable[[], object]) -> int:
    """How many bytecodes a call runs."""
    tracing = Interrupts()
    sys.settrace(tracing)
    try:
        work()
    finally:
        sys.settrace(None)
    return tracing.count


def interrupted(work: Callable[[], object], at: int) -> bool:
    """Run a call that is interrupted before its n-th bytecode; whether it was, or had ended before."""
    sys.settrace(Interrupts(at))
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False
