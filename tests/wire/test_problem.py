"""Errors as problem documents."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

import perdure
from perdure.service.refusals import PreconditionRequired
from perdure.wire.problem import KINDS, error_of, problem


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_an_error_comes_back_as_its_own_class(kind: type[perdure.Error]) -> None:
    """Each kind survives its document, with what it says and its facts."""
    error = kind("It went wrong.", session="s", expected=3, paths=("/a", "/b"))
    document = msgspec.json.decode(msgspec.json.encode(problem(error, "ab")))
    found = error_of(document)
    assert type(found) is kind
    assert (found.detail, found.session, found.paths, found.trace_id) == ("It went wrong.", "s", ["/a", "/b"], "ab")
    assert document["status"] == kind.http_status and document["code"] == kind.code


def test_statuses_say_whether_it_may_have_been_done() -> None:
    """`Unknown` is 504 and `Unavailable` 503: proxies send a 503 again as "not done". A reused key is 422."""
    kinds = perdure.Unknown, perdure.Unavailable, perdure.KeyReused, perdure.Conflict, perdure.Held, perdure.Fenced
    assert [kind.http_status for kind in kinds] == [504, 503, 422, 409, 423, 409]


def test_facts_that_json_cannot_say_are_left_out() -> None:
    """Bytes become hexadecimal, times RFC 3339; objects and functions do not leave the process."""
    said = problem(perdure.Error("x", hash=b"\x01", at=datetime(2026, 1, 1, tzinfo=UTC), thing=object(), ask=print, inner={"a": object()}))
    assert said["facts"] == {"hash": "01", "at": "2026-01-01T00:00:00.000000Z", "inner": {}}


ERRORS = [
    perdure.Busy("It moved.", advice="Ask the planner."),
    perdure.Busy("It moved.", advice=""),
    perdure.Busy("It moved."),
    perdure.Busy(),
    PreconditionRequired("Say which version."),
    PreconditionRequired("Say which version.", advice=""),
    PreconditionRequired(),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_error_comes_back_with_what_it_said(error: perdure.Error) -> None:
    """Detail and advice, also where there is none, and a kind that clients do not know. Advice is no fact, and never empty."""
    document = msgspec.json.decode(msgspec.json.encode(problem(error)))
    assert str(error_of(document)) == str(error)
    assert document["facts"] == {} and document.get("advice") != ""
    assert document["detail"] + (f" {document['advice']}" if "advice" in document else "") == str(error)
    if type(error) is perdure.Busy:
        assert error_of(document).facts == error.facts  # type: ignore[union-attr]


FOREIGN = [None, [], "x", {}, {"type": "about:blank", "detail": "x"}, {"type": "urn:perdure:error:Conflict"}, {"type": 3}]


@pytest.mark.parametrize("document", FOREIGN)
def test_what_is_no_problem_of_ours_is_no_error_of_ours(document: object) -> None:
    """A document that a proxy made is not believed."""
    assert error_of(document) is None


def test_an_error_of_a_later_version_is_an_error() -> None:
    """A kind that this version does not know is an `Error` with what it says."""
    found = error_of({"type": "urn:perdure:error:Newer", "detail": "d", "facts": {"a": 1}})
    assert type(found) is perdure.Error and found.detail == "d" and found.a == 1
