"""Anchors: what a control commit says of commits that are no longer in the chain."""

from __future__ import annotations

import msgspec

from perdure.model.control import Control

ANCHOR = "anchor"
"""The section of the control cell."""
ANCHORED = "anchored"
"""The event of an anchor that drops: data {tags, origin, control}."""


class Anchor(msgspec.Struct, frozen=True, omit_defaults=True):
    """The newest anchor of a session."""

    at: int
    """Its own version."""
    version: int
    """The newest version that may be dropped."""
    hash: str
    """That commit's hash, hexadecimal."""
    digest: str
    """SHA-256 of the snapshot's bytes that stand for what was dropped, hexadecimal."""
    life: int = 0
    """The version of the tombstone that the session's life began after; 0: it is its first."""
    before: int | None = None
    """What the anchor before it named."""


def anchor_of(control: Control) -> Anchor | None:
    """The newest anchor. Raises `Corrupt`."""
    return control.section(ANCHOR, Anchor)
