"""Session ids made of a framework's ids: reversible, never colliding, refused with both numbers when too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.adapters.common.session_ids import compose, decompose, escape, unescape
from perdure.errors import Invalid
from perdure.model.ids import check_name

PARTS = st.lists(st.text(st.characters(), max_size=12), min_size=1, max_size=4)


@given(PARTS)
def test_parts_come_back(parts: list[str]) -> None:
    """Whatever the parts hold, separators, control characters and half emojis too, the id is valid and gives the same parts."""
    id = compose("An id", "x", *parts)
    assert check_name("An id", id) == id
    assert decompose(id, len(parts) + 1) == ("x", *parts)


@given(PARTS, PARTS)
def test_two_lists_of_parts_are_two_ids(mine: list[str], theirs: list[str]) -> None:
    """Different parts never make one id."""
    assert (compose("An id", *mine) == compose("An id", *theirs)) == (mine == theirs)


def test_readable_parts_stay_readable() -> None:
    """Letters, spaces and signs stand as they are; only %, / and what no id may hold are written in hexadecimal."""
    assert compose("An id", "adk", "my app", "ann@example.com", "größe") == "adk/my app/ann@example.com/größe"
    assert escape("50%/a\n") == "50%25%2Fa%0A"
    assert escape("cut \ud83d") == "cut %ED%A0%BD"
    assert unescape("%ED%A0%BD%ED%B8%80") == "\ud83d\ude00"
    assert [unescape(text) for text in ("%2f", "%41", "%", "%FF", "a%2Fb")] == [None, None, None, None, "a/b"]


def test_an_id_that_nobody_composed_has_no_parts() -> None:
    """Another number of parts, or an escape that `escape` would not write, gives `None`."""
    assert decompose("a/b", 3) is None
    assert decompose("a/%41", 2) is None


def test_what_cannot_be_a_name_is_refused() -> None:
    """Too long is refused with both numbers, a part that is no string by its type."""
    with pytest.raises(Invalid, match=r"needs 303 bytes .* at most 255"):
        compose("An id", "a" * 100, "é" * 101)
    with pytest.raises(Invalid, match="not of int"):
        compose("An id", 1)
