"""Any string as one that can be stored, and back: lossless, unambiguous, and nothing happens to ordinary text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perdure.adapters.common.surrogates import END, MARK, escape, is_plain, unescape
from perdure.model.values import check
from tests.support.adapters.unusual_values import HALVES

TEXTS = st.text(st.one_of(st.characters(), st.sampled_from("\ud800\ud83d\udfff\ude00df80" + MARK + END)), max_size=20)
VALUES = st.recursive(
    st.one_of(TEXTS, st.none(), st.booleans(), st.integers()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)


@given(VALUES)
@example(f"{MARK}d83d{END}")
@example(f"{MARK}fdd0{END}d83d{END}")
@example("\ud83d\ude00")
def test_every_value_comes_back(value: Any) -> None:
    """What is escaped is fit for the store and comes back equal, also what looks like an escape; escaped twice, in two steps."""
    stored = escape(value)
    check(stored)
    assert unescape(stored) == value
    assert unescape(unescape(escape(stored))) == value


def test_the_spelling_in_the_store_stays() -> None:
    """Half an emoji, both halves apart, a byte that was no UTF-8, a mark of the text's own, a key: stored as here for ever."""
    assert escape("cut \ud83d") == "cut \ufdd0d83d\ufdd1"
    assert escape("\ud83d\ude00") == "\ufdd0d83d\ufdd1\ufdd0de00\ufdd1"
    assert escape({"\udcff": ["\ufdd0", "\ufdd1"]}) == {"\ufdd0dcff\ufdd1": ["\ufdd0fdd0\ufdd1", "\ufdd1"]}


@given(TEXTS, TEXTS)
def test_two_texts_are_two(one: str, other: str) -> None:
    """No two texts look alike in the store: keys stay as many as they were."""
    assert (escape(one) == escape(other)) == (one == other)


@pytest.mark.parametrize("value", ["", "plain", "größe 世界 😀", {"ä": ["é", 1, None, 1.5, {"k": True}]}, f"{END}d83d"])
def test_ordinary_text_is_the_very_same_object(value: Any) -> None:
    """Nothing is copied and nothing changes where there is nothing to escape."""
    assert is_plain(value)
    assert escape(value) is value
    assert unescape(value) is value


@pytest.mark.parametrize("text", [MARK, f"{MARK}d83d", f"{MARK}D83D{END}", f"{MARK}c83d{END}", f"{MARK}0041{END}", f"{MARK}{END}"])
def test_text_from_before_is_read_as_ever(text: str) -> None:
    """A mark that begins no escape is read as it stands: it was stored before there were escapes."""
    assert unescape(text) == text
    assert unescape(escape(text)) == text


def test_what_no_store_takes_is_left_to_the_store() -> None:
    """Containers that hold themselves, nesting without end, tuples and objects neither hang nor raise here."""
    ring: dict[str, Any] = {"half": "\ud83d"}
    ring |= {"a": ring, "b": [ring, ring]}
    deep: list[Any] = ["\ud83d"]
    for _ in range(50_000):
        deep = [deep, deep]
    for value in (ring, deep, ("\ud83d", {"\ud83d"}), {b"\xff": object(), 1: "\ud83d"}):
        unescape(escape(value))
    assert escape(("\ud83d",)) == (f"{MARK}d83d{END}",)


@pytest.mark.parametrize("half", HALVES)
def test_the_halves_that_the_adapters_are_tested_with_are_no_text(half: str) -> None:
    """None of them can be encoded, or else looks like an escape: so a test with them can fail."""
    assert not is_plain(half)
