"""Policies: when a snapshot is due, and what a conflict does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from perdure.errors import Invalid
from perdure.model.ops import Op


class Clash(msgspec.Struct, frozen=True):
    """Both sides of a conflict, for a policy of the caller's: `mine` and `theirs` are the operations since `base`,
    `now` is the state that theirs made, `paths` are the JSON Pointers on which both wrote. All states are read-only."""

    base: Any
    now: Any
    mine: Sequence[Op]
    theirs: Sequence[Op]
    paths: Sequence[str]


OnConflict = Literal["merge", "raise"] | Callable[[Clash], Sequence[Op]]
"""What to do when others wrote first: rebase my operations over theirs (a clash raises `Conflict`), raise at once, or ask: the
callable answers a clash with operations for the state `now`."""


def check_on_conflict(policy: object) -> None:
    """Raise `Invalid` unless this is a policy."""
    if policy not in ("merge", "raise") and not callable(policy):
        raise Invalid(f"on_conflict must be 'merge', 'raise' or a callable, not {policy!r}.")


def snapshot_due(log_bytes: int, snapshot_bytes: int, bytes_min: int) -> bool:
    """Whether the log since the last snapshot outweighs it: bytes written stay linear in bytes changed."""
    return log_bytes > max(bytes_min, snapshot_bytes)
