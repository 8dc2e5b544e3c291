"""What a saver remembers, bounded for any number of threads; what it forgets costs time and nothing else.

MessageCache         how each message was written, so that a long list is not encoded again at every step. A message is recognised as the
                     same object with the same content: nodes may change messages in place, so identity alone is no proof
RecentCheckpoints    which checkpoints were put, so that writes on them are known to have their checkpoint
KnownVersions        what the runs that loaded a checkpoint knew of the thread, to distinguish a branch on purpose from a lost race
"""

from __future__ import annotations

import builtins
import marshal
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage

from perdure.lru import LruMap

BYTES_MAX = 32 << 20
"""About how many bytes of messages are remembered, twice: in the young generation and in the old one."""


RECENT_MAX = 4_096
"""How many checkpoints are remembered."""
SEEN_MAX = 16_384
"""How many ids that were given out are remembered."""


_COUNTED = 512
"""What remembering a message counts as, beside its content."""
Content = dict[str, Any] | bytes
"""All that a message held. Texts, None, and containers that are empty: a dict that equals its own, which is quick to compare. Else it is
marshalled, so that types count and containers are seen into."""


class _Known(weakref.ref[BaseMessage]):
    """A weak reference to a message, and how it was written when it held `content`: one object, for long threads have many."""

    __slots__ = ("content", "encoded", "number", "size")
    content: Content
    encoded: Any
    number: int
    size: int


class MessageCache:
    """From a message to its JSON. Safe from any thread: at worst two threads encode the same message.

    It keeps no message alive: what a run no longer holds is forgotten, and costs the garbage collector nothing.
    """

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._young: dict[int, _Known] = {}
        self._old: dict[int, _Known] = {}
        self._forgetting = self._forget

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, message: BaseMessage) -> Any | None:
        """The JSON of this very object, if it still holds what it held then."""
        known = self._young.get(id(message)) or self._old.get(id(message))
        if known is None or known() is not message:
            return None
        content = known.content
        if isinstance(content, dict):
            same = message.__dict__ == content and not message.__pydantic_extra__
        else:
            same = _marshalled(message) == content
        return known.encoded if same else None

    def put(self, message: BaseMessage, encoded: Any, content: Content | None) -> None:
        """Remember how a message was written. `content`: what it held before, for another thread may give it its id meanwhile.

        `content` must not be changed after this; with `None` nothing is remembered.
        """
        if content is None:
            return
        known = _Known(message, self._forgetting)
        known.content, known.encoded, known.number = content, encoded, id(message)
        known.size = _COUNTED + len(content if isinstance(content, bytes) else content["content"] or "")
        self._bytes += known.size
        if self._bytes > self._bytes_max:
            self._old, self._young, self._bytes = self._young, {}, known.size
        self._young[known.number] = known

    def _forget(self, known: Any) -> None:
        """A message was freed: forget what is known of it."""
        number, size = known.number, known.size
        if self._young.get(number) is known:
            del self._young[number]
            self._bytes -= size
        elif self._old.get(number) is known:
            del self._old[number]


def content_of(message: BaseMessage) -> Content | None:
    """All that the message holds now; `None` if it holds more than plain values."""
    if message.__pydantic_extra__:
        return _marshalled(message)
    content = dict(message.__dict__)
    for name, value in content.items():
        if value is not None and type(value) is not str:
            if value or type(value) not in (dict, list):
                return _marshalled(message)
            content[name] = type(value)()
    return content


def _marshalled(message: BaseMessage) -> bytes | None:
    """Version 2 writes no references, so that equal content gives equal bytes."""
    try:
        return marshal.dumps((message.__dict__, message.__pydantic_extra__), 2)
    except ValueError:
        return None


class RecentCheckpoints:
    """The checkpoints put last, by session, namespace and id, each with its count (see `layout`). Safe from any thread."""

    def __init__(self) -> None:
        self._counts = LruMap[tuple[str, str, str], int](RECENT_MAX)
        self._newest = LruMap[tuple[str, str], str](RECENT_MAX)

    def __len__(self) -> int:
        return len(self._counts)

    def get(self, session: str, ns: str, id: str) -> int | None:
        """The count of a checkpoint, if it is remembered."""
        return self._counts.get((session, ns, id))

    def newest(self, session: str, ns: str) -> str | None:
        """The id of the checkpoint of a namespace that was put last, if it is remembered."""
        return self._newest.get((session, ns))

    def put(self, session: str, ns: str, id: str, count: int) -> None:
        """Remember a checkpoint."""
        self._counts.put((session, ns, id), count)
        self._newest.put((session, ns), id)


class _IssuedId(NamedTuple):
    """An id that a config holds, and the version of the session that the config's holder knows. `loaded`: a load gave it out."""

    id: str
    version: int
    loaded: bool


class KnownVersions:
    """What the holders of configs know of their threads. Safe from any thread.

    Two runs may load one checkpoint at different times, and a config holds nothing but the framework's names. So each load gives out a
    string of its own for the id, which is recognised as the same object: the framework carries it from the load to the put. A string
    that came another way, through JSON for example, is equal and not recognised. Then the chain alone decides: it refuses.
    """

    def __init__(self) -> None:
        self._given = LruMap[int, _IssuedId](SEEN_MAX)

    def __len__(self) -> int:
        return len(self._given)

    def at(self, version: int) -> Callable[[str], str]:
        """A function that gives ids out in a load that read the session at `version`."""
        return partial(self._give, version)

    def get(self, id: str) -> int | None:
        """The version that the holder of this very string knows, if it is remembered."""
        found = self._find(id)
        return None if found is None else found.version

    def made(self, id: str, parent: str | None, version: int) -> None:
        """A checkpoint was put. Its writer knows the thread up to there; if it also put the parent, it may continue from that again."""
        self._note(_IssuedId(id, version, loaded=False))
        found = None if parent is None else self._find(parent)
        if found is not None and not found.loaded:
            self._note(found._replace(version=version))

    def _find(self, id: str) -> _IssuedId | None:
        found = self._given.get(builtins.id(id))
        return found if found is not None and found.id is id else None

    def _give(self, version: int, id: str) -> str:
        own = "".join([id[:1], id[1:]])
        self._note(_IssuedId(own, version, loaded=True))
        return own

    def _note(self, given: _IssuedId) -> None:
        # The string is kept alive, so that no other string gets its identity while it is remembered.
        self._given.put(builtins.id(given.id), given)
