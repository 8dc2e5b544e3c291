"""`perdure verify`: proof that chains and snapshots are what was written."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

import perdure.sync
from perdure.cli.common import COMMON, Common
from perdure.cli.exits import OK, UsageError, status_of
from perdure.cli.output.terminal import Column
from perdure.errors import Corrupt, Rewound, Truncated
from perdure.model.commit import Status

ADVICE = "Stop writing to it and restore it from a backup."
"""What to do about a session that is not sound."""


class VerifyRow(msgspec.Struct, frozen=True):
    """What was found of a session."""

    session: str
    """Its id."""
    ok: bool
    """Whether all of it is as it was written."""
    version: int | None
    """The version up to which the chain hangs together; null if it does not."""
    hash: str | None
    """The hash of that commit, hexadecimal: keep it outside the store to prove later that nothing was rewritten."""
    commits: int | None
    """How many commits were checked, those shared with a parent included."""
    snapshots: int | None
    """How many snapshots equal the fold."""
    code: str | None = None
    """What is wrong: the error's code."""
    problem: str | None = None
    """What is wrong, in words."""


COLUMNS: tuple[Column[VerifyRow], ...] = (
    Column("", lambda row: "ok" if row.ok else "BAD"),
    Column("session", lambda row: row.session, style="cyan", share="wrap"),
    Column("version", lambda row: "" if row.version is None else row.version, justify="right"),
    Column("commits", lambda row: "" if row.commits is None else row.commits, justify="right"),
    Column("snapshots", lambda row: "" if row.snapshots is None else row.snapshots, justify="right"),
    Column("hash, or what is wrong", lambda row: row.problem or (row.hash or "")[:16], share="wrap"),
)


def verify(*sessions: str, all: bool = False, common: Common = COMMON) -> int:
    """Prove sessions: each commit's hash and place, each snapshot against the fold. Reads everything.

    Parameters
    ----------
    sessions
        Their ids.
    all
        Every session of the tenant, deleted ones too; so it is when no id is given.
    """
    if all and sessions:
        raise UsageError("--all is every session: leave the ids out, or leave --all out.")
    terminal = common.terminal()
    worst = OK
    with common.open() as store:
        names = list(sessions) if sessions else list(_every(store))
        with terminal.progress("verifying", len(names)) as advance:
            rows: list[VerifyRow] = []
            for name in names:
                row = _verify(store, name)
                advance(1)
                if not row.ok:
                    worst = max(worst, status_of(row.code or ""))
                if terminal.json:
                    terminal.object(row)
                elif not terminal.quiet or not row.ok:
                    rows.append(row)
    if not terminal.json:
        terminal.rows(rows, *COLUMNS)
    terminal.note(f"{len(names)} session{'s' if len(names) != 1 else ''} verified." if worst == OK else "Not everything is sound.")
    return worst


def _every(store: perdure.sync.Store) -> Iterator[str]:
    for status in (None, Status.deleted, Status.moved):
        for info in store.list(status=status):
            yield info.session


def _verify(store: perdure.sync.Store, session: str) -> VerifyRow:
    try:
        proof = store.verify(session)
    except (Corrupt, Rewound, Truncated) as error:
        return VerifyRow(session, False, None, None, None, None, error.code, f"{error.detail} {ADVICE}".strip())
    return VerifyRow(session, True, proof.version, proof.hash.hex(), proof.commits, proof.snapshots)
