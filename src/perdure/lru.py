"""A map that keeps what was used last, and forgets the rest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruMap(Generic[K, V]):
    """A map of bounded size. What was neither read nor written for the longest time goes first.

    Without `weigh` every value counts as one, and the map is safe from any thread. With `weigh` its users hold a lock of their own; a value
    is weighed when it is put, so one that has grown is put again. An interrupt between two steps leaves the size right.
    """

    __slots__ = ("_items", "_keep_newest", "_size", "_weigh", "_weights", "evictions", "size_max")

    def __init__(self, size_max: int, weigh: Callable[[V], int] | None = None, *, keep_newest: bool = False) -> None:
        """`keep_newest`: the value that was put last stays, even where it alone exceeds `size_max`."""
        self.size_max = size_max
        self._weigh, self._keep_newest = weigh, keep_newest
        self._items: OrderedDict[K, V] = OrderedDict()
        self._weights: dict[K, int] = {}
        self._size = 0
        self.evictions = 0
        """How many values were forgotten because there was no room."""

    @property
    def size(self) -> int:
        """The weight of all values; without `weigh` their number."""
        return len(self._items) if self._weigh is None else self._size

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[K]:
        """The keys, least recently used first."""
        return iter(self._items)

    def values(self) -> list[V]:
        """The values, least recently used first."""
        return list(self._items.values())

    def get(self, key: K) -> V | None:
        """The value, which is now the most recently used one; `None` where there is none."""
        value = self._items.get(key)
        if value is not None:
            try:
                self._items.move_to_end(key)
            except KeyError:  # Another thread has just removed it.
                return None
        return value

    def put(self, key: K, value: V) -> None:
        """Keep this value, and forget others where there is no room."""
        if self._weigh is not None:
            self._put_weighed(key, value, self._weigh(value))
            return
        items = self._items
        items[key] = value  # In one step: other threads see the old value or this one.
        try:
            items.move_to_end(key)
        except KeyError:  # Another thread has just removed it.
            return
        if len(items) > self.size_max:
            self._evict()

    def oldest(self) -> V | None:
        """The least recently used value, which stays as it is; `None` where there is none."""
        return next(iter(self._items.values()), None)

    def pop(self, key: K) -> V | None:
        """Forget a key. Its value, or `None` where there was none."""
        self._size -= self._weights.pop(key, 0)
        return self._items.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()
        self._weights.clear()
        self._size = 0

    def _put_weighed(self, key: K, value: V, weight: int) -> None:
        try:
            self._items.pop(key, None)
            self._items[key] = value
            self._size += weight - self._weights.get(key, 0)
            self._weights[key] = weight
            if self._size > self.size_max:
                self._evict()
        except BaseException:
            self._recount()
            raise

    def _evict(self) -> None:
        kept = 1 if self._keep_newest else 0
        with suppress(KeyError):  # Another thread has removed the last one.
            while self.size > self.size_max and len(self._items) > kept:
                key, _ = self._items.popitem(last=False)
                self._size -= self._weights.pop(key, 0)
                self.evictions += 1

    def _recount(self) -> None:
        weigh = self._weigh
        self._weights = {} if weigh is None else {key: weigh(value) for key, value in self._items.items()}
        self._size = sum(self._weights.values())
