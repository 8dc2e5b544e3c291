"""The versions and the bytes of one `read`, and whether versions follow one another without a gap."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from perdure.errors import Corrupt
from perdure.model.ids import SessionKey

PAGE_BYTES = 4 << 20
"""About how many bytes of records one `read` returns."""
SNAPSHOTS_KEPT = 2
"""How many of a session's newest snapshots are kept."""
VERSION_END = (1 << 63) - 1
"""Above every version."""
LOOKS = 8
"""How often a read that found a gap is done again before the gap counts as damage."""

T = TypeVar("T")


class Weighed(Protocol):
    """A record, or what stands for one."""

    @property
    def stored_bytes(self) -> int: ...


W = TypeVar("W", bound=Weighed)


class RecordPage(Generic[W]):
    """The records of one `read` as they come in: at most `limit`, and about `PAGE_BYTES`, yet at least one where there is one."""

    __slots__ = ("_limit", "_size", "full", "records")

    def __init__(self, limit: int) -> None:
        self.records: list[W] = []
        self._limit, self._size = limit, 0
        self.full = limit < 1

    def add(self, record: W) -> bool:
        """Take the next record. Whether the page is full now."""
        self.records.append(record)
        self._size += record.stored_bytes
        self.full = self._size > PAGE_BYTES or len(self.records) >= self._limit
        return self.full

    def room(self, most: int) -> int:
        """How many more records to fetch at once, from 1 to `most`: as many as fit, if they are as large as those so far."""
        left = self._limit - len(self.records)
        if self.records:
            left = min(left, max(1, (PAGE_BYTES - self._size) * len(self.records) // max(1, self._size)))
        return min(left, most)


def one_page(records: Iterable[W], limit: int) -> list[W]:
    """As many of these records as one `read` returns."""
    page = RecordPage[W](limit)
    if not page.full:
        for record in records:
            if page.add(record):
                break
    return page.records


def version_range(after: int, before: int | None, first: int = 1, last: int = VERSION_END) -> tuple[int, int]:
    """The first and the last version with `after < version < before`, of those from `first` to `last`."""
    return max(after + 1, first), last if before is None else min(before - 1, last)


class GapError(Exception):
    """A version that should be there was not found: it was moved or truncated meanwhile, or it is gone."""


def check_dense(versions: Sequence[int], first: int, last: int) -> None:
    """Raise `GapError` unless these are the versions from `first` to `last`, each once and in order."""
    if list(versions) != list(range(first, last + 1)):
        raise GapError


async def without_gaps(ask: Callable[[], Awaitable[T]], session: SessionKey, engine: str, looks: int = LOOKS) -> T:
    """What `ask` gives; it is asked again after a `GapError`. Raises `Corrupt` where the gap stays."""
    for _ in range(looks):
        try:
            return await ask()
        except GapError:
            continue
    raise Corrupt(
        f"Records of session {session.id!r} are gone from {engine}: were they deleted by hand, or by a time to live?", session=session.id
    )
