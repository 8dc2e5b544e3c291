"""`configure` and `policy`: a session's tags and what is to become of it by itself, and what sessions of a prefix begin with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from math import isfinite
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from perdure.backends.spi import NEVER, Appended, Backend, Index, Versioned, indexed, served
from perdure.config import shown_url
from perdure.engine.calls.listing import check_tags
from perdure.engine.calls.nodes import configure_prefix
from perdure.engine.calls.read import read_live
from perdure.engine.context import Context
from perdure.engine.core import Core
from perdure.engine.leasing.lease import Lease
from perdure.engine.options import Options, check_options, check_time
from perdure.engine.read.segments import HOW_TO_HAVE_ONE
from perdure.engine.views import Policy, Receipt
from perdure.engine.write.controls import Basis, ControlChange, ControlCommit
from perdure.engine.write.once import Keyed, once
from perdure.engine.write.prefixes import APPLY, BEGINS, PREFIX_BYTES_MAX, Apply, PrefixPolicy, prefix_session
from perdure.errors import Conflict, Invalid, Unsupported
from perdure.model import lifecycle
from perdure.model.commit import Kind
from perdure.model.control import CONFIGURED, CONTROL
from perdure.model.events import Event
from perdure.model.fence import Fence
from perdure.model.ids import SessionKey, check_name
from perdure.model.lifecycle import COMMITS_KEPT_MAX, DURATION_MAX, DURATION_MIN, SYSTEM_POLICY, first_due, policy_of, policy_sections
from perdure.model.timestamps import to_nanoseconds
from perdure.redaction import shown_value

_TIME_END = 1 << 63


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a call of `configure` asks for: `UNSET` leaves, `None` removes. Times and durations in nanoseconds."""

    expire_after: int | UnsetType | None = UNSET
    archive_after: int | UnsetType | None = UNSET
    wake_at: int | UnsetType | None = UNSET
    wake_every: int | UnsetType | None = UNSET
    wake: str | UnsetType | None = UNSET
    keep: int | timedelta | UnsetType | None = UNSET
    drop: bool | UnsetType | None = UNSET
    grace: int | UnsetType | None = UNSET

    @property
    def is_empty(self) -> bool:
        """Whether it asks for nothing."""
        return all(getattr(self, name) is UNSET for name in self.__struct_fields__)


def wanted(
    expire_after: object,
    archive_after: object,
    wake_at: object,
    wake_every: object,
    wake: object,
    keep: object,
    drop: object,
    grace: object,
) -> Wanted:
    """The arguments of `configure`, checked. Raises `Invalid`."""
    if wake not in ("sweep", "claim", None, UNSET):
        raise Invalid(f"wake must be 'sweep' (the sweeper wakes the session) or 'claim' (a worker that claims it), not {wake!r}.")
    if drop is not UNSET and drop is not None and type(drop) is not bool:
        raise Invalid(f"drop must be true or false, not {drop!r}.")
    return Wanted(
        expire_after=_duration("expire_after", expire_after),
        archive_after=_duration("archive_after", archive_after),
        wake_at=_time("wake_at", wake_at),
        wake_every=_duration("wake_every", wake_every),
        wake=wake,
        keep=_keep(keep),
        drop=drop,
        grace=_duration("grace", grace),
    )


def _duration(name: str, value: object) -> int | UnsetType | None:
    if value is None or isinstance(value, UnsetType):
        return value
    if isinstance(value, timedelta):
        found: float = value // timedelta(microseconds=1) * 1000
    elif type(value) is int or (type(value) is float and isfinite(value)):
        found = value * lifecycle.SECOND
    else:
        raise Invalid(f"{name} takes a timedelta or seconds, not {shown_value(value)}.")
    if not DURATION_MIN <= found <= DURATION_MAX:
        years = DURATION_MAX // lifecycle.YEAR
        seconds = f"{value.total_seconds():g}" if isinstance(value, timedelta) else shown_value(value)
        raise Invalid(f"{name} takes from 1 second to {years} years of 365 days, not {seconds} seconds.")
    return round(found)


def _time(name: str, value: object) -> int | UnsetType | None:
    if value is None or isinstance(value, UnsetType):
        return value
    moment = to_nanoseconds(check_time(name, value)) - 999
    if not 0 <= moment < _TIME_END:
        raise Invalid(f"{name} takes a time from 1970 to 2262, not {check_time(name, value).isoformat()}.")
    return moment


def _keep(value: object) -> int | timedelta | UnsetType | None:
    if value is None or isinstance(value, UnsetType):
        return value
    if isinstance(value, timedelta):
        _duration("keep", value)
        return value
    if type(value) is not int:
        raise Invalid(f"keep takes a timedelta, or a number of commits, not {shown_value(value)}.")
    if not 1 <= value <= COMMITS_KEPT_MAX:
        raise Invalid(f"keep takes 1 to {COMMITS_KEPT_MAX:,} commits, not {shown_value(value)}.")
    return value


