"""Two stores on the same data, in any order of calls: each sees versions rise and what it wrote; a token carries that to the other."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

import perdure
from perdure import Event, NotFound, op, sync
from perdure.clock import SystemClock
from perdure.model.ids import SessionKey

NAMES = ("s", "t")
STALE = st.sampled_from([None, 0.5, 5.0, 500.0])
WHO = st.integers(0, 1)
NAME = st.sampled_from(NAMES)


class StepClock(SystemClock):
    """A monotonic clock that moves when a rule moves it."""

    seconds = 100.0

    def monotonic(self) -> float:  # type: ignore[override]
        return self.seconds


class TwoStores(RuleBasedStateMachine):
    """What each store has acknowledged or shown is the least that it answers with from then on."""

    @initialize(cache_bytes=st.sampled_from([1 << 20, 1_000, 0]))
    def open(self, cache_bytes: int) -> None:
        self.folder = TemporaryDirectory()
        url = f"sqlite:///{Path(self.folder.name) / 'store.db'}"
        self.clocks = StepClock(), StepClock()
        self.stores = [sync.open(url, clock=clock, cache_bytes=cache_bytes).__enter__() for clock in self.clocks]
        self.least: list[dict[str, int]] = [{}, {}]
        self.states: dict[tuple[str, int], Any] = {}
        self.commit_times: dict[tuple[str, int], float] = {}
        self.now = 0.0
        self.heads: dict[str, int] = {}

    def _committed(self, who: int, name: str, version: int) -> None:
        state = dict(self.states.get((name, version - 1), {}))
        if version not in [at for other, at in self.states if other == name]:
            self.states[name, version] = state
        self.heads[name] = version
        self.commit_times[name, version] = self.now
        self._seen(who, name, version)

    def _seen(self, who: int, name: str, version: int) -> None:
        self.least[who][name] = max(self.least[who].get(name, 0), version)

    @rule(who=WHO, name=NAME)
    def append_events(self, who: int, name: str) -> None:
        self._committed(who, name, self.stores[who].append(name, Event("note")).version)

    @rule(who=WHO, name=NAME)
    def append_operations(self, who: int, name: str) -> None:
        version = self.stores[who].append(name, Event("x", None, (op.add("/n", 1),))).version
        self.states[name, version] = {"n": self.states.get((name, version - 1), {}).get("n", 0) + 1}
        self._committed(who, name, version)

    @rule(who=WHO, name=NAME)
    def edit(self, who: int, name: str) -> None:
        with self.stores[who].edit(name) as draft:
            draft.add("/n", 1)
        assert draft.receipt is not None
        version = draft.receipt.version
        self.states[name, version] = {"n": self.states.get((name, version - 1), {}).get("n", 0) + 1}
        self._committed(who, name, version)

    @rule(who=WHO, name=NAME)
    def configure(self, who: int, name: str) -> None:
        if name in self.heads:
            self._committed(who, name, self.stores[who].configure(name, tags={"a": "b"}).version)

    @rule(who=WHO, name=NAME)
    def read_strong(self, who: int, name: str) -> None:
        self._read(who, name, lambda: self.stores[who].read(name), self.heads.get(name, 0))

    @rule(who=WHO, name=NAME, stale=STALE)
    def read_eventual(self, who: int, name: str, stale: float | None) -> None:
        """At least what this store has seen, and all that is older than the staleness allows."""
        allowed = min(60.0 if stale is None else stale, 60.0)
        old = [version for (other, version), at in self.commit_times.items() if other == name and self.now - at > allowed]
        least = max([0, self.least[who].get(name, 0), *old])
        self._read(who, name, lambda: self.stores[who].read(name, consistency="eventual", max_staleness=stale), least)

    @precondition(lambda self: self.heads)
    @rule(who=WHO, stale=STALE)
    def read_with_the_others_token(self, who: int, stale: float | None) -> None:
        name = min(self.heads)
        view = self.stores[1 - who].read(name, consistency="eventual", max_staleness=stale)
        self._seen(1 - who, name, view.version)
        least = max(view.version, self.least[who].get(name, 0))
        self._read(
            who,
            name,
            lambda: self.stores[who].read(name, consistency="eventual", max_staleness=stale, at_least=view.token),
            least,
        )

    @rule(who=WHO, name=NAME)
    def history(self, who: int, name: str) -> None:
        if name in self.heads:
            for commit in self.stores[who].history(name):
                self._seen(who, name, commit.version)

    @rule(who=WHO, name=NAME)
    def forget(self, who: int, name: str) -> None:
        self.stores[who].asynchronous._core.cache.drop(SessionKey("default", name))

    @rule(seconds=st.sampled_from([0.3, 4.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for clock in self.clocks:
            clock.seconds += seconds

    def _read(self, who: int, name: str, call: Any, least: int) -> None:
        try:
            view: perdure.View = call()
        except NotFound:
            assert least == 0
            return
        assert least <= view.version <= self.heads[name]
        assert view.state == self.states[name, view.version]
        self._seen(who, name, view.version)

    @invariant()
    def nothing_seen_is_ahead_of_the_chain(self) -> None:
        for least in getattr(self, "least", ()):
            assert all(version <= self.heads[name] for name, version in least.items())

    def teardown(self) -> None:
        for store in getattr(self, "stores", ()):
            store.close()
        if hasattr(self, "folder"):
            self.folder.cleanup()


MANY = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))


def test_two_stores_keep_what_they_promise() -> None:
    """Monotonic reads and read-your-writes hold in each store, staleness is bounded, and tokens carry both across."""
    run_state_machine_as_test(TwoStores, settings=MANY)
