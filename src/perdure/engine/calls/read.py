"""`read`: a session's state at its head, at a version, or at a time."""

from __future__ import annotations

from datetime import datetime

from perdure.engine.context import Context
from perdure.engine.core import Core
from perdure.engine.options import VERSION_MAX, check_staleness, check_time
from perdure.engine.read.cache import CachedState
from perdure.engine.read.tokens import parse_token, require_commit
from perdure.engine.views import View, to_nanoseconds
from perdure.engine.write.request import check_incarnation
from perdure.errors import Deleted, Invalid, NotFound
from perdure.model.commit import Status
from perdure.model.ids import SessionKey
from perdure.model.token import Token, write_token

_DELETED = int(Status.deleted)


async def read(
    context: Context,
    session: str,
    at: int | datetime | None,
    consistency: str,
    max_staleness: float | None,
    at_least: str | None,
    *,
    include_deleted: bool,
) -> View:
    """See `Store.read`."""
    core, target = context.opened(), context.key(session)
    if consistency != "strong" or max_staleness is not None:
        check_staleness(consistency, max_staleness)
    token = None if at_least is None else parse_token(at_least, core.backend.store_id, target)
    with core.telemetry.span("read", *target):
        reader = core.reader
        if consistency == "strong":
            found, owned = await reader.load_uncached(target)
        else:
            found, owned = await reader.eventual(target, core.cache.ttl if max_staleness is None else max_staleness), False
        if token is not None:
            if consistency == "eventual" and (found is None or found.head.version < token.version):
                found, owned = await reader.load_uncached(target)
            await require_commit(reader, core.cache, target, found, token)
        if found is not None:
            core.saw(target, found.head.version)
        now = require_live(target, found, include_deleted=include_deleted)
        core.sizes.check(target, now)
        if core.snapshots.is_due(now):
            await core.snapshots.store(target, now, keep=not owned)
        if at is None:
            return _view(core, target, now, now, owned=owned)
        then = await _past(core, target, now, at, include_deleted=include_deleted)
        if then.head.version > now.head.version:
            reader.saw(target, then.head.version)
        return _view(core, target, now, then, owned=True)


async def newest_token(context: Context, session: str) -> str:
    """See `Store.token`."""
    core, target = context.opened(), context.key(session)
    with core.telemetry.span("token", *target):
        await core.reader.settled(target)
        (head,) = await core.backend.heads([target])
    if head is None:
        raise NotFound(f"There is no session {session!r} in tenant {context.tenant!r}.", session=session)
    if head.status == _DELETED:
        raise Deleted(f"Session {session!r} was deleted at version {head.version}.", session=session)
    core.reader.saw(target, head.version)
    return write_token(Token(core.backend.store_id, *target, head.version, head.hash))


async def read_live(core: Core, session: SessionKey) -> CachedState:
    """The newest state. Raises `NotFound`, `Deleted`."""
    return require_live(session, await core.reader.read_head(session))


def require_live(session: SessionKey, found: CachedState | None, *, include_deleted: bool = False) -> CachedState:
    """What was found of a session that is there. Raises `NotFound`, and `Deleted` unless `include_deleted`."""
    if found is None:
        raise NotFound(f"There is no session {session.id!r} in tenant {session.tenant!r}.", session=session.id)
    if found.head.status == _DELETED and not include_deleted:
        raise Deleted(f"Session {session.id!r} was deleted at version {found.head.version}.", session=session.id)
    return found


async def _past(core: Core, session: SessionKey, now: CachedState, at: int | datetime, *, include_deleted: bool) -> CachedState:
    tombstone = 0 if include_deleted else await core.reader.incarnation_start(session, now.head)
    if isinstance(at, datetime):
        moment = to_nanoseconds(check_time("at", at))
        at = await core.reader.at_time(session, now.head, moment, tombstone)
        if not at:
            raise NotFound(f"Session {session.id!r} did not exist at that time.", session=session.id)
    elif type(at) is not int or not 1 <= at <= VERSION_MAX:
        raise Invalid(f"at must be a version from 1 or an aware datetime, not {at!r}.")
    check_incarnation(session, tombstone, at)
    return (await core.reader.at(session, at))[0]


def _view(core: Core, session: SessionKey, now: CachedState, then: CachedState, *, owned: bool) -> View:
    head, place = then.head, (core.backend.store_id, session.tenant)
    return View(session.id, head.version, head.hash, then.state, now.head, now.tags, now.created_at, at=head.at, owned=owned, place=place)
