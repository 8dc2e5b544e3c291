"""The unified storage beyond Strands' own tests: exact bytes, little written, two writers, keys, bad input, agents that go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strands import Agent
from strands.models import Model
from strands.session.snapshot_session_manager import SnapshotSessionManager
from strands.storage import Storage
from strands.types.exceptions import StorageError

import perdure
from perdure.adapters.strands import PerdureStorage
from perdure.adapters.strands.storage import _decode

Scenario = Callable[[PerdureStorage], Awaitable[None]]


@pytest.fixture(params=["asynchronous", "blocking"])
def play(request: pytest.FixtureRequest, url: str) -> Callable[[Scenario], None]:
    """Run a scenario with a storage on an asynchronous store, then on a blocking one."""

    async def on_asynchronous(scenario: Scenario) -> None:
        async with perdure.open(url) as store:
            await scenario(PerdureStorage(store))

    def run(scenario: Scenario) -> None:
        if request.param == "asynchronous":
            asyncio.run(on_asynchronous(scenario))
            return
        with perdure.sync.open(url) as store:
            asyncio.run(scenario(PerdureStorage(store)))  # type: ignore[arg-type]

    return run


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=5),
    max_leaves=20,
)
DUMPS = st.sampled_from([
    lambda value: json.dumps(value, ensure_ascii=False),
    json.dumps,
    lambda value: json.dumps(value, indent=2),
    lambda value: json.dumps(value, separators=(",", ":")),
])  # fmt: skip


@st.composite
def json_bytes(draw: Any) -> bytes:
    text: str = draw(DUMPS)(draw(JSON_VALUES))
    return text.encode(errors="surrogatepass")


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=50) | st.text(max_size=50).map(str.encode) | json_bytes() | st.just(b'{"a":1,"a":2}'), max_size=6))
def test_any_bytes_come_back_as_they_were(values: list[bytes]) -> None:
    """Written one after another under one key, each value is read back byte for byte: also from a fresh store, and in the past."""

    async def scenario() -> None:
        async with perdure.open("memory:") as store:
            storage = PerdureStorage(store)
            for value in values:
                await storage.write("k", value)
                assert await storage.read("k") == value
                store._core.reader._cache._entries.clear()  # as in a process that has not seen the key
                assert await storage.read("k") == value

    asyncio.run(scenario())


@st.composite
def edited(draw: Any, value: Any, depth: int = 0) -> Any:
    """The value with some places changed, added or taken away, as a program changes what it writes again."""
    if isinstance(value, (dict, list)) and value and draw(st.integers(0, 9)) > depth:
        places = list(value) if isinstance(value, dict) else list(range(len(value)))
        place = draw(st.sampled_from(places))
        changed: Any = dict(value) if isinstance(value, dict) else list(value)
        match draw(st.sampled_from(["into", "into", "take", "put", "front", "slide"])):
            case "into":
                changed[place] = draw(edited(value[place], depth + 1))
            case "take":
                del changed[place]
            case "slide" if isinstance(changed, list):
                changed = [*changed[1:], draw(JSON_VALUES)]
            case "front" if isinstance(changed, list):
                changed.insert(0, draw(JSON_VALUES))
            case _ if isinstance(changed, list):
                changed.append(draw(JSON_VALUES))
            case _:
                changed[draw(st.text(max_size=3))] = draw(JSON_VALUES)
        return changed
    return draw(JSON_VALUES)


@settings(max_examples=150)
@given(st.data(), JSON_VALUES)
def test_a_value_that_changes_in_places_comes_back_as_it_was(data: st.DataObject, value: Any) -> None:
    """Edited here and there and written again, each value is read back byte for byte from what is stored, whether this process wrote
    the one before or another did; the older ones are the states of the older versions."""

    async def scenario() -> None:
        async with perdure.open("memory:") as store:
            current, written = {"data": value}, []
            storages = [PerdureStorage(store), PerdureStorage(store)]
            for number in range(5):
                written.append(json.dumps(current, ensure_ascii=False).encode(errors="surrogatepass"))
                await storages[data.draw(st.integers(0, 1))].write("k", written[-1])
                current = data.draw(edited(current)) if number % 2 else {**current, "data": data.draw(edited(current.get("data")))}
                current = current if isinstance(current, dict) else {"data": current}
            store._core.reader._cache._entries.clear()
            for version, wanted in enumerate(written, 1):
                assert _decode((await store.read("strands/storage/k", at=version)).state) == wanted
            await store.verify("strands/storage/k")

    asyncio.run(scenario())


def test_members_of_an_object_keep_their_order(play) -> None:
    """A value whose members only changed places is stored anew, for the bytes differ."""

    async def scenario(storage: PerdureStorage) -> None:
        for value in ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2, "c": 1}, "a": 1}, {"b": {"c": 1}, "a": 1, "c": [{"y": 1, "x": 2}]}):
            data = json.dumps(value, ensure_ascii=False).encode()
            await storage.write("k", data)
            assert await storage.read("k") == data

    play(scenario)


def snapshot(turns: int, *, first: int = 0) -> bytes:
    """A snapshot as Strands writes one: the whole agent, its last messages included."""
    messages = [{"role": "user", "content": [{"text": f"number {n} " + "x" * 100}]} for n in range(first, turns)]
    return json.dumps(
        {"scope": "agent", "data": {"messages": messages, "state": {"n": turns}}, "app_data": {}}, ensure_ascii=False
    ).encode()


def test_a_snapshot_written_anew_costs_what_changed(play) -> None:
    """200 snapshots of a conversation that grows, and then slides, cost their new messages; each write is one commit."""

    async def scenario(storage: PerdureStorage) -> None:
        sizes = []
        for turn in range(1, 301):
            data = snapshot(turn, first=max(0, turn - 200))
            await storage.write("session/s1/snapshot_latest.json", data)
            sizes.append(len(data))
        assert await storage.read("session/s1/snapshot_latest.json") == data
        commits = [commit async for commit in storage._store.history("strands/storage/session/s1/snapshot_latest.json")]
        written = [len(msgspec.json.encode(commit.events)) for commit in commits]
        assert len(written) == 300
        assert max(written[5:]) < 500
        assert sum(written) * 40 < sum(sizes)

    play(scenario)


async def test_the_last_of_two_writers_counts(file_url: str) -> None:
    """Writers on two stores of one file, at once on one key, all succeed; the value is one of theirs, whole, and the history has all."""

    async with perdure.open(file_url) as here, perdure.open(file_url) as there:
        storages = [PerdureStorage(here), PerdureStorage(there)]
        values = [snapshot(number) for number in range(1, 9)]
        await asyncio.gather(*[storages[number % 2].write("k", value) for number, value in enumerate(values)])
        assert await storages[0].read("k") in values
        assert await storages[0].read("k") == await storages[1].read("k")
        assert len([commit async for commit in here.history("strands/storage/k")]) == 8
        await here.verify("strands/storage/k")


def test_keys_of_any_characters_are_listed_as_they_are(play) -> None:
    """Percent signs, control characters and non-ASCII in keys come back in lists and do not collide; prefixes match as text."""

    async def scenario(storage: PerdureStorage) -> None:
        keys = ["a/b", "a%2Fb", "a/%", "ä/ö.md", "a/b\tc", "ab", "z"]
        for key in keys:
            await storage.write(key, key.encode())
        assert await storage.list("") == sorted(keys)
        assert await storage.list("a/") == sorted(key for key in keys if key.startswith("a/"))
        assert await storage.list("a/b") == ["a/b", "a/b\tc"]
        assert [await storage.read(key) for key in keys] == [key.encode() for key in keys]
        scoped = storage.namespace("a")
        assert await scoped.list("") == ["%", "b", "b\tc"]
        await scoped.delete("b")
        assert await storage.read("a/b") is None
        await storage.write("a/b", b"again")
        assert await scoped.read("b") == b"again"

    play(scenario)


def test_what_goes_wrong_is_a_storage_error(play) -> None:
    """Keys that are too long, values of something else and a closed store raise Strands' `StorageError` with the reason."""

    async def scenario(storage: PerdureStorage) -> None:
        assert isinstance(storage, Storage)
        for call in (storage.write("k" * 300, b""), storage.read("k" * 300), storage.delete("k" * 300)):
            with pytest.raises(StorageError, match="at most 255"):
                await call
        await storage._store.append("strands/storage/foreign", perdure.Event("step"))
        for call in (storage.read("foreign"), storage.write("foreign", b"")):
            with pytest.raises(StorageError, match="something else made it"):
                await call
        await storage._store.close()
        for call in (storage.write("k", b""), storage.read("k"), storage.delete("k"), storage.list("")):
            with pytest.raises(StorageError, match="closed"):
                await call

    play(scenario)


