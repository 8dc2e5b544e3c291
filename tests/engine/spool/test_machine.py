"""Whatever callers, outages, lost answers and restarts do in whatever order: each session has what was acknowledged, once and in order."""

from __future__ import annotations

import logging
import tempfile
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import perdure
import perdure.sync
from perdure import Event, op
from perdure.concurrency.replies import run_blocking
from perdure.engine.opening import _open_spool, _spool_file
from perdure.engine.spool import entries, shipper
from perdure.model.ids import SessionKey
from tests.support.engine.flaky import Flaky

SESSIONS = st.sampled_from(["a", "b"])
KEYS = st.sampled_from(["k0", "k1", "k2", None])


class Spooling(RuleBasedStateMachine):
    """A store in memory whose engine may be away, and a spool that is restarted. The model: per session what must stand there."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="perdure-spool-")
        self.url = f"sqlite:///{self.folder.name}/spool.db"
        self.store = perdure.sync.open("memory:", spool=self.url, spool_wait=0.0)
        self.core: Any = self.store.asynchronous._core
        self.flaky = Flaky(self.store.asynchronous)
        self.model: dict[str, list[Any]] = {"a": [], "b": []}
        self.refused: dict[str, list[str]] = {"a": [], "b": []}
        self.keys: dict[tuple[str, str], int] = {}
        self.ops: list[bool] = []
        """Whether the write of each number changes the state."""
        self.count = 0

    @rule(session=SESSIONS, key=KEYS, ops=st.booleans())
    def enqueue(self, session: str, key: str | None, ops: bool) -> None:
        """A write, or for a key that was used before the same one again."""
        number = self.keys.get((session, key or ""))
        repeated = number is not None
        if number is None:
            number = self.next(session, ops=ops)
        queued = self.store.enqueue(session, Event("step", number, (op.add("/n", 1),) if self.ops[number] else ()), key=key)
        assert repeated or not queued.duplicate  # What was shipped long ago is found by the store, from its key.
        if key is not None:
            self.keys[session, key] = number

    def next(self, session: str, *, ops: bool) -> int:
        """The number of a write that is acknowledged now."""
        self.model[session].append(self.count)
        self.ops.append(ops)
        self.count += 1
        return self.count - 1

    @rule(session=SESSIONS)
    def append(self, session: str) -> None:
        """A direct write stands where it was acknowledged; where something is queued it is `Busy` and nothing is written."""
        self.flaky.lossy = 0
        try:
            self.store.append(session, Event("step", self.count))
        except (perdure.Busy, perdure.Unavailable):
            return
        self.next(session, ops=False)

    @rule(session=SESSIONS)
    def enqueue_refused(self, session: str) -> None:
        """It fails, parks what comes after it, and is dropped at the end."""
        key = f"bad-{self.count}"
        self.store.enqueue(session, Event("bad", None, (op.test("/n", -1),)), key=key)
        self.refused[session].append(key)
        self.ops.append(False)
        self.count += 1

    @rule(away=st.booleans())
    def leave(self, away: bool) -> None:
        self.flaky.away = away

    @rule()
    def lose_an_answer(self) -> None:
        self.flaky.lossy = 1

    @rule()
    def flush(self) -> None:
        self.store.flush(timeout=0.0 if self.flaky.away else 0.2)

    @rule(rough=st.booleans())
    def restart(self, rough: bool) -> None:
        """The process ends, with what it was sending or before it, and another opens the spool."""
        spool = self.core.spool
        if rough:
            spool._end()
        else:
            run_blocking(spool.close())
        run_blocking(_open_spool(self.core, _spool_file(self.url), create=True))

    @invariant()
    def nothing_is_wrong_so_far(self) -> None:
        """What is stored is a beginning of what must be there."""
        for session in self.model if hasattr(self, "model") and not self.flaky.away else ():
            found = self.steps(session)
            assert found == self.model[session][: len(found)]

    def steps(self, session: str) -> list[Any]:
        try:
            return [event.data for commit in self.store.history(session) for event in commit.events]
        except perdure.NotFound:
            return []

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        try:
            self.flaky.away, self.flaky.lossy = False, 0
            for session, keys in self.refused.items():
                for key in keys:
                    self.drop(session, key)
            assert self.store.flush(timeout=60).entries == 0
            for session, expected in self.model.items():
                assert self.steps(session) == expected
                if expected:
                    assert self.store.read(session).state.get("n", 0) == sum(self.ops[number] for number in expected)
                    self.store.verify(session)
            for (session, key), number in self.keys.items():
                receipt = self.store.queued(session, key).receipt(timeout=60)
                (commit,) = self.store.history(session, after=receipt.version - 1, before=receipt.version + 1)
                assert commit.events[0].data == number
        finally:
            self.store.close()
            self.folder.cleanup()

    def drop(self, session: str, key: str) -> None:
        """Wait until it was refused, and take it out of the way."""
        with pytest.raises(perdure.Conflict):
            self.store.queued(session, key).receipt(timeout=60)
        file = self.core.spool._file
        target = SessionKey("default", session)
        found = run_blocking(file.read(lambda connection: entries.find(connection, target, key, None)))
        assert run_blocking(file.write(lambda connection: entries.drop(connection, [found.n]))) == 1


def test_any_order_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim of this module, for orders that Hypothesis chooses. Pauses after an outage are short here."""
    monkeypatch.setattr(shipper, "BACKOFF_MAX", 0.2)
    logging.getLogger("perdure.spool").setLevel(logging.CRITICAL)
    try:
        run_state_machine_as_test(Spooling, settings=settings(max_examples=15, stateful_step_count=25, deadline=None))
    finally:
        logging.getLogger("perdure.spool").setLevel(logging.NOTSET)
