"""`perdure spool`: what waits in a spool, at any width and as JSON; retry and drop, without the store."""

from __future__ import annotations

from pathlib import Path

import pytest

import perdure.sync
from perdure import Event, op
from tests.cli.conftest import Run
from tests.support.engine.flaky import Flaky

SPOOL = "sqlite:///spool.db"


@pytest.fixture
def waiting(url: str, tmp_path: Path) -> str:
    """A store with a spool in which trip-42 has a failed entry and two parked ones, and hello a queued one."""
    with perdure.sync.open(url, spool=f"sqlite:///{tmp_path}/spool.db") as store:
        store.enqueue("trip-42", Event("booked", {"seat": "4A"}, (op.test("/status", "free"),)), key="booking-1", actor="planner")
        store.enqueue("trip-42", Event("message", {"text": "\x1b[31m"}), Event("tool_called"), key="m-1")
        store.enqueue("trip-42", Event("message", {}), key="m-2")
        while store.flush(timeout=0.05).failed == 0:
            pass
        Flaky(store.asynchronous).away = True
        store.enqueue("hello", Event("message", {}), key="m-3")
    return url


def keys(run: Run, *arguments: str) -> list[tuple[str, str]]:
    return [(row["key"], row["state"]) for row in run("spool", "ls", SPOOL, *arguments).rows]


def test_ls(run: Run, waiting: str) -> None:
    """JSON has everything of an entry but its content; a session, a key, a number and a limit choose; another tenant has nothing there."""
    rows = run("spool", "ls", SPOOL).rows
    assert [(row["n"], row["session"], row["key"], row["state"]) for row in rows] == [
        (1, "trip-42", "booking-1", "failed"),
        (2, "trip-42", "m-1", "parked"),
        (3, "trip-42", "m-2", "parked"),
        (4, "hello", "m-3", "queued"),
    ]
    assert (rows[0]["error"], rows[0]["actor"], rows[1]["types"]) == ("conflict", "planner", ["message", "tool_called"])
    assert "'/status'" in rows[0]["message"] and rows[0]["at"].endswith("Z") and rows[0]["bytes"] > 0
    assert keys(run, "--session", "hello") == keys(run, "--key", "m-3") == keys(run, "--entry", "4") == [("m-3", "queued")]
    assert len(keys(run, "--limit", "2")) == 2
    assert keys(run, "--tenant", "acme") == []


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
def test_a_table_fits(run: Run, waiting: str, columns: int) -> None:
    """At every width each entry's number, session and state are there in full, no line is too long, and failures say why below."""
    lines = run("spool", "ls", SPOOL, "--no-json", columns=columns).out.splitlines()
    assert [line.split()[:3] for line in lines[1:5]] == [
        ["1", "trip-42", "failed:"],
        ["2", "trip-42", "parked"],
        ["3", "trip-42", "parked"],
        ["4", "hello", "queued"],
    ]
    assert max(len(line) for line in lines[:5]) <= columns
    assert lines[5] == "1: A test on '/status' does not hold in session 'trip-42'."
    assert ("booking-1" in lines[1]) == (columns == 160)


def test_retry_and_drop(run: Run, waiting: str) -> None:
    """Retry queues what failed, and what is parked follows; drop removes failed and parked entries and nothing that is queued."""
    assert run("spool", "retry", SPOOL, "--key", "booking-1").rows == [{"action": "retry", "entries": 1}]
    assert {state for _, state in keys(run)} == {"queued"}
    assert run("spool", "drop", SPOOL, "--key", "m-3").status == 3
    with perdure.sync.open(waiting, spool=SPOOL) as store:
        while store.flush(timeout=0.05).failed == 0:
            pass
    assert run("spool", "drop", SPOOL, "--entry", "1", "--no-json").out == "1 write is dropped\n"
    assert keys(run) == [("m-1", "queued"), ("m-2", "queued")]
    with perdure.sync.open(waiting, spool=SPOOL) as store:
        assert store.flush(timeout=60).entries == 0
        assert store.queued("trip-42", "m-1").receipt().version == 4
    assert run("spool", "drop", SPOOL, "--all").rows == [{"action": "drop", "entries": 0}]
    assert "Nothing waits there" in run("spool", "ls", SPOOL, "--no-json").err


def test_bad_input(run: Run, waiting: str, tmp_path: Path) -> None:
    """What is no spool, what is not there and what says too little end with an error and its code; nothing is made or changed."""
    assert run("spool", "ls", "sqlite:///nothing.db").status == 3
    assert not (tmp_path / "nothing.db").exists()
    assert run("spool", "ls", "sqlite:///perdure.db").status == 6
    assert run("spool", "ls", "memory:").status == 6
    assert run("spool", "retry", SPOOL).status == run("spool", "drop", SPOOL).status == 2
    assert run("spool", "wipe", SPOOL).status == run("spool").status == 2
    assert run("spool", "retry", SPOOL, "--key", "m-1").status == 3
    assert run("spool", "ls", SPOOL, "--limit", "-1").status == 6
    assert len(keys(run)) == 4
