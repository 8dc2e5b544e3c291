"""The cells of an index row in a session's header item, and the items of what is due beside it, changed by one write or transaction.

A due item counts while the header says the same time. Who removes one names it by the time that the header holds, so each such write is
conditioned on that time.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.backends.dynamodb.layout import Item, Layout, SessionHeader, binary, number
from perdure.backends.spi import NEVER, Index
from perdure.model.ids import SessionKey


class CellChanges(msgspec.Struct, frozen=True):
    """What a change of cells adds to an update of the header: parts of its expression and condition, their values, and items beside it."""

    sets: Sequence[str] = ()
    removes: Sequence[str] = ()
    values: Item = {}
    condition: str = ""
    beside: Sequence[Item] = ()

    def __bool__(self) -> bool:
        return bool(self.sets or self.removes or self.condition)

    def expression(self, sets: Sequence[str] = ()) -> str:
        """The update's expression, with what else it sets."""
        every = [*sets, *self.sets]
        return " ".join(([f"SET {', '.join(every)}"] if every else []) + ([f"REMOVE {', '.join(self.removes)}"] if self.removes else []))

    def conditions(self, condition: str) -> str:
        """The update's condition, with what else it asks."""
        return f"{condition} AND {self.condition}" if self.condition else condition


NO_CHANGE = CellChanges()


def changes(table: str, keys: Layout, session: SessionKey, index: Index | None, due_before: int | None) -> CellChanges:
    """The change of these cells, of a header whose time is `due_before`, or the write is refused."""
    if index is None:
        return CellChanges()
    sets, removes, values = list[str](), list[str](), dict[str, Item]()
    due = None if index.due_at is None else number(index.due_at)
    control = None if index.control is None else binary(index.control)
    size = None if index.size_bytes is None else number(index.size_bytes)
    for name, value, nothing in (("u", due, number(NEVER)), ("o", control, binary(b"")), ("w", size, number(0))):
        if value == nothing:
            removes.append(name)
        elif value is not None:
            sets.append(f"{name} = :{name}")
            values[f":{name}"] = value
    if index.due_at is None:
        return CellChanges(sets, removes, values)
    condition, values_before = due_is(due_before)
    after = None if index.due_at == NEVER else index.due_at
    return CellChanges(sets, removes, values | values_before, condition, due_items(table, keys, session, due_before, after))


def due_is(due_at: int | None) -> tuple[str, Item]:
    """The condition that a header has this time, and its values."""
    return ("attribute_not_exists(u)", {}) if due_at is None else ("u = :due", {":due": number(due_at)})


def due_items(table: str, keys: Layout, session: SessionKey, before: int | None, after: int | None) -> list[Item]:
    """What makes the items of what is due follow a header."""
    if before == after:
        return []
    gone = [] if before is None else [{"Delete": {"TableName": table, "Key": keys.due(session, before)}}]
    return gone if after is None else [*gone, {"Put": {"TableName": table, "Item": keys.due(session, after)}}]


def changed(header: SessionHeader, index: Index | None) -> SessionHeader:
    """The header with its cells changed."""
    if index is None:
        return header
    return msgspec.structs.replace(
        header,
        due_at=header.due_at if index.due_at is None else None if index.due_at == NEVER else index.due_at,
        control=header.control if index.control is None else index.control,
        size_bytes=header.size_bytes if index.size_bytes is None else index.size_bytes,
    )
