"""What lease commits say: the sections that they set, and their events. Pure.

leased      somebody holds the session from here on; also the holder's own, when its sequence is used up
challenged  somebody asks the holder whether it is alive
renewed     the holder has answered
released    the holder has let go
broken      somebody has taken the lease from its holder by force
"""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.model.commit import Commit, Kind
from perdure.model.control import CONTROL, Control
from perdure.model.epoch import grant_of, is_held
from perdure.model.events import Event

LEASED, CHALLENGED, RENEWED, RELEASED, BROKEN = "leased", "challenged", "renewed", "released", "broken"
LEASE, LIFE = "lease", "life"
"""The control sections."""
_BEGAN = "life"


class LeaseSection(msgspec.Struct, frozen=True):
    """Who holds a session."""

    owner: str
    ttl: float
    """Seconds for which a challenge has to stand unanswered before somebody else may take the lease."""
    since: int
    """When it was taken, in nanoseconds since 1970, by the holder's clock. For people: nothing is decided by it."""
    id: str
    """Made by the holder for this lease alone, so that it knows its own take after a lost answer."""
    grant: int
    """The grant that the section is of. A section of another grant than the head's is old, and says nothing."""


class LifeSection(msgspec.Struct, frozen=True):
    """Which life of the session a grant belongs to, so that nobody has to search the chain for it."""

    began: int
    """The version of the last tombstone; 0 for a first life."""
    grant: int
    """The grant that the section is of, as in `LeaseSection`."""


def leased(lease: LeaseSection, life: int) -> Event:
    """The event of a take."""
    return _raising(LEASED, msgspec.to_builtins(lease), life, lease.grant)


def released(life: int, grant: int, type: str = RELEASED) -> Event:
    """The event after which nobody holds the session; `grant` is the one that it raises the epoch to."""
    return _raising(type, None, life, grant)


def _raising(type: str, lease: dict[str, Any] | None, life: int, grant: int) -> Event:
    sections = {LEASE: lease, LIFE: {"began": life, "grant": grant}}
    return Event(type, {_BEGAN: life, CONTROL: sections})


def holder(control: Control, epoch: int) -> LeaseSection | None:
    """Who holds a session with this epoch, as far as its control cell says. Raises `Corrupt`."""
    section = control.section(LEASE, LeaseSection)
    return section if section is not None and is_held(epoch) and section.grant == grant_of(epoch) else None


def life_of(control: Control, epoch: int) -> int | None:
    """The version of the tombstone that the life with this epoch began after, if the control cell says it. Raises `Corrupt`."""
    section = control.section(LIFE, LifeSection)
    return section.began if section is not None and section.grant == grant_of(epoch) else None


def life_said(commit: Commit) -> int | None:
    """The same, as the commit says it that raised the grant; `None` if it does not say."""
    if commit.kind is Kind.tombstone:
        return commit.version
    for event in commit.events if commit.kind is Kind.lease else ():
        if isinstance(event.data, dict) and type(began := event.data.get(_BEGAN)) is int:
            return began
    return None


def holder_said(commit: Commit) -> LeaseSection | None:
    """Who has taken the session with this commit; `None` if it is no take. Raises `Corrupt`."""
    return holder(Control().after_commit(commit), commit.epoch) if commit.kind is Kind.lease else None
