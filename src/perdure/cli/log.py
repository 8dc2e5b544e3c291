"""`perdure log`: a session's commits, newest first."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from perdure.cli.common import Common, moment, opened, preview, show_rows
from perdure.model.commit import Commit


class CommitRow(msgspec.Struct, frozen=True):
    """`version`, `at` (RFC 3339), `kind`, `actor`, `key`, `trace`, `id` and `hash` (hex), `events` (type, data, ops), and
    `what`, a preview for people."""

    version: int
    at: str
    kind: str
    actor: str | None
    key: str | None
    trace: str | None
    id: str
    hash: str
    events: list[dict[str, Any]]
    what: str

    @classmethod
    def of(cls, commit: Commit) -> CommitRow:
        """From a commit."""
        events = [
            {"type": event.type, "data": event.data, "ops": [[op.kind, op.path, op.value] for op in event.ops]} for event in commit.events
        ]
        what = "; ".join(_what(event) for event in events)
        at = moment(commit.at)
        return cls(
            commit.version, at, commit.kind.name, commit.actor, commit.key, commit.trace, commit.id.hex(), commit.hash.hex(), events, what
        )


def _what(event: dict[str, Any]) -> str:
    changed = ", ".join(f"{kind} {path or '(all)'}" for kind, path, _ in event["ops"][:4])
    more = f" and {len(event['ops']) - 4} more" if len(event["ops"]) > 4 else ""
    said = preview(event["data"])
    return " ".join(part for part in (event["type"], said, f"<{changed}{more}>" if changed else "") if part)


def log(
    session: str,
    /,
    *,
    after: Annotated[int, Parameter(help="Only versions above this.")] = 0,
    before: Annotated[int | None, Parameter(help="Only versions below this.")] = None,
    types: Annotated[list[str] | None, Parameter(help="Only events of this type; may be repeated.")] = None,
    oldest_first: Annotated[bool, Parameter(help="In the order in which they happened.")] = False,
    limit: Annotated[int | None, Parameter(help="At most so many commits. Default on a terminal: 50.")] = None,
    common: Common | None = None,
) -> int:
    """Show a session's commits."""
    common = common or Common()
    if limit is None and not common.machine:
        limit = 50
    with opened(common) as store:
        commits = store.history(session, after=after, before=before, types=types, newest_first=not oldest_first, limit=limit)
        show_rows(common, (CommitRow.of(commit) for commit in commits), ["version", "at", "actor", "key", "what"])
    return 0
