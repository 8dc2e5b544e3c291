"""The store on odd input: it does what the framework's own stores do, keeps more kinds of values than they, and refuses in words."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore
from langgraph.store.sqlite import SqliteStore

import perdure.sync
from perdure import Error, Invalid, TooLarge, Unavailable
from perdure.adapters.langgraph import PerdureStore
from perdure.adapters.langgraph.batches import PartlyStored

NS = ("users", "42")


@dataclasses.dataclass
class Trip:
    """A class of the user's."""

    city: str
    nights: int


class Lengths(Embeddings):
    """Embeddings that need no network: how often a few letters stand in a text."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [1.0 + text.count(letter) for letter in "romeli"]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        return self.embed_query(text)


INDEX: Any = {"dims": 6, "embed": Lengths()}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[perdure.sync.Store]:
    with perdure.sync.open(f"sqlite:///{tmp_path}/agents.db") as opened:
        yield opened


ODD: list[dict[str, Any]] = [
    {"when": dt.datetime(2026, 11, 29, tzinfo=dt.UTC)},
    {"tags": {"a", "b"}, "frozen": frozenset({1})},
    {"raw": b"\x00\xff", "more": bytearray(b"x")},
    {"trip": Trip("Rome", 2)},
    {"deep": [{"when": dt.date(2026, 1, 1)}, {"trip": Trip("Oslo", 7)}, (1, 2)]},
    {1: "a number for a key", "two": 2},
    {(1, 2): "a tuple for a key"},
    {"number": math.inf, "nothing": None, "many": 10**30},
    {"half": "an emoji cut in two \ud83d"},
    {},
]


@pytest.mark.parametrize("index", [None, INDEX], ids=["without an index", "with an index"])
@pytest.mark.parametrize("value", ODD, ids=[f"value {number}" for number in range(len(ODD))])
def test_what_json_has_no_form_for_is_kept(store: perdure.sync.Store, index: Any, value: dict[str, Any]) -> None:
    """Items with dates, sets, bytes, allowed classes and odd keys come back equal: by get, by search, and by query."""
    memory = PerdureStore(store, index=index, allow=[Trip])
    memory.put(NS, "item", value)
    assert memory.get(NS, "item").value == value
    assert [found.value for found in memory.search(("users",))] == [value]
    assert [found.value for found in memory.search(("users",), query="rome")] == [value]
    again = asyncio.run(PerdureStore(store, index=index, allow=[Trip]).aget(NS, "item"))
    assert again.value == value and {key: type(item) for key, item in again.value.items()} == {key: type(value[key]) for key in value}


def test_values_that_json_lacks_are_found_by_their_texts(store: perdure.sync.Store) -> None:
    """An index sees into dates, sets and classes: fields of theirs have vectors as others have, and the likest comes first."""
    memory = PerdureStore(store, index={**INDEX, "fields": ["trip.city", "tags[*]"]}, allow=[Trip])
    memory.put(NS, "rome", {"trip": Trip("rome rome", 1)})
    memory.put(NS, "lil", {"trip": Trip("lilli", 1), "tags": {"lil"}})
    memory.put(NS, "none", {"trip": Trip("rome rome", 1)}, index=False)
    found = memory.search(NS, query="rome rome")
    assert [item.key for item in found] == ["rome", "lil", "none"] and found[0].score == pytest.approx(1) and found[2].score is None


BAD: list[Callable[[PerdureStore], Any]] = [
    lambda memory: memory.put(NS, "k", {"x": object()}),
    lambda memory: memory.put(NS, "k", {"x": [Trip]}),
    lambda memory: memory.put(NS, "k", [("a", 1)]),
    lambda memory: memory.put(NS, "k", "text"),
    lambda memory: memory.put(NS, "k", {"a": 1}, ttl=math.inf),
    lambda memory: memory.put(NS, "k", {"a": 1}, ttl=math.nan),
    lambda memory: memory.put(NS, "k", {"a": 1}, ttl="1"),
    lambda memory: memory.put(NS, "k", {"a": 1}, ttl=1e12),
    lambda memory: memory.put(NS, "k", {"a": 1}, index="field"),
    lambda memory: memory.put(NS, "k", {"a": 1}, index=[1]),
    lambda memory: memory.put(NS, "\ud83d", {"a": 1}),
    lambda memory: memory.put(("x" * 300,), "k", {"a": 1}),
    lambda memory: memory.batch([PutOp(NS, 5, {"a": 1})]),  # type: ignore[arg-type]
    lambda memory: memory.batch([GetOp(NS, None)]),  # type: ignore[arg-type]
    lambda memory: memory.batch(["get"]),  # type: ignore[list-item]
    lambda memory: memory.search(NS, limit=-1),
    lambda memory: memory.search(NS, offset=-1),
    lambda memory: memory.search(NS, limit=1.5),  # type: ignore[arg-type]
    lambda memory: memory.search(NS, filter=["a"]),  # type: ignore[arg-type]
    lambda memory: memory.search(NS, filter={1: "a"}),  # type: ignore[dict-item]
    lambda memory: memory.search(NS, filter={"a": {"$in": [1]}}),
    lambda memory: memory.search(NS, filter={"a": {"b": [{"$regex": "x"}]}}),
    lambda memory: memory.search(NS, filter={"$or": [{"a": 1}, {"a": 2}]}),
    lambda memory: memory.search(NS, filter={"$and": [{"a": 1}]}),
    lambda memory: memory.search(NS, filter={"a": {"$or": [1, 2]}}),
    lambda memory: memory.search(NS, filter={"$not": {"a": 1}}),
    lambda memory: memory.list_namespaces(limit=-1),
    lambda memory: memory.list_namespaces(offset=None),  # type: ignore[arg-type]
    lambda memory: memory.list_namespaces(max_depth=0),
    lambda memory: memory.batch([ListNamespacesOp(match_conditions=(MatchCondition("middle", ("a",)),))]),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("index", [None, INDEX], ids=["without an index", "with an index"])
@pytest.mark.parametrize("call", BAD, ids=range(len(BAD)))
def test_bad_input_is_refused_in_words(store: perdure.sync.Store, index: Any, call: Callable[[PerdureStore], Any]) -> None:
    """Whatever is wrong is an error of Perdure that says so, with no items there and with some; and nothing is written."""
    memory = PerdureStore(store, index=index)
    for filled in (False, True):
        with pytest.raises(Error) as caught:
            call(memory)
        assert len(str(caught.value)) > 40
        assert len(memory.search(())) == filled
        memory.put(NS, "there", {"a": 1})


@pytest.mark.parametrize("operator", ["$or", "$and", "$nor", "$in"])
def test_filters_that_are_not_known_are_value_errors_too(store: perdure.sync.Store, operator: str) -> None:
    """Code that catches what the framework's stores raise for such filters goes on working."""
    for filter in ({operator: [{"a": 1}]}, {"a": {operator: [1]}}):
        with pytest.raises(ValueError, match=r"There is no filter operator"):
            PerdureStore(store).search((), filter=filter)


