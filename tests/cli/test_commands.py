"""The commands as a shell runs them: what they print for machines, their exit codes, their errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

import perdure
from perdure import Event, op
from perdure.cli import main
from perdure.cli.exits import BY_CODE


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with one session of three commits."""
    url = f"sqlite:///{tmp_path}/store.db"
    with perdure.sync.open(url) as store:
        store.append("trip", Event("message", {"role": "user", "content": "hello"}), actor="ann")
        store.append("trip", Event("priced", None, (op.set("/price", 3),)), key="k1")
        store.append("trip", Event("priced", None, (op.set("/price", 4),)))
        store.configure("trip", tags={"team": "ops"})
    return url


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[Any], str]:
    """Exit code, JSON lines, and what went to standard error."""
    code = main(list(arguments))
    out, errors = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], errors


def test_ls_lists_by_prefix_and_tag(capsys: pytest.CaptureFixture[str], url: str) -> None:
    """`ls` prints a row a session, and honours its filters."""
    code, (row,), _ = run(capsys, "ls", "--url", url, "--tag", "team=ops", "--prefix", "tr")
    assert code == 0
    assert (row["session"], row["version"], row["status"], row["tags"]) == ("trip", 4, "active", {"team": "ops"})
    assert run(capsys, "ls", "--url", url, "--tag", "team=dev")[:2] == (0, [])
    assert run(capsys, "ls", "--url", url, "--tenant", "other")[:2] == (0, [])


def test_show_reads_any_version(capsys: pytest.CaptureFixture[str], url: str) -> None:
    """`show` prints the state at the head and at a version."""
    assert run(capsys, "show", "trip", "--url", url)[1][0]["state"] == {"price": 4}
    assert run(capsys, "show", "trip", "--at", "2", "--url", url)[1][0]["state"] == {"price": 3}
    assert run(capsys, "show", "trip", "--at", "2999-01-01T00:00:00Z", "--url", url)[1][0]["version"] == 4


def test_log_is_newest_first_with_previews(capsys: pytest.CaptureFixture[str], url: str) -> None:
    """`log` prints commits newest first; a message reads as role and text."""
    _, rows, _ = run(capsys, "log", "trip", "--url", url)
    assert [row["version"] for row in rows] == [4, 3, 2, 1]
    assert rows[-1]["what"] == "message user: hello"
    assert rows[-1]["actor"] == "ann"
    assert rows[2]["key"] == "k1"
    assert [
        row["version"] for row in run(capsys, "log", "trip", "--types", "priced", "--oldest-first", "--limit", "1", "--url", url)[1]
    ] == [2]


def test_diff_prints_operations(capsys: pytest.CaptureFixture[str], url: str) -> None:
    """`diff` prints what leads from one version to another."""
    assert run(capsys, "diff", "trip", "2", "3", "--url", url)[1] == [{"op": "set", "path": "/price", "value": 4}]


def test_append_writes_and_respects_its_condition(capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path) -> None:
    """`append` takes data and operations, finds a key's first outcome, and refuses what is stale with --strict."""
    source = tmp_path / "data.json"
    source.write_text('{"from": "file"}')
    code, (row,), _ = run(
        capsys, "append", "trip", "note", "--data", f"@{source}", "--op", '["add", "/price", 1]', "--key", "k9", "--url", url
    )
    assert (code, row["version"], row["durability"]) == (0, 5, "local")
    assert run(capsys, "show", "trip", "--url", url)[1][0]["state"] == {"price": 5}
    code, (row,), _ = run(
        capsys, "append", "trip", "note", "--data", f"@{source}", "--op", '["add", "/price", 1]', "--key", "k9", "--url", url
    )
    assert (row["version"], row["duplicate"]) == (5, True)
    code, _, errors = run(capsys, "append", "trip", "note", "--expect", "2", "--strict", "--url", url)
    assert code == BY_CODE["conflict"]
    assert errors.startswith("perdure: conflict: ")


def test_fork_and_verify(capsys: pytest.CaptureFixture[str], url: str) -> None:
    """`fork` makes a session that reads its parent's past; `verify --all` proves both."""
    _, (row,), _ = run(capsys, "fork", "trip", "--at", "2", "--id", "what-if", "--url", url)
    assert row == {"session": "what-if", "parent": "trip", "version": 2}
    assert run(capsys, "show", "what-if", "--url", url)[1][0]["state"] == {"price": 3}
    code, rows, _ = run(capsys, "verify", "--all", "--url", url)
    assert code == 0
    assert [(row["session"], row["sound"]) for row in rows] == [("trip", True), ("what-if", True)]