def changed(policy: lifecycle.Policy, asked: Wanted, now: int) -> lifecycle.Policy:
    """The policy after a call of `configure` at `now`, on a session that has this one. Raises `Invalid` for what does not fit together."""
    made = msgspec.structs.asdict(policy) | {"prefix": None}
    for name in ("expire_after", "archive_after", "grace", "wake_every", "wake_at"):
        if (value := getattr(asked, name)) is not UNSET:
            made[name] = value
    if asked.wake is not UNSET:
        made["wake"] = asked.wake or "sweep"
    if asked.drop is not UNSET:
        made["drop"] = bool(asked.drop)
    if asked.keep is not UNSET:
        age = isinstance(asked.keep, timedelta)
        made["keep_for"] = _duration("keep", asked.keep) if age else None
        made["keep_commits"] = None if age else asked.keep
    _set_alarm(made, policy, asked, now)
    found = lifecycle.Policy(**made)
    if asked.grace not in (None, UNSET) and found.expire_after is None:
        raise Invalid("grace says how long an expired session can still be read: it needs expire_after.")
    if asked.wake not in (None, UNSET) and found.wake_at is None:
        raise Invalid("wake says who wakes the session: it needs wake_at or wake_every.")
    if asked.drop and not found.keeps:
        raise Invalid("drop says that what is not kept goes: it needs keep.")
    return msgspec.structs.replace(
        found,
        drop=found.drop and found.keeps,
        grace=None if found.expire_after is None else found.grace,
        wake="sweep" if found.wake_at is None else found.wake,
    )


def require_archive(core: Core, made: lifecycle.Policy, asked: Wanted) -> None:
    """Raise `Unsupported` where what is asked for needs an archive, and the store was opened without one."""
    nodes = served(core.backend)
    if core.segments.has_place or (nodes is not None and nodes.archives):
        return
    if asked.archive_after not in (None, UNSET):
        raise Unsupported(f"archive_after moves sessions to an archive: {HOW_TO_HAVE_ONE}.", advice="")
    if made.keeps and not made.drop and (asked.keep is not UNSET or asked.drop is not UNSET):
        raise Unsupported(f"keep without drop moves old commits to an archive: {HOW_TO_HAVE_ONE}, or set drop too.", advice="")


def _set_alarm(made: dict[str, Any], policy: lifecycle.Policy, asked: Wanted, now: int) -> None:
    """When it goes off next: at `wake_at`, and without one after `wake_every`, from now on. Without both there is none."""
    if asked.wake_every is UNSET:
        if made["wake_at"] is None and made["wake_every"] is not None:
            made["wake_at"] = now + made["wake_every"]
        return
    if asked.wake_at in (None, UNSET):
        repeated = policy.wake_every is not None
        every = made["wake_every"]
        made["wake_at"] = now + every if every is not None else None if repeated else made["wake_at"]


async def configure(
    context: Context,
    session: str | None,
    prefix: str | None,
    tags: Mapping[str, str] | UnsetType | None,
    asked: Wanted,
    actor: str | None,
    lease: Lease | None,
    key: str | None,
) -> Receipt:
    """See `Store.configure`."""
    core = context.opened()
    check_options(Options(actor=actor))
    if (session is None) == (prefix is None):
        raise _no_target("configure", session)
    if asked.is_empty and tags is UNSET:
        own = "" if session is None else "tags, wake_at, "
        raise Invalid(f"There is nothing to configure: pass {own}expire_after, archive_after, wake_every or keep.")
    if session is None:
        target = _prefix_key(context, prefix)
        if tags is not UNSET or asked.wake_at is not UNSET or lease is not None:
            raise Invalid(
                "tags, wake_at and a lease are a session's own: a prefix takes expire_after, grace, archive_after, wake_every, wake,"
                " keep and drop."
            )
        require_able(core)
        with core.telemetry.span("configure", context.tenant, target.id):
            if (nodes := served(core.backend)) is not None:
                receipt = await configure_prefix(nodes, context.tenant, str(prefix), _said(asked), key, actor)
            else:
                receipt = await _once(core, target, key, asked, UNSET, lambda keyed: _change_prefix(core, target, asked, actor, keyed))
            core.prefixes.forget(context.tenant)
            return receipt
    target = context.key(session)
    fence = context.fence(lease, target)
    checked = None if isinstance(tags, UnsetType) else check_tags(tags or {})
    with core.telemetry.span("configure", *target):
        if not asked.is_empty:
            require_able(core)

        def write(keyed: Keyed | None) -> Awaitable[Receipt]:
            if not asked.is_empty:
                return _change_session(core, target, asked, checked, actor, fence, keyed)
            event = Event(CONFIGURED, {"tags": checked})
            return core.controls.write(
                target, Kind.configure, event, index=Index(checked), actor=actor, durability=core.durability, fence=fence, keyed=keyed
            )

        return await core.in_order(target, _once(core, target, key, asked, UNSET if checked is None else checked, write))


