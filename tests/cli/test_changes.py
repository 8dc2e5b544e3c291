"""changes: the commits of all sessions, on stdout as they come, with cursors to go on."""

from __future__ import annotations

import json
from pathlib import Path

import perdure.sync
from perdure import Event
from tests.cli.conftest import Run
from tests.cli.test_watch import following


def test_rows_have_cursors(run: Run, url: str) -> None:
    """As JSON each row names session and cursor, and --after goes on after any of them; --types, --prefix and --limit choose."""
    rows = run("changes").rows
    assert [(row["session"], row["version"]) for row in rows] == [("trip-42", 1), ("trip-42", 2), ("trip-42", 3), ("hello", 1)]
    for number, row in enumerate(rows):
        assert row["cursor"][0] != "-", "It would be an option."
        rest = run("changes", "--after", row["cursor"]).rows
        assert [(one["session"], one["version"]) for one in rest] == [(one["session"], one["version"]) for one in rows[number + 1 :]]
    assert [row["version"] for row in run("changes", "--types", "edited", "--limit", "1").rows] == [2]
    assert [row["session"] for row in run("changes", "--prefix", "hel").rows] == ["hello"]
    assert run("changes", "--limit", "0").out == ""


def test_people_read_a_line_a_commit(run: Run, url: str) -> None:
    """A line has time, session, version, actor and what happened; a table of many ends with how to see more; nothing at all is said."""
    lines = run("changes", "--no-json").out.splitlines()
    assert [line.split()[2:5] for line in lines] == [
        ["trip-42", "1", "ana"], ["trip-42", "2", "planner"], ["trip-42", "3", "-"], ["hello", "1", "-"],
    ]  # fmt: skip
    assert "\x1b" not in "".join(lines)
    with perdure.sync.open(url) as store:
        for number in range(120):
            store.append(f"s{number}", Event("note"))
    ran = run("changes", "--no-json")
    assert len(ran.out.splitlines()) == 100
    assert "There are more" in ran.err
    assert "no such commits" in run("changes", "--no-json", "--prefix", "nothing").err


def test_it_follows(url: str, tmp_path: Path) -> None:
    """With --follow each commit is on stdout before the next is written, of every session, until the limit."""
    with following(tmp_path, "changes", "--follow", "--limit", "7", "--json") as child, perdure.sync.open(url) as store:
        assert child.stdout is not None and child.stderr is not None
        assert [json.loads(child.stdout.readline())["version"] for _ in range(4)] == [1, 2, 3, 1]
        for session in ("hello", "new", "hello"):
            receipt = store.append(session, Event("note"))
            row = json.loads(child.stdout.readline())
            assert (row["session"], row["version"]) == (session, receipt.version)
        assert (child.stdout.read(), child.stderr.read(), child.wait(30)) == ("", "", 0)


def test_mistakes(run: Run, url: str) -> None:
    """A cursor that is none, of another tenant or another store is refused with exit 6, in words of the shell."""
    with perdure.sync.open("sqlite:///other.db") as store:
        store.append("s", Event("note"))
    foreign = run("changes", "--url", "sqlite:///other.db").rows[0]["cursor"]
    mine = run("changes").rows[0]["cursor"]
    for arguments in (["x"], [foreign], [mine, "--tenant", "another"]):
        ran = run("changes", "--after", *arguments)
        assert ran.status == 6 and "cursor" in ran.err and "None" not in ran.err
    assert run("changes", "--tenant", "~default").status == 6
    assert run("changes", "--limit", "-1").status == 6
