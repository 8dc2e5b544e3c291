"""Every span and metric name, through the OpenTelemetry API. Without an SDK nothing is entered and next to nothing is spent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from opentelemetry import trace

T = TypeVar("T")

SPAN_PREFIX = "perdure."
"""Spans are named perdure.append, perdure.edit, perdure.read …; attributes: perdure.session, perdure.tenant, perdure.version."""
COMMITS = "perdure.commits"
CONFLICTS = "perdure.conflicts"
DURATION = "perdure.operation.duration"
SWEPT = "perdure.swept"
"""Counts what sweepers did, by `action`: see `perdure.ops.Action`."""
SWEEP_DUE = "perdure.sweep.due"
"""How many sessions the last round found due."""
SWEEP_OVERDUE = "perdure.sweep.overdue"
"""For how long the one had been due that waited longest, in seconds."""

SPOOL_ENTRIES, SPOOL_BYTES, SPOOL_AGE = "perdure.spool.entries", "perdure.spool.bytes", "perdure.spool.age"
CACHE_HITS = "perdure.cache.hits"
"""By `tier`: memory, or shared, where the shared cache saved the load that a miss in memory asks for."""
CACHE_MISSES = "perdure.cache.misses"
CACHE_EVICTIONS = "perdure.cache.evictions"
CACHE_BYTES = "perdure.cache.bytes"
SHARED_CACHE = "perdure.shared_cache.requests"
"""Requests to the shared cache, with the attribute `outcome`: a field of `perdure.SharedCacheInfo`."""
LEASES_HELD, LEASES_LOST = "perdure.leases.held", "perdure.leases.lost"
LEASE_CHALLENGES, LEASE_TAKEOVERS = "perdure.leases.challenges", "perdure.leases.takeovers"
ARCHIVE_BYTES, ARCHIVE_COMMITS = "perdure.archive.bytes", "perdure.archive.commits"
"""What went to segments: bytes as they are stored there, and commits."""
LARGE_STATES = "perdure.state.large"
HANDLED = "perdure.consumer.handled"
LAG = "perdure.consumer.lag"
PARKED = "perdure.consumer.parked"
REBASE_DEPTH, GROUP_SIZE, APPEND_DURATION = "perdure.rebase.depth", "perdure.group.size", "perdure.engine.append.duration"

REQUEST_DURATION, REQUESTS_OPEN = "http.server.request.duration", "http.server.active_requests"
"""As OpenTelemetry's semantic conventions name them; by `http.route`, never by session or tenant."""
WATCHERS_OPEN = "perdure.server.watchers"
TURNS_WAITING, TURNS_FREE = "perdure.server.turns.waiting", "perdure.server.turns.free"
LIMIT_REFUSED = "perdure.server.limits.refused"
LOG_DROPPED = "perdure.server.log.dropped"
"""Lines of the log that were dropped because nobody read them."""

LOOK_EVERY = 64
"""Calls between two looks for an SDK, while there is none: a look costs more than the rest. The first call looks."""

_NOTHING: AbstractContextManager[None] = nullcontext()


def traceparent() -> str | None:
    """The caller's trace context as a W3C traceparent, if there is one."""
    span = trace.get_current_span()
    if span is trace.INVALID_SPAN:
        return None
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


