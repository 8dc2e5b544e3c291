"""JSON Pointers: what is read, what is refused, and that reading and writing are inverse."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Invalid
from perdure.model.pointer import PATH_BYTES_MAX, PATH_TOKENS_MAX, is_index, join, parse

TOKENS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(["", "~", "/", "~1", "~0", "-", "0"]), max_size=8
)


@pytest.mark.parametrize(
    ("path", "tokens"),
    [
        ("", ()),
        ("/", ("",)),
        ("//", ("", "")),
        ("/foo/0", ("foo", "0")),
        ("/a~1b", ("a/b",)),
        ("/m~0n", ("m~n",)),
        ("/~01", ("~1",)),
        ("/~10", ("/0",)),
        ("/c%d", ("c%d",)),
        ('/ /\\/"', (" ", "\\", '"')),
        ("/straße/日本/🚂", ("straße", "日本", "🚂")),
        ("/l/-", ("l", "-")),
        ("/\0", ("\0",)),
    ],
)
def test_a_pointer_is_read_as_the_rfc_says(path: str, tokens: tuple[str, ...]) -> None:
    """Tokens are unescaped once, from left to right; empty keys and every character of Unicode are keys."""
    assert parse(path) == tokens
    assert join(tokens) == path


@pytest.mark.parametrize(
    "path", ["a", "a/b", "#/a", "~", "/~", "/a~2", "/a/~", "/~~0", "/\ud800", "/a\udfff/b", None, 7, b"/a", ("a",), ["/a"]]
)
def test_a_malformed_pointer_is_invalid(path: Any) -> None:
    """No leading slash, a bad escape, a lone surrogate or another type is refused by name."""
    with pytest.raises(Invalid):
        parse(path)


def test_length_and_depth_are_bounded() -> None:
    """The longest and the deepest pointer are read, one byte or token more is refused; bytes count, not characters."""
    assert parse("/" + "a" * (PATH_BYTES_MAX - 1)) == ("a" * (PATH_BYTES_MAX - 1),)
    assert len(parse("/a" * PATH_TOKENS_MAX)) == PATH_TOKENS_MAX
    for path in ("/" + "a" * PATH_BYTES_MAX, "/a" * (PATH_TOKENS_MAX + 1), "/" + "ä" * (PATH_BYTES_MAX // 2)):
        with pytest.raises(Invalid):
            parse(path)


@given(TOKENS)
def test_parse_undoes_join(tokens: list[str]) -> None:
    """Whatever the keys hold, the pointer made of them names them again."""
    assert parse(join(tokens)) == tuple(tokens)


def test_an_index_has_one_spelling() -> None:
    """Only ASCII digits without a leading zero are an index, so that no two pointers name one element."""
    assert [token for token in ("0", "7", "10", "12345678901234567890") if not is_index(token)] == []
    assert [token for token in ("", "00", "01", "-1", "+1", "1.0", " 1", "1_0", "²", "٣", "-", "x") if is_index(token)] == []
