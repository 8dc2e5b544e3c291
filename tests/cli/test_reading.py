"""ls, show, log and diff: the same rows for people and for machines."""

from __future__ import annotations

from pathlib import Path

import pytest

import perdure.sync
from tests.cli.conftest import Run


def test_ls_as_json_lines(run: Run, url: str) -> None:
    """Where stdout is no terminal, each session is a JSON object on a line, in the order of ids."""
    ran = run("ls")
    assert (ran.status, ran.err) == (0, "")
    assert [(row["session"], row["version"], row["status"], row["tags"]) for row in ran.rows] == [
        ("hello", 1, "active", {}),
        ("trip-42", 3, "active", {}),
    ]
    assert all(row["updated_at"].endswith("Z") for row in ran.rows)


def test_ls_by_prefix_and_tag(run: Run, url: str) -> None:
    """A prefix and tags choose sessions; --url, --tenant and PERDURE_URL choose the store."""
    with perdure.sync.open(url) as store:
        store.configure("trip-42", tags={"team": "ops"})
    assert [row["session"] for row in run("ls", "tr").rows] == ["trip-42"]
    assert [row["tags"] for row in run("ls", "--tag", "team=ops").rows] == [{"team": "ops"}]
    assert run("ls", "--tenant", "other").rows == []
    assert len(run("ls", "--limit", "1", PERDURE_URL=url).rows) == 1
    assert run("ls", "--tag", "team").status == 2
    (last,) = run("ls", "tr").rows
    assert run("ls", "--updated-after", last["updated_at"]).rows == []
    assert [
        row["session"] for row in run("ls", "--updated-after", "2020-01-01T00:00:00Z", "--updated-before", "2100-01-01T00:00Z").rows
    ] == [
        "hello",
        "trip-42",
    ]
    assert run("ls", "--updated-after", "yesterday").status != 0


def test_ls_as_a_table(run: Run, url: str) -> None:
    """With --no-json people get a table, and a note on stderr when there is nothing."""
    head, *lines = run("ls", "--no-json").out.splitlines()
    assert head.split() == ["session", "version", "status", "updated", "(UTC)", "tags"]
    assert [line.split()[:3] for line in lines] == [["hello", "1", "active"], ["trip-42", "3", "active"]]
    assert "no such sessions" in run("ls", "zzz", "--no-json").err
    assert run("ls", "zzz", "--no-json", "--quiet").err == ""


def test_show_now_and_then(run: Run, url: str) -> None:
    """Show gives the state at the head, at a version or at a time, big integers exact, or the part at a pointer."""
    now = run("show", "trip-42").rows[0]
    assert (now["version"], now["state"]) == (3, {"status": "booked", "offers": [{"id": 7}], "tokens": 2**70})
    assert run("show", "trip-42", "--at", "2").rows[0]["state"]["status"] == "searching"
    assert run("show", "trip-42", "--at", now["updated_at"]).rows[0]["version"] == 3
    assert run("show", "trip-42", "--path", "/offers/0/id").rows[0]["state"] == 7
    assert run("show", "trip-42", "--no-json", "--path", "/offers").out.split() == ["[", "{", '"id":', "7", "}", "]"]


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["trip-42", "--at", "9"], 3, "not_found"),
        (["trip-42", "--at", "1999-01-01T00:00:00Z"], 3, "not_found"),
        (["trip-42", "--at", "2026-01-01T00:00:00"], 6, "invalid"),
        (["trip-42", "--at", "yesterday"], 6, "invalid"),
        (["trip-42", "--path", "/no"], 3, "not_found"),
        (["trip-42", "--path", "no"], 6, "invalid"),
        (["nobody"], 3, "not_found"),
    ],
)
def test_show_says_what_is_wrong(run: Run, url: str, arguments: list[str], status: int, code: str) -> None:
    """What cannot be shown is one line on stderr with its code, and an exit status of its class."""
    ran = run("show", *arguments)
    assert (ran.status, ran.out, ran.err.count("\n")) == (status, "", 1)
    assert ran.err.startswith(f"perdure: {code}: ")


