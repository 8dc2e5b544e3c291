"""What every feed that is swept claims: it keeps what tells of living records, and its readers miss none, wherever they had come to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from perdure.backends.conformance import behind
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey

Entries = list[tuple[SessionKey, int]]


async def seen_from(backend: Any, cursor: str | None) -> Entries:
    """What the feed tells behind a cursor, to its end."""
    seen = []
    while (page := await backend.feed(cursor, limit=50)).items:
        seen += [(change.session, change.record.head.version) for change in page.items]
        cursor = page.cursor
    return seen


async def sweeps(
    backend: Any, sessions: Sequence[SessionKey], turns: int, *, bound: Callable[[set[tuple[SessionKey, int]]], Awaitable[None]]
) -> None:
    """Sessions, written in turns and read as they are, are purged and truncated one after another; what is left of the feed is within the
    bound, which is given what is alive. Readers from the start and from every place they had come to before are told what is kept, once, in
    each session's order."""
    whole: Entries = []
    cursors: list[tuple[str | None, int]] = []
    cursor: str | None = None
    for turn in range(turns):
        await backend.append([behind(session, salt=b"%d" % turn) for session in sessions])
        for first in (True, False):  # A reader comes to a place in the midst of what was written together, another to its end.
            page = await backend.feed(cursor, limit=len(sessions) // 2 if first else 256)
            whole += [(change.session, change.record.head.version) for change in page.items]
            cursor = page.cursor
            if first:
                cursors.append((cursor, len(whole)))
    assert len(whole) == turns * len(sessions)
    for number, session in enumerate(sessions[:-1]):
        if number % 2:
            await backend.append([behind(session, kind=Kind.tombstone, status=Status.deleted)])
            await backend.purge(session)
        else:
            (outcome,) = await backend.append([behind(session, kind=Kind.anchor)])
            await backend.truncate(session, outcome.head.version, (outcome.head.version, outcome.head.hash))
        alive = {(one, record.head.version) for one in sessions for record in await backend.read(one)}
        told = await seen_from(backend, None)
        assert len(told) == len(set(told)) and set(told) == alive
        assert all([version for key, version in told if key == one] == sorted(v for key, v in alive if key == one) for one in sessions)
        await bound(alive)
        for place, count in cursors:
            assert set(await seen_from(backend, place)) == (alive & set(whole[count:])) | (alive - set(whole))
