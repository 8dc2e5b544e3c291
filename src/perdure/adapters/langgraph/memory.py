"""What a saver remembers, bounded whatever number of threads it serves; forgetting costs time and nothing else.

Memory    how each message was written, so that a long list is not encoded anew at every step. A message is known again by being the
          same object with the same content: nodes may change messages in place, so identity alone is no proof
Recent    which checkpoints were put, so that writes on them are known to have their checkpoint
"""

from __future__ import annotations

import marshal
import weakref
from collections import OrderedDict
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage

BYTES_MAX = 32 << 20
"""About how many bytes of messages are remembered, twice: in the young generation and in the old one."""


RECENT_MAX = 4_096
"""How many checkpoints are remembered."""


class _Reference(weakref.ref[BaseMessage]):
    """A message that may go, the number it was known by, and what remembering it counts as."""

    __slots__ = ("number", "size")
    number: int
    size: int


class _Known(NamedTuple):
    message: _Reference
    content: bytes
    encoded: Any


class Memory:
    """From a message to the JSON that stands for it. Safe from any thread: at worst two threads encode the same message.

    It keeps no message alive: what a run has let go of is forgotten, and costs the garbage collector nothing.
    """

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._young: dict[int, _Known] = {}
        self._old: dict[int, _Known] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, message: BaseMessage) -> Any | None:
        """The JSON of this very object, if it still holds what it held then."""
        known = self._young.get(id(message)) or self._old.get(id(message))
        if known is None or known.message() is not message:
            return None
        content = _content(message)
        if content is None or content != known.content:
            return None
        return known.encoded

    def put(self, message: BaseMessage, encoded: Any) -> None:
        """Remember how a message was written."""
        content = _content(message)
        if content is None:
            return
        size = len(content) + 512
        self._bytes += size
        if self._bytes > self._bytes_max:
            self._old, self._young, self._bytes = self._young, {}, size
        reference = _Reference(message, self._forget)
        reference.number, reference.size = id(message), size
        self._young[reference.number] = _Known(reference, content, encoded)

    def _forget(self, reference: Any) -> None:
        """A message is gone: the `_Reference` to it is called back."""
        for generation in (self._young, self._old):
            known = generation.get(reference.number)
            if known is not None and known.message is reference:
                del generation[reference.number]
                if generation is self._young:
                    self._bytes -= reference.size


def _content(message: BaseMessage) -> bytes | None:
    """All that the message holds, types included; `None` if it holds more than plain values. Version 2 writes no references, so that
    equal content gives equal bytes."""
    try:
        return marshal.dumps((message.__dict__, message.__pydantic_extra__), 2)
    except ValueError:
        return None


class Recent:
    """The checkpoints put last, by session, namespace and id, each with its count (see `layout`). Safe from any thread."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, str, str], int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def get(self, session: str, ns: str, id: str) -> int | None:
        """The count of a checkpoint, if it is remembered."""
        return self._counts.get((session, ns, id))

    def put(self, session: str, ns: str, id: str, count: int) -> None:
        """Remember a checkpoint."""
        self._counts[session, ns, id] = count
        while len(self._counts) > RECENT_MAX:
            self._counts.popitem(last=False)
