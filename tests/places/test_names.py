"""Names of objects: safe everywhere, and different for different texts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Invalid
from perdure.places.names import check_object_name, object_name

NASTY = [
    "",
    ".",
    "..",
    "a/b",
    "../../etc/passwd",
    "con",
    "CON",
    "nul",
    "Trip",
    "trip",
    "trip ",
    "ä",
    "a" * 255,
    "A" * 255,
    "%2e",
    "=61",
    "\\",
    "~",
    "*?:",
]


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_different_texts_have_different_names(one: str, two: str) -> None:
    """No two texts share a name, not even where the case of letters does not count; each name is a plain path of one part."""
    names = object_name(one), object_name(two)
    assert (names[0].casefold() == names[1].casefold()) == (one == two)
    for name in names:
        assert re.fullmatch(r"[a-z0-9_=-]+", name)
        assert len(name) <= 255
        assert check_object_name(name) == name


def test_nasty_texts() -> None:
    """What is special to a file system or a URL is in no name, and no two of these names are equal."""
    names = [object_name(text) for text in NASTY]
    assert len({*names}) == len(NASTY)
    assert not {"", ".", "..", "con", "nul"} & {*names}
    assert object_name("blobs", "acme", "trip-42") == "blobs/acme/trip-42"
    assert object_name("a/b", "c") != object_name("a", "b/c")


@pytest.mark.parametrize(
    "name", ["", "/", "/a", "a/", "a//b", "../a", "a/../b", ".a", "A", "a b", "a%", "a\n", "x" * 256, "x/" * 600, None, b"a"]
)
def test_other_names_are_refused(name: object) -> None:
    """A name that no place could hold safely is `Invalid`, before anything is asked."""
    with pytest.raises(Invalid, match="no name of an object"):
        check_object_name(name)  # type: ignore[arg-type]
