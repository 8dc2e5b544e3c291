"""Prefix policies: what sessions begin with whose ids begin so. Each is an ordinary session of the tenant's system tenant.

begins  the section of its control cell with the policy; absent where it was removed
apply   the section that says since when it stands like this: a sweeper gives it to sessions that were started since then without it
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from perdure.backends.spi import Backend, Query, Row, indexed
from perdure.clock import Clock
from perdure.errors import Unauthorized
from perdure.lru import LruMap
from perdure.model.control import Control, decode_control
from perdure.model.ids import NAME_BYTES_MAX, SessionKey, is_system, system_tenant
from perdure.model.lifecycle import Begin, Policy

ID = "prefix:"
"""What the ids of these sessions begin with; the prefix follows."""
PREFIX_BYTES_MAX = NAME_BYTES_MAX - len(ID)
"""Longest prefix that can have a policy, in bytes of UTF-8."""
CACHED_SECONDS = 30.0
"""How long writers go by the prefix policies that they read."""
TENANTS_CACHED = 1_024
"""Tenants whose prefix policies are remembered."""
BEGINS, APPLY = "begins", "apply"
"""The sections of the control cell."""
PAGE = 100
"""Rows that an engine is asked for at once."""

_log = logging.getLogger("perdure")


class Apply(msgspec.Struct, frozen=True):
    """A change of a prefix policy that a sweeper has still to apply. `since` in nanoseconds."""

    since: int


class PrefixPolicy(msgspec.Struct, frozen=True):
    """The policy that stands for a prefix; `None`: it was removed. `apply` is there until a sweeper has applied the change."""

    tenant: str
    prefix: str
    policy: Policy | None
    apply: Apply | None

    @classmethod
    def of(cls, session: SessionKey, control: Control) -> PrefixPolicy:
        """From the system session that has it."""
        tenant, prefix = session.tenant[1:], session.id.removeprefix(ID)
        return cls(tenant, prefix, control.section(BEGINS, Policy), control.section(APPLY, Apply))


def prefix_session(tenant: str, prefix: str) -> SessionKey:
    """The system session that has the policy of a prefix."""
    return SessionKey(system_tenant(tenant), ID + prefix)


def is_prefix_session(session: SessionKey) -> bool:
    """Whether this system session has the policy of a prefix."""
    return is_system(session.tenant) and len(session.tenant) > 1 and session.id.startswith(ID)


def started(policy: Policy, now: int) -> Policy:
    """The policy as a session has it that starts with it at `now`."""
    return policy if policy.wake_every is None else msgspec.structs.replace(policy, wake_at=now + policy.wake_every)


def longest(policies: Sequence[PrefixPolicy], id: str) -> PrefixPolicy | None:
    """Of the policies of one tenant the one for this session: the longest prefix decides."""
    fitting = [found for found in policies if found.policy is not None and id.startswith(found.prefix)]
    return max(fitting, key=lambda found: len(found.prefix), default=None)


class PrefixPolicies:
    """The prefix policies of one connection's tenants, each read once in `CACHED_SECONDS`. Safe from any thread and loop."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self._backend, self._clock = backend, clock
        self._able = indexed(backend) is not None
        self._known = LruMap[str, tuple[float, list[PrefixPolicy]]](TENANTS_CACHED)
        self._warned = LruMap[str, bool](TENANTS_CACHED)

    def may_apply(self, session: SessionKey, begin: Begin | None = None) -> bool:
        """Whether a session that is started now may have to begin with a policy: `False` only if it is known to begin without."""
        if not self._able or is_system(session.tenant):
            return False
        if begin is not None:
            return True
        known = self._known.get(session.tenant)
        if known is None or self._clock.monotonic() >= known[0]:
            return True
        return longest(known[1], session.id) is not None

    async def begins(self, session: SessionKey, begin: Begin | None = None) -> Policy | None:
        """The policy that a session begins with that is started now: that of its prefix, or what `begin` makes of it. Who may not read the
        system tenant starts sessions without one of a prefix."""
        if not self._able or is_system(session.tenant):
            return None
        known = self._known.get(session.tenant)
        now = self._clock.monotonic()
        if known is None or now >= known[0]:
            known = now + CACHED_SECONDS, await self._readable(session.tenant)
            self._known.put(session.tenant, known)
        found = longest(known[1], session.id)
        policy = None if found is None or found.policy is None else started(found.policy, self._clock.now())
        return policy if begin is None else begin(policy, self._clock.now())

    async def _readable(self, tenant: str) -> list[PrefixPolicy]:
        try:
            return [found async for found in self.read(tenant)]
        except Unauthorized as error:
            if tenant not in self._warned:
                self._warned.put(tenant, True)
                _log.warning("Sessions of tenant %r begin without policies of prefixes: this user may not read them. %s", tenant, error)
            return []

    def forget(self, tenant: str) -> None:
        """Read the tenant's policies before the next session starts."""
        self._known.pop(tenant)

    async def read(self, tenant: str) -> AsyncGenerator[PrefixPolicy, None]:
        """The tenant's prefix policies as they stand in the engine."""
        async for row in self.rows(tenant):
            yield PrefixPolicy.of(row.session, decode_control(row.control))

    async def rows(self, tenant: str) -> AsyncGenerator[Row, None]:
        """The index rows of the sessions that have them."""
        cursor: Any = None
        while True:
            page = await self._backend.scan(Query(system_tenant(tenant), ID), cursor=cursor, limit=PAGE)
            for row in page.items:
                yield row
            cursor = page.cursor
            if cursor is None:
                return
