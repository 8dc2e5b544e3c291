"""`perdure append`: one commit with one event."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from perdure.cli.common import COMMON, Common, counts, parse_json
from perdure.engine.options import check_events
from perdure.engine.views import Receipt
from perdure.errors import Invalid
from perdure.model.events import Event
from perdure.model.ids import check_name
from perdure.model.ops import Op


class ReceiptRow(msgspec.Struct, frozen=True):
    """The proof of a commit."""

    session: str
    """Where it was appended."""
    version: int
    """Its place in the chain."""
    id: str
    """A UUIDv7."""
    hash: str
    """Its hash, hexadecimal."""
    at: str
    """When, RFC 3339 in UTC."""
    durability: str
    """What it survives: memory, buffered, local or quorum."""
    duplicate: bool
    """Whether the key had been applied before; the receipt is then the first call's."""


def append(
    session: str,
    type: str,
    /,
    *,
    data: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    op: Annotated[list[str] | None, Parameter(negative=())] = None,
    expect: int | None = None,
    key: str | None = None,
    actor: str | None = None,
    on_conflict: Literal["merge", "raise"] = "merge",
    durability: str | None = None,
    recreate: bool = False,
    common: Common = COMMON,
) -> None:
    """Append one commit with one event; starts the session, and the store, if there is none.

    Parameters
    ----------
    session
        The session's id.
    type
        The event's type, such as message.
    data
        The event's data as JSON; @FILE reads a file, - reads stdin.
    op
        An operation on the state, ["set", "/path", value] or {"op": "set", "path": "/path", "value": 1}; may be given several times.
    expect
        The version on which you decided; 0: the session must not exist.
    key
        An idempotency key: a second call with it changes nothing and answers with the first one's receipt.
    actor
        Who did it.
    on_conflict
        What to do if others committed after --expect.
    durability
        The least level the receipt may name: memory, buffered, local or quorum.
    recreate
        Go on from the tombstone of a deleted session: its next life.
    """
    terminal = common.terminal()
    counts(expect=expect)
    event = Event(type, None if data is None else _data(data), tuple(map(_operation, op or ())))
    check_name("A session id", session)
    check_events((event,))  # before a store is made for it
    with common.open_or_make() as store:
        receipt = store.append(
            session, event, expect=expect, key=key, actor=actor, on_conflict=on_conflict, durability=durability, recreate=recreate
        )
    row = receipt_row(session, receipt)
    if terminal.json:
        terminal.object(row)
    elif not terminal.quiet:
        again = ", applied before with this key" if row.duplicate else ""
        terminal.print(f"{row.session} version {row.version}, durability {row.durability}{again}")


def receipt_row(session: str, receipt: Receipt) -> ReceiptRow:
    """A receipt as it is shown."""
    return ReceiptRow(session=session, **receipt.to_dict())


def _data(word: str) -> Any:
    if word == "-":
        return parse_json(sys.stdin.buffer.read(), "stdin")
    if word.startswith("@"):
        try:
            return parse_json(Path(word[1:]).read_bytes(), word[1:])
        except OSError as error:
            raise Invalid(f"{word[1:]} cannot be read: {error.strerror}.") from None
    return parse_json(word, "--data")


def _operation(word: str) -> Op:
    value = parse_json(word, "--op")
    if isinstance(value, dict) and {"op", "path"} <= value.keys() <= {"op", "path", "value"}:
        value = [value["op"], value["path"], value.get("value")]
    if not isinstance(value, list) or not 2 <= len(value) <= 3 or not all(isinstance(part, str) for part in value[:2]):
        raise Invalid(f'--op must be ["kind", "/path", value] or {{"op": kind, "path": "/path", "value": value}}, not {word[:60]}.')
    return Op(*value)