def self_holding() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


@pytest.mark.parametrize("index", [None, INDEX], ids=["without an index", "with an index"])
@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (PutOp(("b",), "k", {"x": object()}), Invalid),
        (PutOp(("b",), "k", self_holding()), Invalid),
        (PutOp(("b",), "k", {"a": 1}, ttl=1e12), Invalid),
        (PutOp(("b",), "\ud83d", {"a": 1}), Invalid),
        (PutOp(("b" * 300,), "k", {"a": 1}), Invalid),
        (PutOp(("b",), "k", {"a": "x" * (17 << 20)}), TooLarge),
        (PutOp(("b",), "k", [1]), Invalid),  # type: ignore[arg-type]
        (SearchOp(("b",), {"$or": []}), Invalid),
    ],
    ids=range(8),
)
def test_a_batch_with_one_bad_operation_stores_nothing(store: perdure.sync.Store, index: Any, bad: Any, error: type[Error]) -> None:
    """Wherever in a batch it stands, and over how many namespaces, what is wrong with one operation refuses them all."""
    memory = PerdureStore(store, index=index)
    good = [PutOp((label,), "k", {"a": 1}) for label in "ac"]
    for batch in ([*good, bad], [good[0], bad, good[1]], [bad, *good]):
        with pytest.raises(error):
            memory.batch(batch)
        assert list(store.list()) == []


