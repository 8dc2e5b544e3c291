"""archive and restore, and what the other commands show of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"file://{tmp_path}/archive"


def filled(run: Run) -> None:
    for session in ("trip-1", "trip-2", "other"):
        for number in range(4):
            assert run("append", session, "message", "--data", f'"{number}"', "--op", f'["set", "/n", {number}]').status == 0


def test_sessions_go_and_come_back(run: Run, place: str) -> None:
    """Sessions are archived by name or prefix; ls, show and log say it; restore and a write bring them back; verify proves them."""
    filled(run)
    done = run("archive", "trip-1", "--archive", place, "--actor", "ana")
    assert done.status == 0
    (row,) = done.rows
    assert (row["session"], row["ok"], row["version"], row["commits"], row["code"]) == ("trip-1", True, 6, 5, None)
    assert row["segment_bytes"] > 0
    assert [row["commits"] for row in run("--archive", place, "archive", "--prefix", "trip-").rows] == [0, 5]
    assert [row["session"] for row in run("ls", "--status", "archived").rows] == ["trip-1", "trip-2"]
    shown = run("show", "trip-1", "--archive", place).rows[0]
    assert (shown["status"], shown["state"]) == ("archived", {"n": 3})
    assert run("show", "trip-1", "--at", "2", PERDURE_ARCHIVE=place).rows[0]["state"] == {"n": 1}
    text = run("log", "trip-1", "--no-json", "--archive", place).out
    assert "archived: all 5 versions so far" in text
    assert "archive: versions 1 to 5 are about to move" in text
    assert all(row["ok"] for row in run("verify", "--all", "--archive", place).rows)
    assert run("restore", "trip-1", "other", "--archive", place).rows == [
        {"session": "trip-1", "ok": True, "restored": True, "code": None, "problem": None},
        {"session": "other", "ok": True, "restored": False, "code": None, "problem": None},
    ]
    assert "restored: the session is live again" in run("log", "trip-1", "--no-json", "--archive", place).out
    assert run("append", "trip-2", "note", "--archive", place).rows[0]["version"] == 8
    assert [row["status"] for row in run("ls").rows] == ["active"] * 3


def test_what_is_kept_and_dropped(run: Run, place: str) -> None:
    """--keep leaves the newest commits, by number or time; with --drop the others go for good, and no archive is needed."""
    filled(run)
    assert run("archive", "trip-1", "--keep", "1", "--archive", place).rows[0]["commits"] == 3
    assert run("archive", "trip-1", "--keep", "30d", "--archive", place).rows[0]["commits"] == 0
    assert run("archive", "trip-2", "--keep", "1", "--drop").rows[0]["commits"] == 3
    assert "versions up to 3 were dropped" in run("log", "trip-2", "--after", "3", "--no-json").out
    assert run("show", "trip-2", "--at", "1").status == 3
    assert run("verify", "trip-2").status == 0


def test_mistakes(run: Run, place: str, tmp_path: Path) -> None:
    """What cannot be done is said, with an exit code, and nothing is made."""
    assert run("archive", "s", "--archive", place).status == 3
    assert not (tmp_path / "archive").exists()
    filled(run)
    assert run("archive", "trip-1").status == 9
    assert "--archive or PERDURE_ARCHIVE" in run("archive", "trip-1").err
    assert run("archive", "--archive", place).status == 2
    assert run("archive", "trip-1", "--prefix", "x", "--archive", place).status == 2
    assert run("archive", "trip-1", "--drop").status == 2
    assert run("restore").status == 2
    for keep in ("-1", "x", "3y", "1.5d"):
        assert run("archive", "trip-1", f"--keep={keep}", "--archive", place).status == 6
    done = run("archive", "none", "trip-1", "--archive", place)
    assert done.status == 3
    assert [(row["ok"], row["code"]) for row in done.rows] == [(False, "not_found"), (True, None)]
    assert run("show", "trip-1").status == 9
    assert "--archive or PERDURE_ARCHIVE" in run("show", "trip-1").err


@pytest.mark.parametrize("columns", [60, 80, 120, 160])
def test_tables_fit(run: Run, place: str, columns: int) -> None:
    """At any width no line is longer than the terminal, and what is wrong is readable."""
    filled(run)
    for arguments in (("archive", "trip-1", "none", "--archive", place), ("restore", "trip-1", "none", "--archive", place)):
        out = run(*arguments, "--no-json", columns=columns).out
        assert max(map(len, out.splitlines())) <= columns, out
        assert "There is no session" in " ".join(out.split())