def test_log_newest_first(run: Run, url: str) -> None:
    """Log gives the commits from the newest, whole, bounded by versions, types and a limit."""
    rows = run("log", "trip-42").rows
    assert [row["version"] for row in rows] == [3, 2, 1]
    assert rows[0]["prev"] == rows[1]["hash"] and len(rows[0]["hash"]) == 64
    assert (rows[2]["actor"], rows[2]["key"], rows[2]["kind"]) == ("ana", "k-1", "data")
    assert rows[1]["events"][0]["ops"][0] == {"op": "set", "path": "/status", "value": "searching"}
    assert [row["version"] for row in run("log", "trip-42", "--limit", "1").rows] == [3]
    assert [row["version"] for row in run("log", "trip-42", "--after", "1", "--before", "3").rows] == [2]
    assert [row["version"] for row in run("log", "trip-42", "--types", "message,none").rows] == [1]
    assert [row["version"] for row in run("log", "trip-42", "--oldest-first").rows] == [1, 2, 3]


def test_log_reads_as_people_think(run: Run, url: str) -> None:
    """A message is shown as `role: text` on one line, operations in words, and nothing can steer the terminal."""
    text = run("log", "trip-42", "--no-json").out
    assert "user: Two nights in Lisbon" in text and "set /status" in text and "k-1" in text
    other = run("log", "hello", "--no-json").out
    assert "assistant: hi \\x1b[31m" in other and "\x1b" not in other


def test_log_reads_messages_made_of_parts(run: Run, tmp_path: Path) -> None:
    """A message whose content has a role and parts is shown by its author, its text and the names of the tools it calls."""
    parts = [{"text": "One moment."}, {"function_call": {"name": "search", "args": {"q": "hotel"}}}, {"function_response": {"name": "x"}}]
    with perdure.sync.open(f"sqlite:///{tmp_path}/perdure.db") as store:
        store.append("s", perdure.Event("tool_call", {"author": "planner", "content": {"role": "model", "parts": parts}}))
    assert 'planner: One moment. search(q="hotel") x:' in " ".join(run("log", "s", "--no-json").out.split())


def test_log_of_many_says_how_to_go_on(run: Run, tmp_path: Path) -> None:
    """A table stops at 20 commits and says how to see more; JSON lines are complete."""
    with perdure.sync.open(f"sqlite:///{tmp_path}/perdure.db") as store:
        for number in range(30):
            store.append("s", perdure.Event("step", number))
    ran = run("log", "s", "--no-json")
    assert len(ran.out.splitlines()) == 21 and "--before 11" in ran.err
    assert len(run("log", "s").rows) == 30


def test_diff_between_states(run: Run, url: str) -> None:
    """Diff gives operations that lead from one version to the other, either way round."""
    assert run("diff", "trip-42", "2", "3").rows == [
        {"op": "set", "path": "/status", "value": "booked", "version": None, "actor": None},
        {"op": "set", "path": "/tokens", "value": 2**70, "version": None, "actor": None},
    ]
    assert {row["op"] for row in run("diff", "trip-42", "3", "0").rows} == {"remove"}
    assert run("diff", "trip-42", "2", "--no-json").out.split()[:3] == ["set", "/status", '"booked"']
    assert "same state" in run("diff", "trip-42", "3", "--no-json").err


def test_diff_as_committed(run: Run, url: str) -> None:
    """With --commits the operations are those that were committed, with version and actor, forward only."""
    rows = run("diff", "trip-42", "1", "--commits").rows
    assert [(row["version"], row["actor"], row["op"]) for row in rows] == [
        (2, "planner", "set"),
        (2, "planner", "append"),
        (3, None, "set"),
        (3, None, "add"),
    ]
    assert run("diff", "trip-42", "3", "1", "--commits").status == 6
    assert run("diff", "trip-42", "1", "8", "--commits").status == 3


NO_FILE = [
    ["ls"], ["show", "s"], ["log", "s"], ["diff", "s", "1"], ["fork", "s"], ["verify"], ["doctor"], ["messages", "s"], ["find", "s", "k"],
    ["tag", "s"], ["tag", "s", "a=b"], ["merge", "s", "--into", "t"], ["delete", "s"], ["watch", "s"],
]  # fmt: skip


@pytest.mark.parametrize("command", NO_FILE, ids=" ".join)
def test_reading_makes_no_file(run: Run, tmp_path: Path, command: list[str]) -> None:
    """A command that reads a store which is not there, or an empty file, says so and leaves the folder as it was."""
    ran = run(*command)
    said = ran.err + ran.out
    assert ran.status == 3 and ("does not exist" in said or "There is no file" in said)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "perdure.db").touch()
    assert run(*command).status == 3
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("perdure.db", 0)]
