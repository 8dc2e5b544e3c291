"""What a commit of each kind may say, and how it may move a session's epoch. Pure.

data       any events of the caller's
pin        that a fork is about to start at a version
lease      one of the five events of `model.lease`, with the sections `lease` and `life`
configure  tags and the sections `policy` and `look`; as the first commit of a chain, that it is a fork
tombstone  that the session is deleted
anchor     that an archived session is live again; all others are made by nodes
moved      nothing makes one yet

The epoch is moved by lease commits and tombstones. Any commit of a lease's holder answers a challenge by the way, which the epoch shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from perdure.engine.branch.fork import PINNED
from perdure.engine.calls.claim import HANDLED, WOKEN
from perdure.engine.calls.listing import check_tags
from perdure.engine.read.chains import FORKED
from perdure.errors import Corrupt, Invalid, Unsupported
from perdure.model import lease
from perdure.model.anchor import RESTORED
from perdure.model.commit import Kind
from perdure.model.control import CONFIGURED, CONTROL, DELETED
from perdure.model.epoch import (
    GRANT_STEP_BITS,
    SEQUENCE_MAX,
    answered,
    challenged,
    grant_of,
    granted,
    is_challenged,
    is_exclusive,
    is_held,
    raised,
    sequence_of,
)
from perdure.model.events import Event
from perdure.model.ids import check_name
from perdure.model.lease import LEASE, LIFE, LeaseSection, LifeSection
from perdure.model.lifecycle import COMMITS_KEPT_MAX, DURATION_MAX, LOOK, POLICY, Look, Policy

_TIME_END = 1 << 63
_CONFIGURES = (CONFIGURED, WOKEN, HANDLED)
_LEASES = (lease.LEASED, lease.CHALLENGED, lease.RENEWED, lease.RELEASED, lease.BROKEN)


def check_said(kind: Kind, events: Sequence[Event], version: int) -> None:
    """Raise `Invalid` unless a control commit of this kind and version says what it may; `Unsupported` for one that only nodes make."""
    if kind is Kind.data:
        return
    if kind is Kind.moved:
        raise Unsupported("Nothing moves a session in this version.", advice="")
    if len(events) != 1 or events[0].ops:
        raise Invalid(f"A {kind.name} commit has one event, and no operations.")
    event = events[0]
    try:
        _CHECKS[kind](event, version)
    except (msgspec.ValidationError, Corrupt) as error:
        raise Invalid(f"The event {event.type!r} of a {kind.name} commit says something else than it may: {error}.") from error


def sections_of(event: Event) -> dict[str, Any]:
    """The sections that a control commit sets. Raises `Invalid`."""
    said = event.data.get(CONTROL) if isinstance(event.data, dict) else None
    if said is None:
        return {}
    if not isinstance(said, dict):
        raise Invalid(f"What an event says under {CONTROL!r} is a map of sections.")
    return said


def _require(event: Event, types: Sequence[str], sections: Sequence[str], fields: Sequence[str]) -> dict[str, Any]:
    """The sections that the event sets. Raises `Invalid` for another event, and for one that says more."""
    if event.type not in types:
        raise Invalid(f"A commit of this kind has the event {' or '.join(map(repr, types))}, not {event.type[:60]!r}.")
    if event.data is not None and not isinstance(event.data, dict):
        raise Invalid(f"The data of the event {event.type!r} is a map.")
    said = sections_of(event)
    if strange := [*({*said} - {*sections}), *({*(event.data or {})} - {*fields, *([CONTROL] if sections else [])})]:
        raise Invalid(f"The event {event.type!r} does not say {min(strange)[:60]!r}.")
    return said


def _pin(event: Event, version: int) -> None:
    _require(event, (PINNED,), (), ("fork", "version"))
    found = msgspec.convert(event.data, _Pinned)
    check_name("A session id", found.fork)
    if not 1 <= found.version < version:
        raise Invalid(f"A pin at version {version} names a version before it, not {found.version}.")


class _Pinned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fork: str
    version: int


class Origin(msgspec.Struct, frozen=True):
    """What the first commit of a fork says of its parent."""

    session: str
    version: int
    hash: str


def origin_of(event: Event) -> Origin:
    """Where a fork comes from. Raises `Invalid`."""
    try:
        return msgspec.convert(event.data, Origin)
    except msgspec.ValidationError as error:
        raise Invalid(f"The event {FORKED!r} does not say where the fork comes from: {error}.") from error


def _lease(event: Event, _: int) -> None:
    said = _require(event, _LEASES, (LEASE, LIFE), (LIFE, "owner"))
    raising = event.type in (lease.LEASED, lease.RELEASED, lease.BROKEN)
    if raising != ({*said} == {LEASE, LIFE}) or raising != isinstance(said.get(LIFE), dict):
        raise Invalid(f"The event {event.type!r} of a lease commit {'says' if raising else 'does not say'} who holds the session.")
    if raising:
        msgspec.convert(said[LIFE], LifeSection)
    if (event.type == lease.LEASED) != (said.get(LEASE) is not None):
        raise Invalid(f"The event {event.type!r} of a lease commit says wrongly who holds the session.")
    if event.type == lease.LEASED:
        holder = msgspec.convert(said[LEASE], LeaseSection)
        check_name("An owner", holder.owner)
        if not 0 < holder.ttl <= DURATION_MAX / 10**9:
            raise Invalid(f"The ttl of a lease is a number of seconds above 0, not {holder.ttl!r}.")


def _configure(event: Event, version: int) -> None:
    if event.type == FORKED:
        said = _require(event, (FORKED,), (POLICY, LOOK), ("session", "version", "hash"))
        origin = origin_of(event)
        check_name("A session id", origin.session)
        if origin.version != version - 1:
            raise Invalid(f"A fork that begins with version {version} goes on from the one before, not from {origin.version}.")
    else:
        fields = {CONFIGURED: ("tags",), WOKEN: ("due", "missed"), HANDLED: ("due", "missed")}.get(event.type, ())
        said = _require(event, _CONFIGURES, (POLICY, LOOK), fields)
        if event.type == CONFIGURED and isinstance(event.data, dict) and event.data.get("tags") is not None:
            check_tags(event.data["tags"])
    if said.get(POLICY) is not None:
        _policy(msgspec.convert(said[POLICY], Policy))
    if said.get(LOOK) is not None:
        msgspec.convert(said[LOOK], Look)


def _policy(policy: Policy) -> None:
    durations = (policy.expire_after, policy.grace, policy.archive_after, policy.wake_every, policy.keep_for)
    if any(each is not None and not 1 <= each <= DURATION_MAX for each in durations):
        raise Invalid("A duration of a policy lies between a nanosecond and a hundred years.")
    if policy.wake_at is not None and not 0 <= policy.wake_at < _TIME_END:
        raise Invalid("wake_at of a policy is a time from 1970 to 2262.")
    if policy.keep_commits is not None and not 1 <= policy.keep_commits <= COMMITS_KEPT_MAX:
        raise Invalid(f"keep of a policy is at most {COMMITS_KEPT_MAX:,} commits.")
    if policy.wake not in ("sweep", "claim"):
        raise Invalid("wake of a policy is 'sweep' or 'claim'.")


def _tombstone(event: Event, _: int) -> None:
    _require(event, (DELETED,), (), ())
    if event.data is not None:
        raise Invalid(f"The event {DELETED!r} has no data.")


def _anchor(event: Event, _: int) -> None:
    if event.type != RESTORED:
        raise Unsupported(f"Anchor commits such as {event.type[:60]!r} are made by the node: sweep, archive and compact there.", advice="")
    _require(event, (RESTORED,), (), ())


_CHECKS: Mapping[Kind, Callable[[Event, int], None]] = {
    Kind.pin: _pin,
    Kind.lease: _lease,
    Kind.configure: _configure,
    Kind.tombstone: _tombstone,
    Kind.anchor: _anchor,
}


def check_epoch(kind: Kind, event: Event, before: int, after: int) -> None:
    """Raise `Invalid` unless a commit with this event may move the epoch so."""
    if kind is Kind.lease:
        fits = _lease_fits(event, before, after)
    elif kind is Kind.tombstone:
        fits = after == raised(before, grant_of(after) - grant_of(before)) and _is_step(before, after)
    else:
        fits = after == before or (kind in (Kind.data, Kind.configure) and after == _answer(before))
    if not fits:
        raise Invalid(f"A {kind.name} commit does not move the epoch from {before} to {after}: lease commits do.")


def _answer(before: int) -> int:
    return answered(before) if is_challenged(before) and sequence_of(before) < SEQUENCE_MAX else before


def _is_step(before: int, after: int) -> bool:
    return 1 <= grant_of(after) - grant_of(before) <= 1 << GRANT_STEP_BITS


def _lease_fits(event: Event, before: int, after: int) -> bool:
    step = grant_of(after) - grant_of(before)
    if event.type == lease.CHALLENGED:
        return is_held(before) and not is_challenged(before) and after == challenged(before)
    if event.type == lease.RENEWED:
        return is_held(before) and after == _answer(before)
    if not _is_step(before, after) or sections_of(event)[LIFE]["grant"] != grant_of(after):
        return False
    if event.type == lease.LEASED:
        free = not is_held(before) or is_challenged(before)
        holder = sections_of(event)[LEASE]
        return free and holder["grant"] == grant_of(after) and after == granted(before, step, exclusive=is_exclusive(after))
    return is_held(before) and after == raised(before, step)
