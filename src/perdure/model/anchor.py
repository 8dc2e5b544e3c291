"""Anchors: the commits that permit records at or below a version to go, because a segment of the archive or a snapshot has them.

An anchor stands in the control section `anchor`; while its segment is made, `preparing` says so. See `engine.archive`.
"""

from __future__ import annotations

import msgspec

from perdure.model.control import CONTROL, Control
from perdure.model.events import Event

ANCHOR, PREPARING, PURGING = "anchor", "preparing", "purging"
"""The control sections."""
PREPARED, VOIDED, COMPACTED, ARCHIVED, RESTORED = "preparing", "voided", "compacted", "archived", "restored"
"""The events of anchor commits: a segment is about to be made; it is not to be used; records went to a segment, or went; all of the session
went to a segment; the session is live again."""


class Anchor(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of the records up to a version. Digests are SHA-256 in hexadecimal."""

    version: int
    hash: str
    """That commit's hash."""
    digest: str
    """Of the state at that version, as `codec.records.state_digest` computes it."""
    segment: str = ""
    """The segment that has them, as the last part of its name; empty: they were dropped."""
    size: int = 0
    """The segment's size in bytes."""
    footer: str = ""
    """Digest of the segment's footer, which has the digests of all its parts."""
    before: int = 0
    """The version of the anchor before it; 0: there is none."""
    first: int = 0
    """The version of the segment's first record."""
    life: int = 0
    """The version of the tombstone after which the session's life began when this was written."""

    @property
    def dropped(self) -> bool:
        """Whether the records are gone."""
        return not self.segment


class Preparing(msgspec.Struct, frozen=True, omit_defaults=True):
    """A segment that is being made. Its name is used once, so an anchor for it can follow only while this very section stands."""

    segment: str
    first: int
    last: int
    whole: bool = False
    """Whether it takes all of the session. Then `last` is the version of the commit that says this, and nothing may follow it."""


class Purging(msgspec.Struct, frozen=True):
    """The segments of a deleted session are being removed. It stands in the index row alone: a purge that was interrupted goes on by it."""

    version: int
    """The tombstone's. No fork reads from the commits up to it."""


def anchor_of(control: Control) -> Anchor | None:
    """The newest anchor; `None` if there is none. Raises `Corrupt`."""
    return control.section(ANCHOR, Anchor)


def preparing_of(control: Control) -> Preparing | None:
    """The segment that is being made; `None` if there is none. Raises `Corrupt`."""
    return control.section(PREPARING, Preparing)


def purging_of(control: Control) -> Purging | None:
    """The purge that was begun; `None` if none was. Raises `Corrupt`."""
    return control.section(PURGING, Purging)


def anchored(event: Event) -> Anchor | None:
    """The anchor that a commit with this event set. Raises `Corrupt`."""
    if event.type not in (COMPACTED, ARCHIVED) or not isinstance(event.data, dict):
        return None
    return anchor_of(Control(event.data.get(CONTROL) or {}))