def _said(asked: Wanted) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(asked).items() if value is not UNSET}


async def _once(
    core: Core,
    session: SessionKey,
    key: str | None,
    asked: Wanted,
    tags: Mapping[str, str] | UnsetType,
    write: Callable[[Keyed | None], Awaitable[Receipt]],
) -> Receipt:
    said = _said(asked)
    if tags is not UNSET:
        said["tags"] = tags
    return await once(core.keys, session, key, Event(CONFIGURED, said), core.durability, write)


async def policy(context: Context, session: str | None, prefix: str | None) -> Policy:
    """See `Store.policy`."""
    core = context.opened()
    if (session is None) == (prefix is None):
        raise _no_target("policy", session)
    if session is not None:
        target = context.key(session)
        with core.telemetry.span("policy", *target):
            return Policy.of(policy_of((await read_live(core, target)).control))
    target = _prefix_key(context, prefix)
    with core.telemetry.span("policy", context.tenant, target.id):
        found = await core.reader.read_head(target)
        begins = None if found is None else PrefixPolicy.of(target, found.control).policy
        return Policy.of(None if begins is None else msgspec.structs.replace(begins, prefix=None))


def _no_target(call: str, session: str | None) -> Invalid:
    if session is None:
        return Invalid(f"A session id must be a string, not NoneType: {call} takes one, or prefix= in its place.")
    return Invalid(f"{call} takes a session's id or prefix=, not both.")


def _prefix_key(context: Context, prefix: object) -> SessionKey:
    if prefix != "":
        check_name("A prefix", prefix)
    target = prefix_session(context.tenant, str(prefix))
    if len(str(prefix).encode()) > PREFIX_BYTES_MAX:
        raise Invalid(f"A prefix with a policy may have at most {PREFIX_BYTES_MAX} bytes.")
    return target


def require_able(core: Core) -> None:
    """Raise `Unsupported` where the engine has no place for policies."""
    backend: Backend = core.backend
    if indexed(backend) is not None:
        return
    if isinstance(backend, Versioned) and backend.schema == 1:
        raise Unsupported(
            "This store has schema 1, which has no place for policies and times that are due: stop what uses it, and run"
            f" `perdure upgrade {shown_url(core.url)}`.",
            advice="",
        )
    raise Unsupported("This engine does not list what is due, so nothing could come of a policy: use another engine.", advice="")


async def _change_session(
    core: Core,
    session: SessionKey,
    asked: Wanted,
    tags: Mapping[str, str] | None,
    actor: str | None,
    fence: Fence | None,
    keyed: Keyed | None,
) -> Receipt:
    now = core.clock.now()
    said = {} if tags is None else {"tags": dict(tags)}

    def decide(basis: Basis) -> ControlChange:
        made = changed(policy_of(basis.control) or lifecycle.Policy(), asked, now)
        require_archive(core, made, asked)
        event = Event(CONFIGURED, {**said, CONTROL: policy_sections(made)})
        due_at = first_due(made, now)
        return ControlChange((ControlCommit(kind=Kind.configure, event=event),), NEVER if due_at is None else due_at, tags)

    return _receipt(await core.controls.change(session, decide, actor=actor, durability=core.durability, fence=fence, keyed=keyed))


async def _change_prefix(core: Core, session: SessionKey, asked: Wanted, actor: str | None, keyed: Keyed | None) -> Receipt:
    now = core.clock.now()

    def decide(basis: Basis) -> ControlChange:
        found = PrefixPolicy.of(session, basis.control)
        made = changed(found.policy or lifecycle.Policy(), asked, now)
        require_archive(core, made, asked)
        begins = None if made.says_nothing else msgspec.to_builtins(msgspec.structs.replace(made, prefix=found.prefix, wake_at=None))
        since = now if found.apply is None else min(found.apply.since, now)
        sections = {BEGINS: begins, APPLY: msgspec.to_builtins(Apply(since))} | policy_sections(SYSTEM_POLICY)
        event = Event(CONFIGURED, {CONTROL: sections})
        return ControlChange((ControlCommit(kind=Kind.configure, event=event),), first_due(SYSTEM_POLICY, now))

    return _receipt(await core.controls.change(session, decide, actor=actor, durability=core.durability, create=True, keyed=keyed))


def _receipt(outcome: Appended | None) -> Receipt:
    if outcome is None:  # `decide` always answers with a change.
        raise Conflict("The policy was not written.")
    head = outcome.head
    return Receipt(head.version, outcome.id, head.hash, head.at, outcome.durability)
