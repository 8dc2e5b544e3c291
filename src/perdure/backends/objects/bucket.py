"""What a place for objects must do: make an object if its name is free, read, replace, list. Names are paths with `/`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from perdure.backends.objects.settings import Settings


class Bucket(Protocol):
    """A flat map from names to bytes. Used on one event loop; a read sees every write that ended before it began."""

    place: str
    """Where it is, without secrets."""
    server: str
    """What keeps it, for a person to read."""

    async def create(self, name: str, data: bytes) -> bool:
        """Make an object of this name, whole and durable, if there is none; whether it was made.

        Never sent twice. Raises `Unavailable` (nothing was made), `Unknown` (it may have been, or may be later), `Unauthorized`, `Invalid`.
        """
        ...

    async def get(self, name: str, start: int = 0, end: int | None = None) -> bytes | None:
        """An object's bytes from `start` up to `end`, as of a slice; `None` if there is none. Raises `Unavailable`, `Unauthorized`."""
        ...

    async def size(self, name: str) -> int | None:
        """How many bytes an object has; `None` if there is none. Raises as `get`."""
        ...

    async def put(self, name: str, data: bytes) -> None:
        """Make or replace an object, whole. Raises as `create`."""
        ...

    async def change(self, name: str, change: Callable[[bytes], bytes]) -> bytes:
        """Replace an object by what `change` makes of it, unless another has replaced it meanwhile: then read it again. The bytes that
        stand there now; nothing is written where nothing changes.

        Raises `Corrupt` if there is none, `Unavailable` when others were quicker too often or it may not have been written: do it again.
        """
        ...

    async def delete(self, name: str) -> None:
        """Remove an object, if it is there; durably. Raises `Unavailable`, `Unauthorized`."""
        ...

    async def list(self, folder: str, after: str = "") -> Sequence[str]:
        """All names directly in a folder (without it) that sort after `after`, sorted. Raises `Unavailable`, `Unauthorized`."""
        ...

    async def walk(self, folder: str, after: str, limit: int) -> Sequence[str]:
        """The names of objects at any depth below a folder, whole, that sort after `after`: sorted, the first `limit` of them. Raises as
        `list`."""
        ...

    async def settings(self) -> Settings:
        """What the place does with objects by itself, as far as it can be asked; never raises."""
        ...

    async def close(self) -> None:
        """Let go of what was opened."""
        ...
