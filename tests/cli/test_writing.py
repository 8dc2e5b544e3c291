"""append and fork."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_append_starts_a_store(run: Run, tmp_path: Path) -> None:
    """The first append makes the file and answers with the receipt; data comes as a word, from a file or from stdin."""
    (tmp_path / "data.json").write_text('{"from": "file"}')
    first = run("append", "s", "message", "--data", '{"role": "user"}', "--actor", "ana").rows[0]
    assert (first["session"], first["version"], first["durability"], first["duplicate"]) == ("s", 1, "local", False)
    assert len(first["hash"]) == 64 and len(first["id"]) == 36 and first["at"].endswith("Z")
    assert run("append", "s", "note", "--data", "@data.json", "--no-json").out == "s version 2, durability local\n"
    assert run("append", "s", "note", "--data", "-", stdin="-5").status == 0
    assert run("append", "s", "note", "--data", "-7", "--quiet", "--no-json").out == ""
    assert [row["events"][0]["data"] for row in run("log", "s").rows] == [-7, -5, {"from": "file"}, {"role": "user"}]


def test_append_changes_the_state(run: Run) -> None:
    """Operations are given as arrays or as objects and are applied in their order."""
    run("append", "s", "start", "--op", '["set", "/a", 1]', "--op", '{"op": "append", "path": "/l", "value": [1]}')
    run("append", "s", "more", "--op", '["add", "/a", 2]', "--op", '["remove", "/l"]')
    assert run("show", "s").rows[0]["state"] == {"a": 3}


def test_append_once(run: Run) -> None:
    """A second call with the same key answers with the first one's receipt; with another payload it is refused."""
    first = run("append", "s", "paid", "--key", "k").rows[0]
    again = run("append", "s", "paid", "--key", "k").rows[0]
    assert again == {**first, "duplicate": True}
    assert "applied before" in run("append", "s", "paid", "--key", "k", "--no-json").out
    assert run("append", "s", "unpaid", "--key", "k").status == 6


def test_append_on_a_version(run: Run) -> None:
    """--expect 0 refuses a session that is there; an old version merges, or conflicts and writes nothing."""
    run("append", "s", "one", "--op", '["set", "/a", 1]')
    run("append", "s", "two", "--op", '["set", "/a", 2]')
    taken = run("append", "s", "x", "--expect", "0")
    assert taken.status == 4 and taken.err.startswith("perdure: already_exists: ")
    clash = run("append", "s", "x", "--expect", "1", "--op", '["set", "/a", 3]')
    assert clash.status == 4 and clash.err.startswith("perdure: conflict: ")
    assert run("append", "s", "x", "--expect", "1", "--on-conflict", "raise").status == 4
    assert run("append", "s", "x", "--expect", "1", "--op", '["set", "/b", 3]').rows[0]["version"] == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["s", "note", "--data", "hello"],
        ["s", "note", "--data", "@missing"],
        ["s", "note", "--data", "-"],
        ["s", "note", "--op", "set /a 1"],
        ["s", "note", "--op", '["set"]'],
        ["s", "note", "--op", '["sett", "/a", 1]'],
        ["s", "note", "--op", '{"op": "set", "path": "/a", "valeu": 1}'],
        ["s", "note", "--expect", "-1"],
        ["s", ""],
        ["", "note"],
        ["a\nb", "note"],
    ],
)
def test_append_refuses(run: Run, arguments: list[str]) -> None:
    """Bad input is one line on stderr and exit 6; nothing is written."""
    ran = run("append", *arguments)
    assert (ran.status, ran.out, ran.err.count("\n")) == (6, "", 1)
    assert ran.err.startswith("perdure: invalid: ")
    assert run("ls").out == ""


def test_fork(run: Run, url: str) -> None:
    """A fork goes on from a version, under a name or a fresh id, and has the parent's state there."""
    row = run("fork", "trip-42", "--at", "2", "--id", "what-if").rows[0]
    assert row == {"session": "what-if", "parent": "trip-42", "at": 2, "version": 3}
    assert run("show", "what-if").rows[0]["state"]["status"] == "searching"
    name = run("fork", "trip-42", "--no-json", "--quiet").out.strip()
    assert json.loads(run("ls", name).out)["session"] == name
    assert run("fork", "trip-42", "--id", "what-if").status == 4
    assert run("fork", "trip-42", "--at", "99").status == 3
