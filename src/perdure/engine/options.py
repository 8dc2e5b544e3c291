"""What a caller wants written, checked at the door, before anything is read or sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, TypeGuard

import msgspec

from perdure.backends.spi import Capabilities, Durability
from perdure.config import SECONDS_MAX
from perdure.errors import Invalid, Unsupported
from perdure.model.events import Event, check_event_type, is_event_type
from perdure.model.fence import Fence
from perdure.model.ids import check_name
from perdure.model.lifecycle import Begin
from perdure.model.ops import Op, TakingOp, check_op
from perdure.model.policy import Clash, OnConflict, check_on_conflict
from perdure.model.values import are_sound, check
from perdure.redaction import shown_value

VERSION_MAX = (1 << 62) - 1
"""Largest version that can be asked for."""
EVENTS_MAX = 10_000
"""Most events in one commit."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What `append`, `edit` and `update` share. See `Store.append` for each."""

    expect: int | None = None
    expect_hash: bytes | None = None
    """The hash that the commit at `expect` has to have."""
    key: str | None = None
    actor: str | None = None
    on_conflict: OnConflict = "merge"
    recreate: bool = False
    create: bool = True
    fence: Fence | None = None
    begin: Begin | None = None
    """What the session begins with, if this starts it, in place of what its prefix says alone; in a later life too."""
    payload: tuple[Event, ...] | None = None
    """What a call that repeats the key must ask for, where that is not the events."""


def check_options(options: Options) -> Options:
    """Raise `Invalid` for what no engine could make sense of."""
    expect = options.expect
    if expect is not None and (type(expect) is not int or expect < 0):
        raise Invalid(f"expect must be None, 0 (the session must not exist) or a version, not {expect!r}.")
    if options.key is not None:
        check_name("An idempotency key", options.key)
    if options.actor is not None:
        check_name("An actor", options.actor)
    check_on_conflict(options.on_conflict)
    return options


def check_count(name: str, value: object) -> None:
    """Raise `Invalid` unless it is a version or a count that can be asked for."""
    if type(value) is not int or not 0 <= value <= VERSION_MAX:
        raise Invalid(f"{name} must be a whole number, 0 or more, not {shown_value(value)}.")


def check_staleness(consistency: object, max_staleness: object) -> None:
    """Raise `Invalid` for a consistency that there is not, and for a staleness that does not fit it."""
    if consistency not in ("strong", "eventual"):
        raise Invalid(f"consistency must be 'strong' or 'eventual', not {consistency!r}.")
    if max_staleness is None:
        return
    if consistency == "strong":
        raise Invalid("A strong read is never stale: leave max_staleness out, or read with the consistency 'eventual'.")
    if type(max_staleness) not in (int, float) or not 0 < max_staleness <= SECONDS_MAX:  # type: ignore[operator]
        raise Invalid(
            f"max_staleness must be more than 0 and at most {SECONDS_MAX:,} seconds, not {shown_value(max_staleness)}; "
            "for the newest state read with the consistency 'strong'."
        )


def check_time(name: str, value: object) -> datetime:
    """The moment itself. Raises `Invalid` unless it is a datetime whose offset from UTC is known."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise Invalid(f"{name} needs an aware datetime, for instance datetime.now(UTC), not {shown_value(value)}.")
    return value


def check_types(types: object) -> None:
    """Raise `Invalid` unless it is `None` or a collection of event types."""
    if types is not None and (isinstance(types, str) or not isinstance(types, Collection)):
        raise Invalid("types must be a collection of event types, such as {'message'}.")


def parse_durability(asked: Durability | str | None) -> Durability | None:
    """The level asked for, as a `Durability`. Raises `Invalid` for a name that is none."""
    if asked is None:
        return None
    try:
        return Durability[asked] if isinstance(asked, str) else Durability(asked)
    except (KeyError, ValueError):
        raise Invalid(f"durability must be one of {', '.join(Durability.__members__)}, not {asked!r}.") from None


def check_durability(
    asked: Durability | str | None, default: Durability, capabilities: Capabilities, bodies: Durability = Durability.quorum
) -> Durability:
    """The level asked for, else the default. Raises `Unsupported` for one that the engine cannot reach, or the place of large `bodies`."""
    level = None if asked is None else parse_durability(asked)
    if level is None:
        return default
    if level > capabilities.durability:
        raise Unsupported(f"This engine reaches the durability {capabilities.durability.name!r}, not {level.name!r}: ask for less.")
    if level > bodies:
        raise Unsupported(f"The place of large bodies reaches the durability {bodies.name!r}, not {level.name!r}: ask for less.")
    return level


def check_events(events: Sequence[object]) -> tuple[Event, ...]:
    """The events, sound: types, data and operations. Raises `Invalid`."""
    if not events:
        raise Invalid("There is nothing to append: pass at least one Event.")
    if len(events) > EVENTS_MAX:
        raise Invalid(f"One commit takes at most {EVENTS_MAX:,} events, not {len(events):,}.")
    return tuple(events) if _are_plain(events) else tuple([_check_event(event) for event in events])


def _are_plain(events: Sequence[object]) -> TypeGuard[Sequence[Event]]:
    """Whether all are sound and have no operations, found in one walk. Else each is looked at alone, which names the first culprit."""
    data = []
    for event in events:
        if type(event) is not Event or event.ops or not is_event_type(event.type):
            return False
        data.append(event.data)
    return are_sound(data)


def _check_event(event: object) -> Event:
    if type(event) is not Event:
        raise Invalid(f"Pass perdure.Event objects, not {type(event).__name__}.")
    check_event_type(event.type)
    if event.data is not None:
        check(event.data)
    if event.ops:
        check_ops(event.ops)
        if type(event.ops) is not tuple:
            return Event(event.type, event.data, tuple(event.ops))
    return event


def check_ops(ops: Any) -> None:
    """Raise `Invalid` unless these are operations."""
    if not isinstance(ops, (tuple, list)):
        raise Invalid(f"ops must be a tuple of operations, not {type(ops).__name__}.")
    for op in ops:
        if type(op) is not Op and type(op) is not TakingOp:
            raise Invalid(f"Make operations with perdure.op, not {type(op).__name__}.")
        check_op(op)


def ask(policy: Callable[[Clash], object], clash: Clash) -> tuple[Op, ...]:
    """What a conflict policy answers, sound. Raises `Invalid` for anything but operations; what the policy raises passes through."""
    answer = policy(clash)
    if not isinstance(answer, (tuple, list)):
        raise Invalid(f"An on_conflict policy answers with a list of operations (perdure.op), not {type(answer).__name__}.")
    check_ops(answer)
    return tuple(answer)
