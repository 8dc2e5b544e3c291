"""What the random life of a store is made of: strategies, the store beside its plain model, and how the two are compared."""

from __future__ import annotations

import asyncio
import copy
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

import perdure
from perdure import op
from tests.support.engine.reference_model import Misfit, Session, Step, combines, done

T = TypeVar("T")

NAMES = ["a", "b/é"]
KEYS = ["n", "list", "x", "", "a/b"]
VALUES = st.sampled_from([0, 1, -3, True, None, "t", 1.5, -0.0, 2**70, [], [1, {"a": 1}], {"deep": {"list": [1]}}])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(KEYS), VALUES),
        st.tuples(st.just("remove"), st.sampled_from(KEYS), st.none()),
        st.tuples(st.just("add"), st.sampled_from(["n", "x"]), st.integers(-5, 5)),
        st.tuples(st.just("append"), st.sampled_from(["list", "x"]), st.lists(st.integers(0, 9), min_size=1, max_size=2)),
    ),
    min_size=1,
    max_size=3,
)
TYPES = st.lists(st.sampled_from(["message", "tool", "note"]), min_size=1, max_size=3).map(tuple)
PART = st.floats(0, 1)
"""Where in a chain: 0 its first version, 1 its head."""


def pointer(key: str) -> str:
    return "/" + key.replace("~", "~0").replace("/", "~1")


def as_op(step: Step) -> perdure.Op:
    kind, key, value = step
    return {"set": op.set, "add": op.add, "append": op.append}[kind](pointer(key), value) if kind != "remove" else op.remove(pointer(key))


def act(state: Any, steps: list[Step]) -> None:
    """The steps as a user does them to a draft's dicts and lists."""
    for kind, key, value in steps:
        if kind == "set":
            state[key] = copy.deepcopy(value)
        elif kind == "remove":
            del state[key]
        elif kind == "add":
            state[key] = state.get(key, 0) + value
        else:
            state.setdefault(key, []).extend(value)


class StoreWithModel(RuleBasedStateMachine):
    """A store (or two on one file) and the plain model that must agree with it."""

    scheme = "memory:"

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="perdure-life-"))
        self.url = self.place()
        self.store = self.wait(self.opened())
        self.other = self.store if self.scheme == "memory:" else self.wait(self.opened())
        self.sessions: dict[str, Session] = {}
        self.forks = 0

    def place(self) -> str:
        """The URL of a fresh store."""
        return self.scheme if self.scheme == "memory:" else f"sqlite:///{self.folder}/store.db"

    async def opened(self) -> perdure.Store:
        return await perdure.open(self.url, snapshot_bytes_min=600, cache_bytes=6_000)

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        try:
            self.everything()
        finally:
            self.wait(self.store.close())
            self.wait(self.other.close())
            self.runner.close()
            shutil.rmtree(self.folder)

    def settle(self, name: str, call: Coroutine[Any, Any, Any], then: Any) -> Any:
        """Make the call, then the same to the model, and compare the head."""
        answer = self.wait(call)
        then(self.sessions.setdefault(name, Session([])))
        self.compare(name)
        return answer

    def refuse(self, call: Coroutine[Any, Any, Any], *errors: type[perdure.Error]) -> None:
        """The call must fail, and change nothing."""
        with pytest.raises(errors):
            self.wait(call)
        for name in self.sessions:
            self.compare(name)

    def compare(self, name: str) -> None:
        session = self.sessions[name]
        if session.deleted:
            with pytest.raises(perdure.Deleted):
                self.wait(self.store.read(name))
            return
        view = self.wait(self.store.read(name))
        assert (view.version, view.state, view.tags) == (session.version, session.state, session.tags)
        assert repr(view.state) == repr({key: session.state[key] for key in view.state})

    def alive(self) -> list[str]:
        return [name for name, session in self.sessions.items() if not session.deleted]

    def theirs(self, name: str, after: int) -> list[Step]:
        """What was done to top-level keys since a version, as the store's history tells it."""

        async def read() -> list[Step]:
            return [
                (each.kind, each.path.split("/")[1].replace("~1", "/").replace("~0", "~") if each.path else "*", each.value)
                async for commit in self.store.history(name, after=after)
                for event in commit.events
                for each in event.ops
            ]

        return self.wait(read())

    def try_steps(self, name: str, call: Any, session: Session, steps: list[Step], base: dict[str, Any], types: tuple[str, ...]) -> None:
        try:
            state = done(base, steps)
        except Misfit:
            self.refuse(call, perdure.Invalid)
        else:
            self.settle(name, call, lambda session: session.add("data", types, state))

    def try_merge(self, name: str, call: Any, session: Session, steps: list[Step], expect: int, types: tuple[str, ...]) -> None:
        """My steps, made at version `expect`, behind what came since."""
        try:
            done(session.links[expect - 1].state, steps)
        except Misfit:
            self.refuse(call, perdure.Conflict, perdure.Invalid)
            return
        wiped = any(link.kind == "tombstone" for link in session.links[expect:])
        opinion = False if wiped else combines(steps, self.theirs(name, expect))
        if opinion is False:
            self.refuse(call, perdure.Conflict, perdure.Deleted)
            return
        try:
            self.wait(call)
        except perdure.Conflict:
            assert opinion is None
        else:
            state = done(session.state, steps, gone_is_gone=True) if opinion else self.wait(self.store.read(name)).state
            session.add("data", types, state)
        self.compare(name)

    @staticmethod
    def choose(names: list[str], part: float) -> str:
        return sorted(names)[min(int(part * len(names)), len(names) - 1)]

    async def last(self, name: str) -> perdure.Commit:
        async for commit in self.store.history(name, newest_first=True, limit=1):
            return commit
        raise AssertionError

    def everything(self) -> None:
        """Every chain proves itself, dense from version 1, and every version reads as the model has it."""

        async def check() -> None:
            for name, session in self.sessions.items():
                proof = await self.store.verify(name)
                assert (proof.version, proof.commits) == (session.version, session.version)
                if session.deleted:
                    continue
                assert [commit.version async for commit in self.store.history(name)] == list(range(session.life + 1, session.version + 1))
                everything = [commit.version async for commit in self.store.history(name, include_deleted=True)]
                assert everything == list(range(1, session.version + 1))
                for version, link in enumerate(session.links, 1):
                    audit = version <= session.life
                    assert (await self.store.read(name, at=version, include_deleted=audit)).state == link.state, (name, version)

        self.wait(check())
