"""`perdure verify`: prove sessions, commit by commit."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import msgspec
from rich.console import Console
from rich.progress import Progress

from perdure import sync
from perdure.cli.common import Common, opened, show_rows
from perdure.errors import Corrupt, Invalid


class ProofRow(msgspec.Struct, frozen=True):
    """`session`, whether it is `sound`, its `version` and `hash` (hex), how many `commits` and `snapshots` were proved, and
    what is wrong (`error`)."""

    session: str
    sound: bool
    version: int
    hash: str
    commits: int
    snapshots: int
    error: str | None


def verify(*sessions: str, all: bool = False, common: Common | None = None) -> int:
    """Verify sessions: every hash, every link, every snapshot against the fold. Exit code 7 if any is corrupt.

    Parameters
    ----------
    all
        Every session of the tenant.
    """
    common = common or Common()
    if bool(sessions) == all:
        raise Invalid("Name the sessions to verify, or pass --all.")
    with opened(common) as store:
        names = [info.session for info in store.list()] if all else list(sessions)
        rows: list[ProofRow] = []
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty() or common.json) as progress:
            rows.extend(progress.track(_proofs(store, names), total=len(names), description="verifying"))
    show_rows(common, rows, ["session", "sound", "version", "commits", "snapshots", "error"])
    return 0 if all_sound(rows) else 7


def _proofs(store: sync.Store, names: list[str]) -> Iterator[ProofRow]:
    for name in names:
        try:
            proof = store.verify(name)
        except Corrupt as error:
            yield ProofRow(name, False, 0, "", 0, 0, error.detail)
        else:
            yield ProofRow(name, True, proof.version, proof.hash.hex(), proof.commits, proof.snapshots, None)


def all_sound(rows: list[ProofRow]) -> bool:
    """Whether every session was proved."""
    return all(row.sound for row in rows)