class Telemetry:
    """Spans and metrics of one store. Whether an SDK is there is looked up until it is, then remembered."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """`monotonic` gives seconds, for durations."""
        self._monotonic = monotonic
        self._calls = -1
        self._tracer: trace.Tracer | None = None
        self._instruments: _Instruments | None = None

    def span(self, operation: str, tenant: str, session: str) -> AbstractContextManager[Any]:
        """A span around one public call, timed; nothing without an SDK."""
        if self._tracer is None and self._instruments is None:
            self._calls += 1
            if self._calls % LOOK_EVERY:
                return _NOTHING
        self._look()
        if self._tracer is None and self._instruments is None:
            return _NOTHING
        return self._measured(operation, tenant, session)

    def spanned(self, operation: str, session: tuple[str, str], work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """The work with a `span` around it; without an SDK the work itself. `session` is its tenant and id."""
        span = self.span(operation, *session)
        return work if span is _NOTHING else _inside(span, work)

    def _look(self) -> None:
        if self._tracer is None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            self._tracer = trace.get_tracer("perdure")
        if self._instruments is None and _has_meter():
            self._instruments = _Instruments()

    @contextmanager
    def _measured(self, operation: str, tenant: str, session: str) -> Iterator[None]:
        start = self._monotonic()
        attributes = {"perdure.tenant": tenant, "perdure.session": session}
        span = self._tracer.start_as_current_span(SPAN_PREFIX + operation, attributes=attributes) if self._tracer else _NOTHING
        error = ""
        try:
            with span:
                yield
        except Exception as raised:
            error = str(getattr(raised, "code", type(raised).__name__))
            raise
        finally:
            if self._instruments is not None:
                outcome = {"operation": operation, "error.type": error} if error else {"operation": operation}
                self._instruments.duration.record(self._monotonic() - start, outcome)

    def committed(self, operation: str, conflicts: int = 0) -> None:
        """Count a commit, and how often it lost a race before."""
        if self._instruments is None:
            return
        self._instruments.commits.add(1, {"operation": operation})
        if conflicts:
            self._instruments.conflicts.add(conflicts, {"operation": operation})

    def rebased(self, commits: int) -> None:
        """Note over how many commits that were not seen a write was brought."""
        if self._instruments is not None:
            self._instruments.rebase_depth.record(commits)

    def grouped(self, appends: int) -> AbstractContextManager[None]:
        """Around one call of the engine that appends: note how many went together, and for how long."""
        return _NOTHING if self._instruments is None else self._timed(self._instruments, appends)

    @contextmanager
    def _timed(self, instruments: _Instruments, appends: int) -> Iterator[None]:
        start = self._monotonic()
        try:
            yield
        finally:
            instruments.group_size.record(appends)
            instruments.append_duration.record(self._monotonic() - start)

    def count(self, name: str, number: int = 1, **attributes: str) -> None:
        """Add to one of the counters of the caches."""
        if self._instruments is not None:
            self._instruments.caches[name].add(number, attributes)

    def swept(self, action: str) -> None:
        """Count what a sweeper did to one session."""
        self._look()
        if self._instruments is not None:
            self._instruments.swept.add(1, {"action": action})

    def sweep_round(self, due: int, overdue: float) -> None:
        """Note how many sessions a round found due, and for how many seconds the longest had been."""
        self._look()
        if self._instruments is not None:
            self._instruments.due.set(due)
            self._instruments.overdue.set(overdue)

    @property
    def measures(self) -> bool:
        """Whether an SDK collects metrics."""
        return self._instruments is not None

    def spool(self, place: str, entries: int, bytes: int, age: float) -> None:
        """The depth of a spool, and the age of its oldest entry in seconds."""
        if self._instruments is not None:
            which = {"perdure.spool": place}
            self._instruments.spool_entries.set(entries, which)
            self._instruments.spool_bytes.set(bytes, which)
            self._instruments.spool_age.set(age, which)

    def leases_held(self, change: int) -> None:
        """Count leases that this store object took (1), or holds no more (-1)."""
        if self._instruments is not None:
            self._instruments.leases_held.add(change)

    def lease_lost(self) -> None:
        """Count a lease that ended before its holder released it."""
        if self._instruments is not None:
            self._instruments.leases_lost.add(1)

    def lease_challenged(self) -> None:
        """Count a challenge that this store object wrote."""
        if self._instruments is not None:
            self._instruments.lease_challenges.add(1)

    def lease_taken_over(self) -> None:
        """Count a lease that this store object took from a holder that had not answered."""
        if self._instruments is not None:
            self._instruments.lease_takeovers.add(1)

    def archived(self, bytes: int, commits: int) -> None:
        """Count a segment that was stored and anchored."""
        self._look()
        if self._instruments is not None:
            self._instruments.archive_bytes.add(bytes)
            self._instruments.archive_commits.add(commits)

    def large_state(self) -> None:
        """Count a session whose state has grown large."""
        if self._instruments is None:
            self._look()
        if self._instruments is not None:
            self._instruments.large_states.add(1)

    def consumed(self, tenant: str, consumer: str, handled: int, lag: float, parked: int) -> None:
        """Count what a consumer has handled; how many seconds ago the newest of it was committed, and how many sessions are parked."""
        self._look()
        if self._instruments is None:
            return
        attributes = {"perdure.tenant": tenant, "perdure.consumer": consumer}
        self._instruments.handled.add(handled, attributes)
        self._instruments.lag.set(lag, attributes)
        self._instruments.parked.set(parked, attributes)


async def _inside(span: AbstractContextManager[Any], work: Coroutine[Any, Any, T]) -> T:
    with span:
        return await work


def _has_meter() -> bool:
    """Whether an SDK measures. Nobody can have set one who has not imported the API, which takes a fifth of Perdure's own import."""
    if "opentelemetry.metrics" not in sys.modules and "OTEL_PYTHON_METER_PROVIDER" not in os.environ:
        return False
    from opentelemetry import metrics

    return not type(metrics.get_meter_provider()).__name__.startswith("_Proxy")


