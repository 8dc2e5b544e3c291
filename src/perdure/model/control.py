"""What control commits say of a session: its policy, its lease, its anchor. It is folded from them, and stands in the index row too.

A control commit's event names the sections that it sets, under `control` in its data: {"control": {"lease": {...}}} sets one, and `None`
removes it. A section is always set whole, so folding a commit a second time changes nothing. A tombstone removes all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from perdure.errors import Corrupt, Invalid
from perdure.model.commit import Commit, Kind
from perdure.model.events import Event

CONTROL_BYTES_MAX = 1024
"""Most bytes of all sections together, encoded."""
CONTROL = "control"
"""The name in an event's data under which a control commit says what it sets."""
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(dict[str, Any])
S = TypeVar("S", bound=msgspec.Struct)


class Control(msgspec.Struct, frozen=True):
    """The sections by name. Sections that this version does not know are kept."""

    sections: Mapping[str, Any] = MappingProxyType({})

    def section(self, name: str, kind: type[S]) -> S | None:
        """A section as its type; `None` if it is not set. Raises `Corrupt` if it is something else."""
        value = self.sections.get(name)
        try:
            return None if value is None else msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise Corrupt(f"The section {name!r} of a session's control cell is damaged: {error}.") from error

    def after(self, kind: Kind, events: Iterable[Event]) -> Control:
        """What holds after a commit of this kind with these events."""
        if kind is Kind.tombstone:
            return NOTHING_SET
        if kind is Kind.data:
            return self
        changes: dict[str, Any] = {}
        for event in events:
            if isinstance(event.data, Mapping):
                changes |= event.data.get(CONTROL) or {}
        if not changes:
            return self
        return Control({name: value for name, value in {**self.sections, **changes}.items() if value is not None})

    def after_commit(self, commit: Commit) -> Control:
        """What holds after a commit."""
        return self.after(commit.kind, commit.events)

    def encode(self) -> bytes:
        """The bytes of the index row's cell; none if nothing is set. Raises `Invalid` over `CONTROL_BYTES_MAX`."""
        cell = _ENCODER.encode(dict(self.sections)) if self.sections else b""
        if len(cell) > CONTROL_BYTES_MAX:
            raise Invalid(f"Policy, lease and anchor of one session may take {CONTROL_BYTES_MAX:,} bytes; these take {len(cell):,}.")
        return cell


NOTHING_SET = Control()


def decode_control(cell: bytes) -> Control:
    """The sections in an index row's cell. Raises `Corrupt`."""
    if not cell:
        return NOTHING_SET
    try:
        return Control(_DECODER.decode(cell))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"A session's control cell is damaged: {error}.") from error


CONFIGURED, DELETED = "configured", "deleted"
"""The events of a configure commit and of a tombstone."""
