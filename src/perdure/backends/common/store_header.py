"""The header of a store: its id and the version of its layout. It is read, made once, and checked, in this order on every engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from perdure.backends.common.packing import UNREADABLE
from perdure.backends.common.refusals import foreign_store, newer_schema, no_store
from perdure.clock import Clock
from perdure.errors import Unavailable
from perdure.model.ids import uuid7

R = TypeVar("R")


class StoreHeader(NamedTuple):
    """What a store says of itself. `schema` is the version of its layout; `min_writer` of `None`: it was made before there was one."""

    schema: int
    id: str
    min_writer: int | None = None


def new_store_id(clock: Clock) -> str:
    """An id that no other store has."""
    return uuid7(clock.now(), clock.bits(74)).hex()


def check_schema(found: int, known: int, min_writer: int | None = None) -> None:
    """Raise `Unsupported` where a later version of Perdure made the store, unless its header says that writers of ours may write: they
    keep the fields that they do not know."""
    if found > known and (min_writer is None or min_writer > known):
        raise newer_schema(found, known)


async def open_header(
    read: Callable[[], Awaitable[R | None]],
    make: Callable[[str], Awaitable[object]],
    parse: Callable[[R], StoreHeader],
    *,
    place: str,
    what: str,
    known: int,
    clock: Clock,
    create: bool,
) -> StoreHeader:
    """The header that `read` gives and `parse` takes apart. Where there is none, `make` is called with a new id, once: it does nothing
    where another process was first. `what` names the header's place in the store, as in "the key 'x'"; `known` is the newest schema here.

    Raises `NotFound` without `create`, `Corrupt` for something that is not Perdure's, `Unsupported` for a newer schema.
    """
    found = await read()
    if found is None:
        if not create:
            raise no_store(place, what)
        await make(new_store_id(clock))
        found = await read()
    if found is None:
        raise Unavailable(f"{place} took {what} and does not give it back: open the store again.")
    try:
        header = parse(found)
    except UNREADABLE as error:
        raise foreign_store(f"{what[:1].upper()}{what[1:]} at {place}") from error
    check_schema(header.schema, known, header.min_writer)
    return header