class _Instruments:
    def __init__(self) -> None:
        from opentelemetry import metrics

        meter = metrics.get_meter("perdure")
        self.commits = meter.create_counter(COMMITS, unit="{commit}", description="Commits stored.")
        self.conflicts = meter.create_counter(CONFLICTS, unit="{conflict}", description="Races lost before a commit was stored.")
        self.rebase_depth = meter.create_histogram(
            REBASE_DEPTH, unit="{commit}", description="Commits of others over which a write was brought."
        )
        self.group_size = meter.create_histogram(GROUP_SIZE, unit="{append}", description="Appends that went to the engine in one call.")
        self.append_duration = meter.create_histogram(APPEND_DURATION, unit="s", description="How long the engine took for one such call.")
        self.spool_entries = meter.create_gauge(SPOOL_ENTRIES, unit="{entry}", description="Writes in the spool.")
        self.spool_bytes = meter.create_gauge(SPOOL_BYTES, unit="By", description="What the writes in the spool take.")
        self.spool_age = meter.create_gauge(SPOOL_AGE, unit="s", description="How long the oldest write is in the spool.")
        self.caches: dict[str, metrics.Counter | metrics.UpDownCounter] = {
            CACHE_HITS: meter.create_counter(CACHE_HITS, unit="{read}", description="States that a cache had, by tier."),
            CACHE_MISSES: meter.create_counter(CACHE_MISSES, unit="{read}", description="States that were not in memory."),
            CACHE_EVICTIONS: meter.create_counter(CACHE_EVICTIONS, unit="{state}", description="States that made room for others."),
            CACHE_BYTES: meter.create_up_down_counter(CACHE_BYTES, unit="By", description="About how much the states in memory take."),
            SHARED_CACHE: meter.create_counter(SHARED_CACHE, unit="{request}", description="Requests to the shared cache, by outcome."),
        }
        self.leases_held = meter.create_up_down_counter(LEASES_HELD, unit="{lease}", description="Leases held.")
        self.leases_lost = meter.create_counter(LEASES_LOST, unit="{lease}", description="Leases that ended before they were released.")
        self.lease_challenges = meter.create_counter(LEASE_CHALLENGES, unit="{commit}", description="Holders asked whether they are alive.")
        self.lease_takeovers = meter.create_counter(LEASE_TAKEOVERS, unit="{lease}", description="Leases taken from silent holders.")
        self.archive_bytes = meter.create_counter(ARCHIVE_BYTES, unit="By", description="Segments that went to the archive.")
        self.archive_commits = meter.create_counter(ARCHIVE_COMMITS, unit="{commit}", description="Commits that went to the archive.")
        self.large_states = meter.create_counter(
            LARGE_STATES, unit="{session}", description="Sessions whose state was found to have more than warn_bytes."
        )
        self.duration = meter.create_histogram(DURATION, unit="s", description="How long public calls took.")
        self.swept = meter.create_counter(SWEPT, unit="{session}", description="Sessions that a sweeper handled, by action.")
        self.due = meter.create_gauge(SWEEP_DUE, unit="{session}", description="Sessions that the last round found due.")
        self.overdue = meter.create_gauge(SWEEP_OVERDUE, unit="s", description="For how long the longest of them had been due.")

        self.handled = meter.create_counter(HANDLED, unit="{commit}", description="Commits that a consumer has handled.")
        self.lag = meter.create_gauge(LAG, unit="s", description="How long ago the newest commit that a consumer has handled was made.")
        self.parked = meter.create_gauge(PARKED, unit="{session}", description="Sessions of which a consumer has parked commits.")
