"""What tests of `draft.state` share: documents, calls as functions, and a change with the operations that it makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from perdure.model.state import apply
from perdure.model.tracked import Tracker
from perdure.model.values import freeze, same, thaw

KEYS = ["", "a", "b", "~", "a/b", "é"]
ATOMS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, -0.0, 1.0, 1e300, 2**70, "", "a", "~/é"])
JSONS = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4))
DOCUMENTS = st.dictionaries(st.sampled_from(KEYS), JSONS, max_size=5)


def assign(node: Any, key: Any, value: Any) -> None:
    node[key] = value


def delete(node: Any, key: Any) -> None:
    del node[key]


def add_in_place(node: Any, key: Any, value: Any) -> None:
    node[key] += value


def edited(document: Any, change: Callable[[Any], Any]) -> list[list[Any]]:
    """The operations, as on the wire, of a change to a document; they are checked to lead where a plain document goes."""
    base, plain = freeze(document), thaw(document)
    tracker = Tracker(base)
    change(tracker.root)
    change(plain)
    ops = tracker.ops()
    assert same(apply(base, ops), plain)
    assert same(base, document)
    return [[one.kind, one.path, one.value] for one in ops]


DOC: dict[str, Any] = {
    "n": 1,
    "deep": {"count": {"x": 1}},
    "log": [{"i": 0}, {"i": 1}, {"i": 2}],
    "l": [3, 1, 2],
    "a/b": {"~": {"": [1]}},
    "é": -0.0,
    "big": 10**40,
}
