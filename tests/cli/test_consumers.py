"""consumers: how far they are, what they have parked, and what becomes of it."""

from __future__ import annotations

import pytest

import perdure
import perdure.sync
from perdure import Change, Event, ops
from tests.cli.conftest import Run


def index(changes: list[Change]) -> None:
    """A handler that fails on one commit."""
    if any((change.session, change.commit.version) == ("trip-42", 2) for change in changes):
        raise ValueError("too long")


@pytest.fixture
def consumed(url: str) -> str:
    """The store with a consumer that has parked a session, and for which two commits wait, one of them of that session."""
    with perdure.sync.open(url) as store:
        ops.consume(store, "indexer", index, attempts=1, follow=False)
        store.append("hello", Event("note"))
        store.append("trip-42", Event("note"))
    return url


def test_consumers_are_listed(run: Run, consumed: str) -> None:
    """Rows have name, position, lag and what is parked; people see the same, with a name each session that is parked."""
    (row,) = run("consumers").rows
    assert (row["name"], row["code"], row["handled"], row["session"], row["version"]) == ("indexer", "index", 2, "hello", 1)
    assert (row["waiting"], row["problem"]) == (1, None)
    (parked,) = row["parked"]
    assert {name: parked[name] for name in ("session", "first", "last", "error", "retry")} == {
        "session": "trip-42", "first": 2, "last": 3, "error": "ValueError: too long", "retry": False,
    }  # fmt: skip
    head, line, *rest = run("consumers", "--no-json").out.splitlines()
    assert head.split()[:4] == ["name", "handled", "waiting", "parked"]
    assert line.split()[:4] == ["indexer", "2", "1", "1"] and line.split()[-2:] == ["hello", "1"] and not rest
    assert "trip-42       2-3" in run("consumers", "indexer", "--no-json").out
    assert "has no consumers" in run("consumers", "--tenant", "another", "--no-json").err


def test_parked_ones_are_retried_dropped_and_forgotten(run: Run, consumed: str) -> None:
    """--retry asks the consumer, --drop gives up, --forget removes; what is not there is exit 3."""
    assert run("consumers", "--retry", "indexer", "--session", "hello").status == 3
    assert run("consumers", "--retry", "indexer").rows == [{"name": "indexer", "action": "retry", "sessions": 1}]
    assert run("consumers").rows[0]["parked"][0]["retry"]
    assert "asked" in run("consumers", "indexer", "--no-json").out
    with perdure.sync.open(consumed) as store:
        assert ops.consume(store, "indexer", index, attempts=1, follow=False).parked == 1
    assert not run("consumers").rows[0]["parked"][0]["retry"]
    assert (
        run("consumers", "--drop", "indexer", "--session", "trip-42", "--no-json").out == "indexer gave up what was parked of 1 session\n"
    )
    assert run("consumers").rows[0]["parked"] == []
    assert run("consumers", "--forget", "indexer", "--no-json").out == "indexer was forgotten\n"
    assert run("consumers").rows == []
    for option in ("--retry", "--drop", "--forget"):
        ran = run("consumers", option, "indexer")
        assert ran.status == 3 and "no consumer 'indexer'" in ran.err
    assert run("consumers", "indexer").status == 3


def test_mistakes(run: Run, consumed: str) -> None:
    """Two actions, an action beside a name, or a session without an action are usage errors, and nothing is done."""
    for arguments in (["--retry", "a", "--drop", "a"], ["a", "--forget", "a"], ["--session", "s"], ["--forget", "a", "--session", "s"]):
        assert run("consumers", *arguments).status == 2
    assert len(run("consumers").rows) == 1
