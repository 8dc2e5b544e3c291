"""Quotas: how many commits, and how many bytes of them, a tenant may write through one connection in a second."""

from __future__ import annotations

from collections.abc import Callable

from perdure.clock import Clock
from perdure.concurrency.critical_section import CriticalSection
from perdure.config import Settings
from perdure.errors import QuotaExceeded
from perdure.lru import LruMap

TENANTS_MAX = 4_096
"""Tenants whose use is remembered. The one that wrote longest ago is forgotten first, and starts again with a full burst."""
RETRY_MIN = 0.001
"""Least `retry_after`, in seconds."""
ROUNDING = 1e-9
"""What a token may lack by rounding."""


class _Bucket:
    """A token bucket: `rate` tokens a second flow in, up to `size`. It is open while it holds a token, and may be overdrawn then."""

    def __init__(self, rate: float, size: float, now: float) -> None:
        self.rate, self.size, self._tokens, self._at = rate, size, size, now

    def wait(self, now: float) -> float:
        """Seconds until something may be taken; 0: now."""
        self._tokens = min(self.size, self._tokens + max(0.0, now - self._at) * self.rate)
        self._at = max(self._at, now)
        missing = 1 - self._tokens
        return 0.0 if missing <= ROUNDING else max(missing / self.rate, RETRY_MIN)

    def take(self, count: float) -> None:
        """Take so many, even more than there are."""
        self._tokens -= count


class Quotas:
    """The buckets of all tenants of one connection. Safe from any thread and loop.

    A commit is let through while its tenant's buckets hold a commit and a byte, whatever its size; what it takes beyond that has to flow in
    again before the next one. So a commit that is larger than a burst is slow, and never impossible.
    """

    def __init__(self, monotonic: Callable[[], float], commits: float | None, bytes: float | None, burst: float) -> None:
        """`commits` and `bytes` a second (`None`: no quota); `burst`: seconds' worth of them that can be saved up."""
        self._monotonic, self._burst = monotonic, burst
        self._rates = [(name, rate) for name, rate in (("commits", commits), ("bytes", bytes)) if rate is not None]
        self._tenants = LruMap[str, list[_Bucket]](TENANTS_MAX)
        self._section = CriticalSection()

    def take(self, tenant: str, size: int) -> None:
        """Count a commit of so many bytes. Raises `QuotaExceeded`: then it is not counted."""
        with self._section:
            now = self._monotonic()
            buckets = self._tenants.get(tenant)
            if buckets is None:
                buckets = [_Bucket(rate, max(rate * self._burst, 1.0), now) for _, rate in self._rates]
                self._tenants.put(tenant, buckets)
            waits = [bucket.wait(now) for bucket in buckets]
            longest = max(waits)
            if not longest:
                for (name, _), bucket in zip(self._rates, buckets, strict=True):
                    bucket.take(1 if name == "commits" else size)
                return
        name, rate = self._rates[waits.index(longest)]
        raise QuotaExceeded(
            f"Tenant {tenant!r} has used up its {rate:g} {name} a second; try again in {longest:.3g} s.",
            tenant=tenant,
            quota=f"quota_{name}_per_second",
            retry_after=longest,
        )


def make_quotas(clock: Clock, settings: Settings) -> Quotas | None:
    """The quotas that the settings name; `None` where they name none."""
    commits, size = settings.quota_commits_per_second, settings.quota_bytes_per_second
    return None if commits is None and size is None else Quotas(clock.monotonic, commits, size, settings.quota_burst)
