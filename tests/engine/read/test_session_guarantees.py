"""Two stores on the same data, in any order of calls: each sees versions rise and what it wrote; a token carries that to the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from perdure import Event, NotFound, View, op, sync
from perdure.clock import SystemClock
from perdure.model.ids import SessionKey

NAME = "s"
STALE = st.sampled_from([None, 5.0, 500.0])
WHO = st.integers(0, 1)
PASSED = st.sampled_from([0.0, 70.0])
"""Seconds."""


class StepClock(SystemClock):
    """A monotonic clock that moves when a rule moves it."""

    seconds = 100.0

    def monotonic(self) -> float:  # type: ignore[override]
        return self.seconds


class TwoStores(RuleBasedStateMachine):
    """What each store has acknowledged or shown is the least that it answers with from then on."""

    @initialize(cache_bytes=st.sampled_from([1 << 20, 1 << 20, 0]))
    def open(self, cache_bytes: int) -> None:
        self.folder = TemporaryDirectory()
        url = f"sqlite:///{Path(self.folder.name) / 'store.db'}"
        self.clocks = StepClock(), StepClock()
        self.stores = [sync.open(url, clock=clock, cache_bytes=cache_bytes).__enter__() for clock in self.clocks]
        self.least = [0, 0]
        """The newest version that each has acknowledged or shown."""
        self.states: dict[int, Any] = {}
        self.commit_times: dict[int, float] = {}
        self.now, self.head = 0.0, 0
        self.commit(0, "edit", 0.0)
        self.read_eventual(1, None)

    @rule(who=WHO, how=st.sampled_from(["events", "operations", "edit", "configure"]), seconds=PASSED)
    def commit(self, who: int, how: str, seconds: float) -> None:
        """A commit of one of them, and time that passes."""
        store, count = self.stores[who], self.states.get(self.head, {}).get("n", 0)
        if how == "events":
            version = store.append(NAME, Event("note")).version
        elif how == "configure" and self.head:
            version = store.configure(NAME, tags={"a": "b"}).version
        elif how == "edit":
            count += 1
            with store.edit(NAME) as draft:
                draft.add("/n", 1)
            assert draft.receipt is not None
            version = draft.receipt.version
        else:
            count += 1
            version = store.append(NAME, Event("x", None, (op.add("/n", 1),))).version
        assert version == self.head + 1
        self.head, self.states[version], self.commit_times[version] = version, {"n": count} if count else {}, self.now
        self._seen(who, version)
        self.now += seconds
        for clock in self.clocks:
            clock.seconds += seconds

    @rule(who=WHO)
    def read_strong(self, who: int) -> None:
        self._read(who, lambda: self.stores[who].read(NAME), self.head)

    @rule(who=WHO, stale=STALE)
    def read_eventual(self, who: int, stale: float | None) -> None:
        """At least what this store has seen, and all that is older than the staleness allows."""
        allowed = min(60.0 if stale is None else stale, 60.0)
        old = [version for version, at in self.commit_times.items() if self.now - at > allowed]
        least = max([0, self.least[who], *old])
        self._read(who, lambda: self.stores[who].read(NAME, consistency="eventual", max_staleness=stale), least)

    @precondition(lambda self: self.head)
    @rule(who=WHO, stale=STALE)
    def read_with_the_others_token(self, who: int, stale: float | None) -> None:
        view = self.stores[1 - who].read(NAME, consistency="eventual", max_staleness=stale)
        self._seen(1 - who, view.version)
        least = max(view.version, self.least[who])
        options: Any = {"consistency": "eventual", "max_staleness": stale, "at_least": view.token}
        self._read(who, lambda: self.stores[who].read(NAME, **options), least)

    @precondition(lambda self: self.head)
    @rule(who=WHO)
    def history(self, who: int) -> None:
        for commit in self.stores[who].history(NAME):
            self._seen(who, commit.version)

    @rule(who=WHO)
    def forget(self, who: int) -> None:
        self.stores[who].asynchronous._core.cache.drop(SessionKey("default", NAME))

    def _seen(self, who: int, version: int) -> None:
        self.least[who] = max(self.least[who], version)

    def _read(self, who: int, call: Callable[[], View], least: int) -> None:
        try:
            view = call()
        except NotFound:
            assert least == 0
            return
        assert least <= view.version <= self.head
        assert view.state == self.states[view.version]
        self._seen(who, view.version)

    def teardown(self) -> None:
        for store in getattr(self, "stores", ()):
            store.close()
        if hasattr(self, "folder"):
            self.folder.cleanup()


MANY = settings(
    max_examples=150, stateful_step_count=25, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_two_stores_keep_what_they_promise() -> None:
    """Monotonic reads and read-your-writes hold in each store, staleness is bounded, and tokens carry both across."""
    run_state_machine_as_test(TwoStores, settings=MANY)
