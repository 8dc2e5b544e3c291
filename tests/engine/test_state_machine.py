"""A long random life of a store against plain Python: whatever is called in whatever order, both agree at every version."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

import perdure
from perdure import Event
from tests.support.engine.reference_model import Misfit, Session, Step, done
from tests.support.engine.state_machine import NAMES, PART, STEPS, TYPES, StoreWithModel, act, as_op


class Life(StoreWithModel):
    """The rules: one for each public call, and for what may happen between them."""

    @initialize()
    def begin(self) -> None:
        self.settle("a", self.store.append("a", Event("message")), lambda session: session.add("data", ("message",)))

    @rule(name=st.sampled_from(NAMES), types=TYPES, actor=st.sampled_from([None, "me"]))
    def append_events(self, name: str, types: tuple[str, ...], actor: str | None) -> None:
        call = self.store.append(name, *[Event(type, {"n": len(types)}) for type in types], actor=actor)
        if name in self.sessions and self.sessions[name].deleted:
            self.refuse(call, perdure.Deleted)
        else:
            self.settle(name, call, lambda session: session.add("data", types, actor=actor))

    @rule(name=st.sampled_from(NAMES), steps=STEPS, part=PART, how=st.sampled_from(["any", "head", "stale", "stale", "strict", "none"]))
    def append_operations(self, name: str, steps: list[Step], part: float, how: str) -> None:
        session = self.sessions.get(name, Session([]))
        expect = {"any": None, "head": session.version, "none": 0}.get(how, max(1, round(part * session.version)))
        event = Event("ops", None, tuple(as_op(step) for step in steps))
        policy: Any = "raise" if how == "strict" else "merge"
        call = self.store.append(name, event, expect=expect, on_conflict=policy)
        if session.deleted:
            self.refuse(call, perdure.Deleted)
        elif not session.links and expect:
            self.refuse(call, perdure.NotFound, perdure.Invalid)
        elif session.links and expect == 0:
            self.refuse(call, perdure.AlreadyExists, perdure.Invalid)
        elif expect is None or not session.changed(expect):
            self.try_steps(name, call, session, steps, session.state if session.links else {}, ("ops",))
        elif how == "strict":
            self.refuse(call, perdure.Conflict, perdure.Invalid)
        else:
            self.try_merge(name, call, session, steps, expect, ("ops",))

    @rule(name=st.sampled_from(NAMES), steps=STEPS, noted=st.booleans(), how=st.sampled_from(["edit", "update", "strict", "recreate"]))
    def edit(self, name: str, steps: list[Step], noted: bool, how: str) -> None:
        session = self.sessions.get(name, Session([]))
        base = session.state if session.links else {}

        def change(draft: perdure.Draft) -> None:
            assert draft.state == base
            act(draft.state, steps)
            if noted:
                draft.event("note", [])

        async def edit() -> perdure.Receipt | None:
            if how == "update":
                return (await self.store.update(name, change))[0]
            options: dict[str, Any] = {"strict": {"on_conflict": "raise"}, "recreate": {"recreate": True}}.get(how, {})
            async with self.store.edit(name, **options) as draft:
                change(draft)
            return draft.receipt

        try:
            state = done(base, steps)
        except Misfit:
            return  # A plain dict would refuse that too: the block raises KeyError or TypeError.
        if session.deleted and how != "recreate":
            self.refuse(edit(), perdure.Deleted)
            return
        receipt = self.wait(edit())
        if receipt is not None:
            session = self.sessions.setdefault(name, session)
            last = self.wait(self.last(name))
            assert last.version == receipt.version
            assert [event.type for event in last.events] == ["note"] * noted + ["edited"] * bool(last.events[-1].ops)
            session.add("data", tuple(event.type for event in last.events), state)
            session.deleted = False
        else:
            assert not noted
            assert state == base
        if name in self.sessions:
            self.compare(name)

    @rule(name=st.sampled_from(NAMES), steps=STEPS, part=PART)
    def edit_an_older_version(self, name: str, steps: list[Step], part: float) -> None:
        session = self.sessions.get(name)
        if session is None or session.deleted:
            return
        expect = max(1, round(part * session.version))
        base = session.links[expect - 1].state if session.changed(expect) else session.state
        try:
            state = done(base, steps)
        except Misfit:
            return

        async def edit() -> perdure.Receipt | None:
            async with self.store.edit(name, expect=expect) as draft:
                assert draft.state == base
                act(draft.state, steps)
            return draft.receipt

        wiped = any(link.kind == "tombstone" for link in session.links[expect:])
        keys = {key for _, key, _ in steps}
        apart = not keys & {key for _, key, _ in self.theirs(name, expect)} and not wiped
        try:
            receipt = self.wait(edit())
        except perdure.Conflict:
            assert not apart
        else:
            if receipt is None:
                assert state == base
            else:
                assert not wiped
                merged = done(session.state, steps) if apart else self.wait(self.store.read(name)).state
                session.add("data", ("edited",), merged)
        self.compare(name)

    @rule(name=st.sampled_from(NAMES), key=st.sampled_from(["k1", "k2"]), number=st.integers(0, 2), steps=st.none() | STEPS)
    def append_with_a_key(self, name: str, key: str, number: int, steps: list[Step] | None) -> None:
        session = self.sessions.get(name, Session([]))
        event = Event("keyed", {"number": number}, tuple(as_op(step) for step in steps or ()))
        call = self.store.append(name, event, key=key)
        if key in session.keys:
            version, first = session.keys[key]
            if repr(first) == repr(event):
                receipt = self.wait(call)
                assert (receipt.version, receipt.duplicate) == (version, True)
            else:
                self.refuse(call, perdure.Invalid)
            return
        if session.deleted:
            self.refuse(call, perdure.Deleted)
            return
        before = session.version
        self.try_steps(name, call, session, steps or [], session.state if session.links else {}, ("keyed",))
        session = self.sessions.get(name, session)
        if session.version > before:
            session.links[-1].key = key
            session.keys = {**session.keys, key: (session.version, event)}

    @rule(part=PART, which=PART)
    @precondition(lambda self: self.alive())
    def read_a_version(self, part: float, which: float) -> None:
        name = self.choose(self.alive(), which)
        session = self.sessions[name]
        version = round(part * (session.version + 1))
        if 1 <= version <= session.life:
            self.refuse(self.store.read(name, at=version), perdure.Deleted)
        elif 1 <= version <= session.version:
            view = self.wait(self.store.read(name, at=version))
            assert (view.version, view.state) == (version, session.links[version - 1].state)
        else:
            self.refuse(self.store.read(name, at=version), perdure.NotFound, perdure.Invalid)

    @rule(
        which=PART,
        part=PART,
        span=st.none() | st.integers(0, 6),
        types=st.none() | TYPES,
        newest=st.booleans(),
        limit=st.none() | st.integers(0, 4),
    )
    @precondition(lambda self: self.alive())
    def history(self, which: float, part: float, span: int | None, types: Any, newest: bool, limit: int | None) -> None:
        name = self.choose(self.alive(), which)
        session = self.sessions[name]
        after = round(part * session.version)
        before = None if span is None else after + span

        async def read() -> list[tuple[int, str, tuple[str, ...], str | None, str | None]]:
            found = self.store.history(name, after=after, before=before, types=types, newest_first=newest, limit=limit)
            return [(c.version, c.kind.name, tuple(event.type for event in c.events), c.key, c.actor) async for c in found]

        expected = []
        for version, link in enumerate(session.links, 1):
            chosen = link.types if types is None else tuple(type for type in link.types if type in types)
            if max(after, session.life) < version < (before if before is not None else version + 1) and (chosen or types is None):
                expected.append((version, link.kind, chosen, link.key, link.actor))
        assert self.wait(read()) == (expected[::-1] if newest else expected)[:limit]

    @rule(
        prefix=st.sampled_from(["", "a", "b", "b/é", "fork", "z"]),
        tag=st.none() | st.sampled_from(["x", "y"]),
        limit=st.none() | st.integers(0, 3),
    )
    def listing(self, prefix: str, tag: str | None, limit: int | None) -> None:
        async def read() -> list[tuple[str, int, dict[str, str]]]:
            found = self.store.list(prefix=prefix, tags=None if tag is None else {"team": tag}, limit=limit)
            return [(info.session, info.version, dict(info.tags)) async for info in found]

        expected = [
            (name, self.sessions[name].version, self.sessions[name].tags)
            for name in sorted(self.alive(), key=str.encode)
            if name.startswith(prefix) and tag in (None, self.sessions[name].tags.get("team"))
        ]
        assert self.wait(read()) == expected[:limit]

    @rule(which=PART, tags=st.sampled_from([{}, {"team": "x"}, {"team": "y", "é": "1"}]))
    @precondition(lambda self: self.sessions)
    def configure(self, which: float, tags: dict[str, str]) -> None:
        name = self.choose(list(self.sessions), which)
        session = self.sessions[name]
        call = self.store.configure(name, tags=tags)
        if session.deleted:
            self.refuse(call, perdure.Deleted)
            return
        session.tags = tags
        self.settle(name, call, lambda session: session.add("configure", ("configured",)))

    @rule(which=PART, part=PART)
    @precondition(lambda self: self.alive() and self.forks < 4)
    def fork(self, which: float, part: float) -> None:
        name = self.choose(self.alive(), which)
        session = self.sessions[name]
        at = max(1, round(part * session.version))
        if at <= session.life:
            self.refuse(self.store.fork(name, at=at), perdure.Deleted)
            return
        child = f"fork-{self.forks}"
        self.forks += 1
        assert self.wait(self.store.fork(name, at=at, id=child)) == child
        self.sessions[child] = Session(copy.deepcopy(session.links[:at]), parent=name, forked_at=at, left_at=at)
        self.sessions[child].add("configure", ("forked",))
        session.add("pin", ("pinned",))
        self.compare(name)
        self.compare(child)

    @rule(which=PART, steps=STEPS)
    @precondition(lambda self: any(name.startswith("fork") for name in self.alive()))
    def edit_a_fork(self, which: float, steps: list[Step]) -> None:
        name = self.choose([name for name in self.alive() if name.startswith("fork")], which)
        session = self.sessions[name]
        event = Event("ops", None, tuple(as_op(step) for step in steps))
        self.try_steps(name, self.store.append(name, event), session, steps, session.state, ("ops",))

    @rule(which=PART)
    @precondition(lambda self: any(name.startswith("fork") for name in self.alive()))
    def merge(self, which: float) -> None:
        name = self.choose([name for name in self.alive() if name.startswith("fork")], which)
        fork = self.sessions[name]
        into = fork.parent
        assert into is not None
        target = self.sessions[into]
        if target.deleted:
            self.refuse(self.store.merge(name, into=into), perdure.Deleted)
            return
        if fork.life > fork.forked_at or target.life >= fork.forked_at:
            self.refuse(self.store.merge(name, into=into), perdure.Invalid)
            return
        if not fork.changed(fork.left_at):
            assert self.wait(self.store.merge(name, into=into)) is None
            return
        mine = {key for _, key, _ in self.theirs(name, fork.left_at)}
        others = {key for _, key, _ in self.theirs(into, fork.forked_at)}
        try:
            receipt = self.wait(self.store.merge(name, into=into))
        except perdure.Conflict:
            assert mine & others or "*" in mine | others
        else:
            assert receipt is not None
            assert receipt.version == target.version + 1
            state = {key: value for key, value in target.state.items() if key not in mine} | {
                key: fork.state[key] for key in mine & fork.state.keys()
            }
            if mine & others or "*" in mine | others:
                state = self.wait(self.store.read(into)).state
            target.add("data", ("merged",), state)
            fork.left_at = fork.version
        self.compare(into)
        self.compare(name)

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        session = self.sessions.get(name)
        if session is None:
            self.refuse(self.store.delete(name), perdure.NotFound)
        elif session.deleted:
            self.refuse(self.store.delete(name), perdure.Deleted)
        else:
            receipt = self.wait(self.store.delete(name))
            session.add("tombstone", ("deleted",))
            session.tags = {}
            session.links[-1].state = {}
            session.deleted, session.keys = True, {}
            assert receipt.version == session.version
            self.compare(name)

    @rule(name=st.sampled_from(NAMES), steps=st.none() | STEPS)
    def recreate(self, name: str, steps: list[Step] | None) -> None:
        session = self.sessions.get(name)
        if session is None or not session.deleted:
            return
        event = Event("again", None, tuple(as_op(step) for step in steps or ()))
        call = self.store.append(name, event, recreate=True)
        try:
            state = done({}, steps or [])
        except Misfit:
            self.refuse(call, perdure.Invalid)
            return
        assert self.wait(call).version == session.version + 1
        session.add("data", ("again",), state)
        session.deleted = False
        self.compare(name)

    @rule()
    @precondition(lambda self: self.scheme != "memory:")
    def reopen(self) -> None:
        self.wait(self.store.close())
        self.store = self.wait(self.opened())

    @rule()
    def the_other_store(self) -> None:
        """The calls that follow go through another store on the same data, which remembers what it last saw."""
        self.store, self.other = self.other, self.store

    @rule()
    def prove(self) -> None:
        """All that there is, in the middle of it."""
        self.everything()


class LifeOnDisk(Life):
    """The same on SQLite, which can be closed and opened in between."""

    scheme = "sqlite"


@pytest.mark.long
@pytest.mark.parametrize(("machine", "examples"), [(Life, 120), (LifeOnDisk, 30)], ids=["memory", "sqlite"])
def test_a_long_life(machine: type[Life], examples: int) -> None:
    """The store and the plain model agree after every call, at every version, in every history, listing and proof."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