def test_verify_finds_a_changed_byte(capsys: pytest.CaptureFixture[str], url: str) -> None:
    """A body changed behind our back makes `verify` and `doctor --deep` fail."""
    connection = apsw.Connection(url.removeprefix("sqlite:///"))
    connection.execute("UPDATE log SET at = at + 1 WHERE version = 2")
    connection.close()
    code, rows, _ = run(capsys, "verify", "trip", "--url", url)
    assert code == BY_CODE["corrupt"]
    assert "Version 2" in rows[0]["error"]
    code, rows, _ = run(capsys, "doctor", "--deep", "--url", url)
    assert code == 1
    assert "error" in [row["verdict"] for row in rows]


def test_doctor_is_content_with_a_sound_store(capsys: pytest.CaptureFixture[str], url: str) -> None:
    """`doctor` says what the store is and exits with 0 when nothing is wrong."""
    code, rows, _ = run(capsys, "doctor", "--deep", "--url", url)
    assert (code, {row["verdict"] for row in rows}) == (0, {"ok"})


def test_a_reading_command_makes_no_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A store that is not there stays so, and the error says where it was looked for."""
    path = tmp_path / "none.db"
    code, _, errors = run(capsys, "ls", "--url", f"sqlite:///{path}")
    assert code == BY_CODE["not_found"]
    assert str(path) in errors
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["show", "nobody"], BY_CODE["not_found"]),
        (["show", "trip", "--at", "noon"], BY_CODE["invalid"]),
        (["show", "trip", "--at", "2026-01-01"], BY_CODE["invalid"]),
        (["append", "trip", "note", "--data", "hello"], BY_CODE["invalid"]),
        (["append", "trip", "note", "--op", "nonsense"], BY_CODE["invalid"]),
        (["append", "trip", "note", "--op", '["fly", "/x", 1]'], BY_CODE["invalid"]),
        (["append", "trip", "note", "--data", "@/no/such/file"], BY_CODE["invalid"]),
        (["ls", "--tag", "team"], BY_CODE["invalid"]),
        (["verify"], BY_CODE["invalid"]),
        (["log"], 2),
        (["fly"], 2),
        (["ls", "--limit", "many"], 2),
    ],
)
def test_errors_are_one_sentence_and_a_code(capsys: pytest.CaptureFixture[str], url: str, arguments: list[str], code: int) -> None:
    """What is wrong goes to standard error, without a traceback, with the documented exit code."""
    found, rows, errors = run(capsys, *arguments, "--url", url)
    assert (found, rows) == (code, [])
    assert errors.startswith("perdure: ")
    assert "Traceback" not in errors


def test_the_program_runs_as_installed(url: str) -> None:
    """`python -m perdure` prints, pipes and exits as the in-process calls do; a reader that stops early is no error."""
    command = [sys.executable, "-m", "perdure", "log", "trip", "--url", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 4
    piped = subprocess.run(f"{' '.join(command)} | head -1", shell=True, capture_output=True, text=True, check=True)
    assert "Traceback" not in piped.stderr


def test_the_environment_names_the_store(capsys: pytest.CaptureFixture[str], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --url, PERDURE_URL is used; without that, perdure.db in the working folder."""
    monkeypatch.setenv("PERDURE_URL", url)
    assert run(capsys, "ls")[1][0]["session"] == "trip"
    monkeypatch.delenv("PERDURE_URL")
    monkeypatch.chdir(Path(url.removeprefix("sqlite:///")).parent)
    Path("store.db").rename("perdure.db")
    assert run(capsys, "ls")[1][0]["session"] == "trip"


def test_the_tour_holds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Every claim of the tour holds here, and it leaves nothing behind."""
    assert main(["tour", str(tmp_path)]) == 0
    assert "Every claim held" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_bench_prints_ratios(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`bench` measures both kinds of work beside the bare engine."""
    code, rows, _ = run(capsys, "bench", "--seconds", "0.2", "--folder", str(tmp_path))
    assert code == 0
    assert len(rows) == 2
    assert all(row["perdure"] > 0 < row["bare"] for row in rows)
