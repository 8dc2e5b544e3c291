"""`history`: the commits of one session, of its present life as a rule."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing

from perdure.engine.context import Context
from perdure.engine.options import check_count, check_types
from perdure.engine.views import only
from perdure.errors import Deleted, NotFound
from perdure.model.commit import Commit, Kind, Status


async def history(
    context: Context,
    session: str,
    *,
    after: int,
    before: int | None,
    types: Collection[str] | None,
    newest_first: bool,
    limit: int | None,
    include_deleted: bool,
    control: bool,
) -> AsyncGenerator[Commit, None]:
    """See `Store.history`."""
    core, target = context.opened(), context.key(session)
    check_count("after", after)
    for name, value in (("before", before), ("limit", limit)):
        if value is not None:
            check_count(name, value)
    check_types(types)
    with core.telemetry.span("history", *target):
        await core.reader.settled(target)
        head = (await core.backend.heads([target]))[0]
    if head is None:
        raise NotFound(f"There is no session {session!r} in tenant {context.tenant!r}.", session=session)
    if not include_deleted:
        after = max(after, await core.reader.incarnation_start(target, head))
        if head.status == Status.deleted:
            raise Deleted(f"Session {session!r} was deleted at version {head.version}.", session=session)
    if limit == 0:
        return
    count = 0
    need = core.codec.needs(types)
    async with aclosing(core.reader.commits(target, after=after, before=before, newest_first=newest_first, need=need)) as commits:
        async for commit in commits:
            core.check_process()
            if commit.kind is Kind.tombstone and commit.version > head.version and not include_deleted:
                raise Deleted(f"Session {session!r} was deleted at version {commit.version}.", session=session)
            if commit.kind is Kind.lease and not control:
                continue
            core.reader.saw(target, commit.version)
            chosen = only(core.codec.upcast(commit), types)
            if chosen is not None:
                yield chosen
                count += 1
                if count == limit:
                    return
