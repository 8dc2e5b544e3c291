"""JSON and MessagePack: events and states to bytes and back. They hold data only: no stored bytes can cause an import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.errors import Invalid
from perdure.model.events import Event
from perdure.model.ops import TAKE, Op, TakingOp
from perdure.model.values import no_room

JSON, MSGPACK = 1, 2
NAMES = {"json": JSON, "msgpack": MSGPACK}
"""The formats by the names that settings use, and the codes that are stored. Never use a code again."""

_INT64 = range(-(1 << 63), 1 << 64)


class MarkedOp(msgspec.Struct, frozen=True, array_like=True):
    """Any stored operation, with its mark if it has one. An operation is written without a fourth element unless it takes."""

    kind: str
    path: str
    value: Any = None
    take: Any = None


class MarkedEvent(msgspec.Struct, frozen=True, array_like=True):
    """An event whose operations may be marked."""

    type: str
    data: Any = None
    ops: tuple[MarkedOp, ...] = ()


_encoders: dict[int, msgspec.json.Encoder | msgspec.msgpack.Encoder] = {
    JSON: msgspec.json.Encoder(),
    MSGPACK: msgspec.msgpack.Encoder(),
}
_event_decoders: dict[int, Any] = {
    JSON: msgspec.json.Decoder(tuple[Event, ...]),
    MSGPACK: msgspec.msgpack.Decoder(tuple[Event, ...]),
}
_marked_decoders: dict[int, Any] = {
    JSON: msgspec.json.Decoder(tuple[MarkedEvent, ...]),
    MSGPACK: msgspec.msgpack.Decoder(tuple[MarkedEvent, ...]),
}
_marks = {code: _encoders[code].encode(TAKE) for code in (JSON, MSGPACK)}
_value_decoders: dict[int, Any] = {JSON: msgspec.json.Decoder(), MSGPACK: msgspec.msgpack.Decoder()}


def encode(value: Any, code: int) -> tuple[bytes, int]:
    """The bytes and the code of the format used: MessagePack has no integers beyond 64 bits, such a value is stored as JSON."""
    try:
        return _encoders[code].encode(value), code
    except OverflowError:
        return _encoders[JSON].encode(value), JSON
    except RecursionError:  # Values are checked before, and nest less deep than any stack has room for.
        raise no_room() from None
    except (TypeError, ValueError) as error:
        raise Invalid(f"This value cannot be stored: {error}.") from None


def decode_events(payload: bytes, code: int) -> Sequence[Event]:
    """The events of a body. Raises `msgspec.DecodeError`, `KeyError` (unknown format) or `RecursionError`."""
    if _marks[code] in payload:  # Else no operation can be marked, and decoding them as what they are costs nothing more.
        return [_unmarked(event) for event in _marked_decoders[code].decode(payload)]
    events: Sequence[Event] = _event_decoders[code].decode(payload)
    return events


def _unmarked(event: MarkedEvent) -> Event:
    ops = [TakingOp(op.kind, op.path, op.value) if op.take == TAKE else Op(op.kind, op.path, op.value) for op in event.ops]
    return Event(event.type, event.data, tuple(ops))


def decode_value(payload: bytes, code: int) -> Any:
    """Any JSON value. Raises as `decode_events`."""
    return _value_decoders[code].decode(payload)