def test_a_batch_that_failed_in_the_middle_says_what_is_stored(store: perdure.sync.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the engine fails between two namespaces the error names what was stored before; sent again, the batch is whole."""
    memory = PerdureStore(store)
    append = memory._store.append

    async def failing(session: str, *events: Any, **options: Any) -> Any:
        if session.endswith("/c"):
            raise Unavailable("The engine is away.")
        return await append(session, *events, **options)

    monkeypatch.setattr(memory._store, "append", failing)
    batch = [PutOp((label,), "k", {"a": label}) for label in "abcd"]
    with pytest.raises(PartlyStored, match="The engine is away") as caught:
        memory.batch(batch)
    assert caught.value.stored == [("a",), ("b",)] and "nothing was written" not in str(caught.value)
    with pytest.raises(Unavailable):
        memory.batch(batch[2:])
    monkeypatch.undo()
    memory.batch(batch)
    assert {item.namespace: item.value for item in memory.search(())} == {(label,): {"a": label} for label in "abcd"}


VALUES: list[dict[str, Any]] = [
    {"a": 1, "b": {"c": 1, "d": None}},
    {"a": 2, "b": {"c": 2}, "list": [1, {"x": 1}]},
    {"a": None, "b": None},
    {"b": "text"},
    {"a": "1", "list": [1, 2]},
    {"a": 1.0, "list": []},
    {},
]
MEMORY_FILTERS: list[Any] = [
    {"b": {"c": 1}},
    {"b": {"d": None}},
    {"b": {"c": 1, "d": None}},
    {"list": [1, 2]},
    {"list": (1, 2)},
    {"list": [1, {"x": 1}]},
    {"list": [1, {"x": {"$gt": 0}}]},
    {"list": []},
    {"b": {}},
]
SHARED_FILTERS: list[Any] = [
    None,
    {},
    {"a": 1},
    {"a": "1"},
    {"a": None},
    {"nowhere": None},
    {"nowhere": 1},
    {"a": {"$eq": 1}},
    {"a": {"$eq": None}},
    {"a": 2, "nowhere": None},
    {"a": 1, "b": "text"},
]


def filled(memory: Any) -> Any:
    for number, value in enumerate(VALUES):
        memory.put(("docs", str(number % 2)), f"k{number}", value)
    memory.put(("docs",), "top", {"a": 1})
    memory.put(("other", "docs"), "k", {"a": 1})
    memory.delete(("docs", "0"), "k0")
    memory.delete(("docs", "0"), "never there")
    return memory


@pytest.fixture(scope="module")
def rivals() -> Any:
    with SqliteStore.from_conn_string(":memory:") as opened:
        opened.setup()
        yield {"memory": filled(InMemoryStore()), "sqlite": filled(opened)}


def keys(found: Any) -> Any:
    return sorted([(item.namespace, item.key, str(item.value)) for item in found])


@pytest.mark.parametrize(
    ("kind", "filter"),
    [*[("memory", one) for one in MEMORY_FILTERS + SHARED_FILTERS], *[("sqlite", one) for one in SHARED_FILTERS]],
    ids=str,
)
def test_searches_find_what_the_frameworks_stores_find(store: perdure.sync.Store, rivals: Any, kind: str, filter: Any) -> None:
    """With each filter, prefix, limit and offset the same items are found as in the framework's store."""
    mine, theirs = filled(PerdureStore(store)), rivals[kind]
    assert mine.search(("doc",), filter=filter) == []  # Older stores of the framework take the beginning of a label.
    for prefix in ((), ("docs",), ("docs", "1"), ("other",), ("nowhere",)):
        assert keys(mine.search(prefix, filter=filter, limit=100)) == keys(theirs.search(prefix, filter=filter, limit=100))
    for limit, offset in ((0, 0), (2, 0), (2, 3), (100, 5), (5, 100)):
        found = [len(memory.search((), filter=filter, limit=limit, offset=offset)) for memory in (mine, theirs)]
        assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_gets_and_namespaces_are_the_frameworks(store: perdure.sync.Store, rivals: Any, kind: str) -> None:
    """Items that are there, were deleted or never were, and listings of namespaces by prefix, suffix and depth, are the same."""
    mine, theirs = filled(PerdureStore(store)), rivals[kind]
    options: list[dict[str, Any]] = [
        {},
        {"prefix": ("docs",)},
        {"suffix": ("docs",)},
        {"prefix": ("*", "docs")},
        {"prefix": ("docs",), "suffix": ("1",)},
        {"max_depth": 1},
        {"max_depth": 2, "prefix": ("docs",)},
        {"limit": 2},
        {"limit": 2, "offset": 1},
        {"limit": 0},
    ]
    for option in options:
        assert mine.list_namespaces(**option) == theirs.list_namespaces(**option)
    for namespace, key in ((("docs", "0"), "k2"), (("docs", "0"), "k0"), (("docs",), "top"), (("docs",), "k2"), (("nowhere",), "k")):
        found = [memory.get(namespace, key) for memory in (mine, theirs)]
        assert (found[0] and found[0].value) == (found[1] and found[1].value)


def test_a_mapping_and_a_namespace_of_any_sequence_are_taken(store: perdure.sync.Store) -> None:
    """What a batch passes directly may be a read-only mapping, and lists for namespaces: it is found as if they were dicts and tuples."""
    memory, value = PerdureStore(store), MappingProxyType({"a": 1})
    memory.batch([PutOp(["users", "7"], "k", value)])  # type: ignore[arg-type]
    got, found = memory.batch([GetOp(["users", "7"], "k"), SearchOp(["users"])])  # type: ignore[arg-type]
    assert got.value == {"a": 1} and got.namespace == ("users", "7") and [item.key for item in found] == ["k"]
    assert isinstance(got.value, Mapping)