def test_ten_megabytes_are_stored(play) -> None:
    """Ten megabytes that are no text come back as they were."""

    async def scenario(storage: PerdureStorage) -> None:
        data = bytes(range(256)) * 40_960
        await storage.write("k", data)
        assert await storage.read("k") == data

    play(scenario)


class Echo(Model):
    """A model that says how many messages it has seen."""

    def update_config(self, **config: Any) -> None: ...

    def get_config(self) -> dict[str, Any]:
        return {"context_window_limit": 1000}

    def structured_output(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def stream(self, messages: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        yield {"messageStart": {"role": "assistant"}}
        yield {"contentBlockDelta": {"delta": {"text": f"{len(messages)} so far"}}}
        yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": "end_turn"}}


def test_an_agent_goes_on_in_another_store(file_url: str) -> None:
    """A snapshot manager on the storage resumes an agent in a second store on the same file; older states can be looked at."""
    said = []
    for _ in range(3):
        with perdure.sync.open(file_url) as store:
            manager = SnapshotSessionManager("s1", storage=PerdureStorage(store), save_latest_on="message")
            agent = Agent(model=Echo(), agent_id="helper", session_manager=manager, callback_handler=None)
            said.append(str(agent("hello")).strip())
    assert said == ["1 so far", "3 so far", "5 so far"]
    name = "strands/storage/session/s1/scopes/agent/helper/snapshots/snapshot_latest.json"
    with perdure.sync.open(file_url) as store:
        assert len(store.read(name).state["json"]["data"]["messages"]) == 6
        assert len(store.read(name, at=2).state["json"]["data"]["messages"]) == 2
        store.verify(name)
