"""`perdure append`: one event, from the shell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from perdure.cli.common import Common, moment, opened, show_row
from perdure.engine.views import Receipt
from perdure.errors import Invalid
from perdure.model.events import Event
from perdure.model.ops import Op


class ReceiptRow(msgspec.Struct, frozen=True):
    """`version`, `id` and `hash` (hex), `at` (RFC 3339), `durability`, and whether the key was applied before (`duplicate`)."""

    version: int
    id: str
    hash: str
    at: str
    durability: str
    duplicate: bool

    @classmethod
    def of(cls, receipt: Receipt) -> ReceiptRow:
        """From a receipt."""
        return cls(receipt.version, receipt.id.hex(), receipt.hash.hex(), moment(receipt.at), receipt.durability.name, receipt.duplicate)


def append(
    session: str,
    type: str,
    /,
    *,
    data: Annotated[str | None, Parameter(help="JSON; @FILE reads a file, - reads standard input.")] = None,
    op: Annotated[
        list[str] | None, Parameter(help='An operation as JSON, such as \'["set", "/status", "done"]\'; may be repeated.')
    ] = None,
    expect: Annotated[int | None, Parameter(help="The version you decided on; 0: the session must not exist.")] = None,
    strict: Annotated[bool, Parameter(help="Refuse, rather than merge, when others wrote since --expect.")] = False,
    key: Annotated[str | None, Parameter(help="An idempotency key.")] = None,
    actor: Annotated[str | None, Parameter(help="Who did it.")] = None,
    recreate: Annotated[bool, Parameter(help="Go on from the tombstone of a deleted session.")] = False,
    common: Common | None = None,
) -> int:
    """Append an event; starts the session, and the store, if there is none."""
    common = common or Common()
    event = Event(type, _value(data), tuple(_operation(text) for text in op or []))
    with opened(common, create=True) as store:
        receipt = store.append(
            session, event, expect=expect, key=key, actor=actor, on_conflict="raise" if strict else "merge", recreate=recreate
        )
    show_row(common, ReceiptRow.of(receipt))
    return 0


def _value(text: str | None) -> Any:
    if text is None:
        return None
    try:
        source = sys.stdin.read() if text == "-" else Path(text[1:]).read_text() if text.startswith("@") else text
        return msgspec.json.decode(source)
    except OSError as error:
        raise Invalid(f"--data: {error}.") from None
    except msgspec.DecodeError as error:
        raise Invalid(f"--data is not JSON: {error}. A text needs its quotes: --data '\"hello\"'.") from None


def _operation(text: str) -> Op:
    try:
        return msgspec.json.decode(text, type=Op)
    except msgspec.DecodeError as error:
        raise Invalid(f"--op {text!r} is no operation: {error}. Write a JSON array: kind, path, value.") from None
