"""Session ids in paths."""

from __future__ import annotations

from urllib.parse import quote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Invalid
from perdure.model.ids import check_name
from perdure.wire.paths import segment, session_of


def is_id(text: str) -> bool:
    try:
        check_name("id", text)
    except Invalid:
        return False
    return True


ODD = [".", "..", "=", "=x", "a/b", "%2F", "~", "é" * 127, "x" * 255]
IDS = st.one_of(st.text(min_size=1, max_size=80), st.sampled_from(ODD)).filter(is_id)
CODED = ["", "=", "==", "=YQ==", "=Y", "=YR", "=_w", "=gICA", "=AA"]
PERCENT = ["%", "%2", "%zz", "%ff", "%00", "%0a", "a%7f", "x" * 256, "x" * 2000, "é"]


@given(IDS)
def test_every_id_comes_back_from_its_segment(id: str) -> None:
    """The segment gives the id again, and holds nothing that a URL parser would read otherwise."""
    found = segment(id)
    assert session_of(found) == id
    assert urlsplit(f"http://h/v1/sessions/{found}/commits").path == f"/v1/sessions/{found}/commits"
    assert urljoin("http://h/", f"/v1/sessions/{found}") == f"http://h/v1/sessions/{found}"


@given(IDS)
def test_percent_encoding_is_read_where_it_arrives(id: str) -> None:
    """An id that is percent-encoded as a whole, and does not begin with '=', is the same id."""
    coded = quote(id, safe="")
    assert session_of(coded) == id


def test_plain_ids_stand_as_they_are() -> None:
    """What needs no coding has none; dots and a leading '=' have."""
    for id in ("trip-42", "a.b", "user:7@host", "~x", "..."):
        assert segment(id) == id
    for id in (".", "..", "=x", "a b", "a/b", "a%b", "日本", "a+b"):
        assert segment(id).startswith("=")


@pytest.mark.parametrize("bad", [*CODED, *PERCENT])
def test_what_is_no_segment_is_refused(bad: str) -> None:
    """Base64 that is padded, cut or not canonical, bytes that are no UTF-8, control characters and what is too long are `Invalid`."""
    with pytest.raises(Invalid):
        session_of(bad)
