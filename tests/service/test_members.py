"""JSON in which an object has a member twice is refused, and no other, however it is written."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Invalid
from perdure.service.call import decode_json

Members = tuple[tuple[str, Any], ...]
"""An object as it is written: its members in order, of which two may have one name."""
TEXT = st.text(alphabet=st.sampled_from(':":\\\\u003aA/{}[],é\U0001f600\n\x00 '), max_size=8)
NAME = st.one_of(st.sampled_from(["a", "b", ":", "\\u003a", ""]), TEXT)
LEAF = st.one_of(TEXT, st.none(), st.booleans(), st.integers(-(1 << 70), 1 << 70), st.floats(allow_nan=False, allow_infinity=False))


def _objects(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(value, max_size=4), st.lists(st.tuples(NAME, value), max_size=4).map(tuple))


VALUE = st.recursive(LEAF, _objects, max_leaves=12)


def has_twins(value: Any) -> bool:
    """Whether some object has two members with one name."""
    if isinstance(value, tuple):
        names = [name for name, _ in value]
        return len({*names}) < len(names) or any(has_twins(each) for _, each in value)
    return isinstance(value, list) and any(map(has_twins, value))


class Writer:
    """Writes values as JSON, each space and each escape by choice."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def write(self, value: Any) -> str:
        """The text of a value."""
        space = self._data.draw(st.sampled_from(["", "", " ", "\n\t"]))
        if isinstance(value, tuple):
            members = [f"{space}{self._text(name)}{space}:{space}{self.write(each)}" for name, each in value]
            return "{" + space + ",".join(members) + space + "}"
        if isinstance(value, list):
            return "[" + space + ("," + space).join(map(self.write, value)) + space + "]"
        return self._text(value) if isinstance(value, str) else json.dumps(value)

    def _text(self, text: str) -> str:
        return '"' + "".join(map(self._character, text)) + '"'

    def _character(self, character: str) -> str:
        units = character.encode("utf-16-be")
        escaped = "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
        if character < " " or character in '"\\':
            short = json.dumps(character)[1:-1]
            return self._data.draw(st.sampled_from([short, escaped]))
        return self._data.draw(st.sampled_from([character, character, escaped, escaped.upper().replace("\\U", "\\u")]))


@given(VALUE, st.data())
def test_a_member_that_stands_twice_is_refused_and_no_other(value: Any, data: st.DataObject) -> None:
    """Whatever is between them, and whether a name or a colon is written as an escape."""
    body = Writer(data).write(value).encode()
    if has_twins(value):
        with pytest.raises(Invalid, match="stands twice"):
            decode_json(body, object)
    else:
        assert decode_json(body, object) == msgspec.json.decode(body)
