"""Where the bytes of a value are."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perdure.model.pointer import parse
from perdure.model.weights import Weight, heaviest_path, heavy_parts, weigh

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
    max_leaves=40,
)


def at(value: Any, path: str) -> Any:
    for token in parse(path):
        value = value[int(token)] if isinstance(value, list) else value[token]
    return value


@given(VALUES)
def test_weights_are_those_of_json(value: Any) -> None:
    """Each part that is named is there, and weighs what its JSON weighs; containers come first; nothing heavy is left out."""
    parts = heavy_parts(value, least=0.2, limit=100)
    whole = len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass"))
    assert abs(weigh(value) - whole) <= 5 * whole, "escapes of control characters may differ"
    seen = set()
    for part in parts:
        found = at(value, part.path)
        assert (part.bytes, part.members) == (weigh(found), len(found) if isinstance(found, (dict, list)) else None)
        assert part.path == "" or part.path.rpartition("/")[0] in seen
        assert part.bytes >= 0.2 * weigh(value) or part.path == ""
        seen.add(part.path)
    assert [part.bytes for part in parts] == sorted((part.bytes for part in parts), reverse=True)


@given(VALUES)
def test_the_heaviest_path_has_the_most_at_each_level(value: Any) -> None:
    """Each step of the path is the heaviest member, with more than half of its container; below its end no member has that."""
    end = heaviest_path(value)
    tokens, here = parse(end.path), value
    for token in tokens:
        members = here.values() if isinstance(here, dict) else here
        below = here[token] if isinstance(here, dict) else here[int(token)]
        assert weigh(below) == max(map(weigh, members))
        assert weigh(below) > weigh(here) / 2
        here = below
    assert end.bytes == weigh(here)
    if isinstance(here, (dict, list)):
        assert all(weigh(member) <= weigh(here) / 2 for member in (here.values() if isinstance(here, dict) else here))


def test_where_it_ends() -> None:
    """A list of many light members is the end, and a single heavy text is one."""
    assert heaviest_path({"messages": ["x" * 50] * 100, "a": 1}) == Weight("/messages", 100 * 53 + 1, 100)
    assert heaviest_path({"a/b": {"~": "x" * 1_000}, "c": [1]}).path == "/a~1b/~0"
    assert heaviest_path({}) == Weight("", 2, 0)
    assert heaviest_path(7) == Weight("", 1, None)
    assert [part.path for part in heavy_parts({"a": ["x" * 90], "b": "y" * 5}, least=0.5, limit=2)] == ["", "/a"]
