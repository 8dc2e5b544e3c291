"""A place for objects: each is made once, whole, and read by name. Nothing is ever replaced."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from perdure.backends.objects.bucket import Bucket
from perdure.backends.remote import IoLoop, gather_all
from perdure.clock import Clock
from perdure.errors import Closed, Unavailable, Unknown, Unsupported
from perdure.model.record import Durability
from perdure.places.names import check_object_name, object_name
from perdure.redaction import Secrets

T = TypeVar("T")
PAGE = 1_000
"""Names in one list, unless fewer are asked for."""
PUT_TRIES = 3
"""How often an object is put whose answers are lost."""


class Place:
    """Objects by name, in a folder or a bucket. Made by `open_place`; called from any event loop, and from blocking code.

    Names are those of `object_name`. Every call raises `Closed` after `close` and in a forked child, `Unauthorized`, and `Invalid` where
    the place is not one.
    """

    def __init__(self, bucket: Bucket, durability: Durability, secrets: Secrets) -> None:
        """`durability` is what a put that was answered survives; `secrets` are those of its URL, which no error shows."""
        self._bucket, self.durability, self._secrets = bucket, durability, secrets
        self._io = IoLoop("perdure-place")
        self._closed = False

    def __repr__(self) -> str:
        return f"<Place [{'closed' if self._closed else 'open'}] {self.shown}>"

    @property
    def shown(self) -> str:
        """Where it is, without secrets."""
        return self._bucket.place

    async def put(self, name: str, data: bytes) -> bool:
        """Make an object, whole and durable, unless there is one of this name; whether it was made.

        After a lost answer the object is read, and put again where it is missing: then one that has the very same bytes counts as made.
        Raises `Unavailable`: the object may be there or come later, so put it again or leave it.
        """
        check_object_name(name)
        lost: Unknown | None = None
        for _ in range(PUT_TRIES):
            try:
                if await self._call(self._bucket.create(name, data)):
                    return True
            except Unknown as error:
                lost = error
            found = None if lost is None else await self.get(name)
            if lost is None or found is not None:
                return found == data
        message = f"{self.shown} did not answer when {name} was put."
        raise Unavailable(message, advice="It may be there. Put it again: what is there is not replaced.") from lost

    async def get(self, name: str, start: int = 0, end: int | None = None) -> bytes | None:
        """An object's bytes, from `start` up to `end` (exclusive, the object's own end if that comes first); `None` if there is no object.

        Raises `Unavailable`.
        """
        return await self._call(self._bucket.get(check_object_name(name), start, end))

    async def get_many(self, names: Sequence[str]) -> Sequence[bytes | None]:
        """As `get`, several whole objects at once, as many as the place takes. All of them are in memory."""
        checked = [check_object_name(name) for name in names]
        return await self._call(gather_all(*[self._bucket.get(name) for name in checked]))

    async def size(self, name: str) -> int | None:
        """How many bytes an object has; `None` if there is none. Raises `Unavailable`."""
        return await self._call(self._bucket.size(check_object_name(name)))

    async def list(self, folder: str, after: str = "", limit: int = PAGE) -> Sequence[str]:
        """The names below a folder, at any depth, that sort after `after`: the first `limit` of them, sorted. Raises `Unavailable`."""
        if after:
            check_object_name(after)
        return await self._call(self._bucket.walk(check_object_name(folder), after, limit))

    async def delete(self, name: str) -> None:
        """Remove an object, durably, if it is there. Raises `Unavailable`: it may be gone, so delete it again."""
        await self._call(self._bucket.delete(check_object_name(name)))

    async def delete_many(self, names: Sequence[str]) -> None:
        """As `delete`, several at once. After an error some may be left."""
        checked = [check_object_name(name) for name in names]
        await self._call(gather_all(*[self._bucket.delete(name) for name in checked]))

    async def check(self, clock: Clock) -> None:
        """Prove that objects can be made, are not replaced, can be read and removed: one is, below `check/`.

        Raises `Unavailable`, `Unauthorized`, `Invalid`, and `Unsupported` for a place that replaces what is there.
        """
        name = object_name("check", f"{clock.bits(128):032x}")
        await self.put(name, b"1")
        try:
            again, found = await self.put(name, b"2"), await self.get(name)
        finally:
            await self.delete(name)
        if again or found != b"1":
            raise Unsupported(f"{self.shown} replaces an object whose name is taken, or does not show it: it cannot be used.")

    async def check_there(self) -> None:
        """Prove that the place can be read, and make nothing. Raises `Unavailable`, `Unauthorized`, `Invalid`."""
        await self._call(self._bucket.walk("check", "", 1))

    async def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            work.close()
            raise Closed
        try:
            result = await self._io.call(work)
        except Exception as error:  # noqa: BLE001 - raised below, and not from here: it would keep what it was before as its context
            failed = self._secrets.cleaned(error)
        else:
            return result
        raise failed

    async def close(self) -> None:
        """Let go of connections and threads. Calling it twice is calling it once."""
        if self._closed:
            return
        try:
            await self._call(self._bucket.close())
        finally:
            self._closed = True
            self._io.close()
