"""The limits of each tenant on one node. What is refused is `QuotaExceeded` with the quota, when to come back, and nothing was done."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from perdure.errors import QuotaExceeded, Unavailable
from perdure.service.hooks import Admission, Credential, RequestHead
from perdure.service.limits.fair_queue import FairQueue
from perdure.service.limits.options import LimitOptions
from perdure.service.limits.rates import Rate

OPEN_RETRY_SECONDS = 1.0
"""When to come back, in seconds, where it depends on others' requests."""


class TenantLimits:
    """Knows what each tenant has taken. Belongs to one event loop."""

    def __init__(self, options: LimitOptions, monotonic: Callable[[], float], count: Callable[[str], None] = lambda _quota: None) -> None:
        """`count` is called with the quota at each refusal."""
        self.options, self._monotonic, self._count = options, monotonic, count
        self._rates = {
            name: Rate[str](rate, rate) for name in ("requests", "commits", "bytes") if (rate := getattr(options, name)) > 0
        }  # fmt: skip
        self._open = {"watchers": Counter[str](), "open": Counter[str]()}
        self.queue = FairQueue(options.turns)

    def admit(self, head: RequestHead, credential: Credential) -> _Admission:
        """See `perdure.service.hooks.Limits`."""
        return _Admission(self, head, credential.tenant)

    def enter(self, head: RequestHead, tenant: str) -> None:
        """A request begins. Raises `QuotaExceeded`."""
        said = head.headers.get("content-length", "")
        self.take(tenant, requests=1, bytes=int(said) if said.isdecimal() else 0)
        kind = _kind(head)
        now_open, most = self._open[kind], getattr(self.options, kind)
        if 0 < most <= now_open[tenant]:
            raise self._refused(tenant, kind, OPEN_RETRY_SECONDS, limit=most, window=None)
        now_open[tenant] += 1

    def leave(self, head: RequestHead, tenant: str) -> None:
        """It has ended."""
        now_open = self._open[_kind(head)]
        now_open[tenant] -= 1
        if not now_open[tenant]:
            del now_open[tenant]

    def take(self, tenant: str, **units: float) -> None:
        """Take so many units of each quota, all or none. Raises `QuotaExceeded`."""
        now = self._monotonic()
        taken: list[tuple[Rate[str], float]] = []
        for name, count in units.items():
            rate = self._rates.get(name)
            if rate is None or not count:
                continue
            wait = rate.take_or_wait(tenant, count, now)
            if wait:
                for other, less in taken:
                    other.give_back(tenant, less)
                raise self._refused(tenant, name, wait, limit=int(rate.burst), window=rate.burst / rate.per_second)
            taken.append((rate, count))

    def owe(self, tenant: str, **units: float) -> None:
        """Take so many units that cannot be refused any more."""
        now = self._monotonic()
        for name, count in units.items():
            if count and (rate := self._rates.get(name)) is not None:
                rate.take(tenant, count, now)

    def _refused(self, tenant: str, quota: str, wait: float, *, limit: int, window: float | None) -> QuotaExceeded:
        self._count(quota)
        unit = {"requests": "requests a second", "commits": "commits a second", "bytes": "bytes a second of bodies"}.get(quota)
        what = unit or {"watchers": "event streams at once", "open": "requests at once"}[quota]
        return QuotaExceeded(
            f"This node takes {limit:,} {what} of a tenant; nothing was done.",
            tenant=tenant, quota=quota, retry_after=round(wait, 3), limit=limit, window=window,
            advice="Come back after `retry_after` seconds, or ask for a higher limit.",
        )  # fmt: skip


def _kind(head: RequestHead) -> str:
    """Which of the quotas of what is open a request counts for."""
    return "watchers" if head.watches else "open"


class _Admission(Admission):
    """One request's, and the context that it is admitted in."""

    def __init__(self, limits: TenantLimits, head: RequestHead, tenant: str) -> None:
        self._limits, self._head, self._tenant = limits, head, tenant
        self._queues, self._has_turn = not head.watches, False

    async def __aenter__(self) -> Self:
        self._limits.enter(self._head, self._tenant)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.done()
        self._limits.leave(self._head, self._tenant)

    async def start(self) -> None:
        if not self._queues or self._has_turn:
            return
        limits = self._limits
        if not limits.queue.acquire_now():
            try:
                async with asyncio.timeout(limits.options.turn_seconds):
                    await limits.queue.acquire(self._tenant)
            except TimeoutError:
                raise Unavailable("This node has more to do than it can, and nothing was done.") from None
        self._has_turn = True

    def done(self) -> None:
        self._queues = False
        if self._has_turn:
            self._has_turn = False
            self._limits.queue.release()

    def charge(self, *, commits: int = 0, bytes: int = 0) -> None:
        self._limits.take(self._tenant, commits=commits, bytes=bytes)

    def sent(self, bytes: int) -> None:
        self._limits.owe(self._tenant, bytes=bytes)
