"""The node's metrics, through the OpenTelemetry API. No attribute names a session or a tenant: there are too many of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider

from perdure import telemetry

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))
"""Other methods are counted as `_OTHER`: a client could invent any number of them."""

QUOTAS = ("requests", "commits", "bytes", "watchers", "open")
"""What a tenant can be refused by."""


class Metrics:
    """Counts requests, and shows what the node has open."""

    def __init__(self, provider: MeterProvider | None = None) -> None:
        """Without a provider: the process's."""
        self._meter = (provider or get_meter_provider()).get_meter("perdure.service")
        self._duration = self._meter.create_histogram(
            telemetry.REQUEST_DURATION, unit="s", description="How long requests took; of event streams, how long they were open."
        )
        self._open = self._watchers = 0
        self._meter.create_observable_up_down_counter(
            telemetry.REQUESTS_OPEN, [_reading(lambda: self._open)], unit="{request}", description="Requests in progress."
        )
        self._meter.create_observable_up_down_counter(
            telemetry.WATCHERS_OPEN,
            [_reading(lambda: self._watchers)],
            unit="{request}",
            description="Event streams and long polls in progress.",
        )
        self._refused = self._meter.create_counter(
            telemetry.LIMIT_REFUSED, unit="{request}", description="Requests over a limit of their tenant, by quota."
        )
        self._dropped = self._meter.create_counter(
            telemetry.LOG_DROPPED, unit="{line}", description="Lines of the log that were dropped because nobody read them."
        )
        self._dropped.add(0)  # What is shown from the start has a rate at its first change.
        for quota in QUOTAS:
            self._refused.add(0, {"quota": quota})

    def began(self, *, watches: bool) -> None:
        """A request came."""
        if watches:
            self._watchers += 1
        else:
            self._open += 1

    def finished(self, *, watches: bool) -> None:
        """A request that came is over."""
        if watches:
            self._watchers -= 1
        else:
            self._open -= 1

    def answered(self, method: str, route: str, status: int, code: str, seconds: float) -> None:
        """A request was answered."""
        attributes: dict[str, str | int] = {
            "http.request.method": method if method in METHODS else "_OTHER",
            "http.route": route,
            "http.response.status_code": status,
        }
        if code:
            attributes["error.type"] = code
        self._duration.record(seconds, attributes)

    def refused(self, quota: str) -> None:
        """A request was over this limit."""
        self._refused.add(1, {"quota": quota})

    def dropped(self, lines: int) -> None:
        """So many lines of the log were dropped."""
        self._dropped.add(lines)

    def watch_turns(self, waiting: Callable[[], int], free: Callable[[], int]) -> None:
        """Show how many requests wait for a turn before the engine, and how many turns are free."""
        for name, what, value in (
            (telemetry.TURNS_WAITING, "Requests that wait for a turn before the engine.", waiting),
            (telemetry.TURNS_FREE, "Turns before the engine that are free.", free),
        ):
            self._meter.create_observable_gauge(name, [_reading(value)], unit="{request}", description=what)


def _reading(value: Callable[[], int]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [Observation(value())]
