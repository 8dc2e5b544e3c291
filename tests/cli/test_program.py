"""The program around the commands: help, exit codes, terminals, pipes, interrupts, the tour and the benchmark."""

from __future__ import annotations

import inspect
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import perdure
from perdure.cli.app import app
from perdure.cli.commands.tour import STEPS
from perdure.cli.exits import EXITS, status_of
from tests.cli.conftest import SOURCE, Run


def test_help_lists_commands_and_exit_codes(run: Run) -> None:
    """--help names every command and every exit status; each command has help of its own, with the common options."""
    ran = run("--help")
    assert ran.status == 0
    for command in ("tour", "ls", "show", "log", "watch", "diff", "append", "fork", "verify", "doctor", "bench", "completion"):
        assert f"│ {command}  " in ran.out
    assert all(f"{exit.status:>3}  " in ran.out for exit in EXITS)
    assert "--tenant" in run("log", "--help").out
    assert run("--version").out.strip() == perdure.__version__


def test_every_error_has_one_exit_status() -> None:
    """Each error code of the library stands in the table exactly once; an unknown one is 1."""
    codes = [code for exit in EXITS for code in exit.codes]
    errors = [getattr(perdure, name) for name in perdure.__all__]
    wanted = {error.code for error in errors if isinstance(error, type) and issubclass(error, perdure.Error)}
    assert sorted(codes) == sorted(wanted | {"usage"})
    assert len({exit.status for exit in EXITS}) == len(EXITS)
    assert (status_of("conflict"), status_of("corrupt"), status_of("new")) == (4, 7, 1)


@pytest.mark.parametrize(
    "arguments", [["lss"], ["ls", "--tga", "x=y"], ["show"], ["diff", "s", "one"], ["completion", "cobol"], ["bench", "nowhere"]]
)
def test_usage_errors(run: Run, arguments: list[str]) -> None:
    """A wrong command line is one line on stderr and exit 2."""
    ran = run(*arguments)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith("perdure: usage: ")


@pytest.mark.parametrize("url", ["nosuch://x", "perdure.db", "sqlite://x.db", "sqlite:///x.db?speed=9"])
def test_bad_urls(run: Run, url: str, tmp_path: Path) -> None:
    """A URL that nobody serves, or that is malformed, is `invalid`, for reading and for writing; no file is made."""
    for command in (["ls"], ["append", "s", "note"]):
        ran = run(*command, "--url", url)
        assert ran.status == 6 and ran.err.startswith("perdure: invalid: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run: Run, shell: str) -> None:
    """The completion script names the commands."""
    ran = run("completion", shell)
    assert ran.status == 0 and "verify" in ran.out and "--tenant" in ran.out


def test_a_table_on_a_terminal(url: str, tmp_path: Path) -> None:
    """On a terminal the answer is a table and long work shows progress, without being asked for."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-m", "perdure", "verify"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # how Linux says that the other end has closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert child.returncode == 0
    assert b"verifying" in shown and b"trip-42" in shown and b"{" not in shown


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    """When the reader closes the pipe the command ends quietly with 141."""
    with perdure.sync.open(f"sqlite:///{tmp_path}/perdure.db") as store:
        for _ in range(20):
            store.append("s", perdure.Event("note", "x" * 100_000))
    for command in (["log", "s"], ["--help"]):
        child = subprocess.Popen(
            [sys.executable, "-W", "error", "-u", "-m", "perdure", *command],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(SOURCE)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert child.stdout is not None and child.stderr is not None
        child.stdout.close()
        errors = child.stderr.read()
        child.stderr.close()
        assert (child.wait(60), errors) == (141, b"")


def test_ctrl_c(tmp_path: Path) -> None:
    """Ctrl-C is exit 130, without a traceback, and the tour's files are gone."""
    child = subprocess.Popen(
        [sys.executable, "-m", "perdure", "tour", str(tmp_path), "--pause", "60"],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - background jobs of a shell ignore it
    )  # fmt: skip
    assert child.stdout is not None
    while b"state:" not in child.stdout.readline():
        assert child.poll() is None
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (130, b"")
    assert list(tmp_path.iterdir()) == []


def test_the_tour_passes(run: Run, tmp_path: Path) -> None:
    """Every claim of the tour holds; the code that is shown is the code of the step; nothing is left behind."""
    ran = run("tour", str(tmp_path))
    assert ran.status == 0 and ran.err == ""
    assert "lost: 0" in ran.out and "Conflict on /status" in ran.out and "Every claim held" in ran.out
    assert "did not hold" not in ran.out
    assert list(tmp_path.iterdir()) == []


def test_the_tour_through_a_service(run: Run, tmp_path: Path) -> None:
    """The same steps with the URL of a node in place of the file's, whatever a user's environment says of nodes; nothing is left behind."""
    ran = run("tour", str(tmp_path), "--service", PERDURE_SSL_CERTFILE="/missing.pem", PORT="1")
    assert ran.status == 0 and ran.err == ""
    assert "A node serves the file at http://127.0.0.1:" in ran.out and "lost: 0" in ran.out and "Every claim held" in ran.out
    assert list(tmp_path.iterdir()) == []


def test_why_a_service_does_not_start(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tour says what the node said, as a sentence; nothing is left behind."""
    (tmp_path / "path" / "uvicorn").mkdir(parents=True)
    (tmp_path / "path" / "uvicorn" / "__init__.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/path{os.pathsep}{SOURCE}")
    (tmp_path / "tour").mkdir()
    ran = run("tour", str(tmp_path / "tour"), "--service")
    assert (ran.status, ran.out) == (9, "")
    assert ran.err.startswith("perdure: unsupported: perdure serve needs packages") and "{" not in ran.err
    assert list((tmp_path / "tour").iterdir()) == []


def test_the_tour_for_machines(run: Run, tmp_path: Path) -> None:
    """With --json each step is an object with code and claims; with --keep the files stay: a sound store and a tampered copy."""
    ran = run("tour", str(tmp_path), "--keep", "--json")
    assert ran.status == 0 and [row["number"] for row in ran.rows] == list(range(1, len(STEPS) + 1))
    assert all(claim["held"] for row in ran.rows for claim in row["claims"])
    assert all(row["code"] and row["claims"] for row in ran.rows)
    (folder,) = tmp_path.iterdir()
    archive = (folder / "archive").as_uri()
    assert run("verify", "--url", f"sqlite:///{folder}/agents.db", "--archive", archive).status == 0
    assert run("verify", "--url", f"sqlite:///{folder}/agents.db.copy").status == 7


def test_bench_small(run: Run, tmp_path: Path) -> None:
    """Bench measures four works against bare SQLite and the disk, gives their ratios, and removes its files."""
    ran = run("bench", str(tmp_path), "--seconds", "0.01")
    assert ran.status == 0 and len(ran.rows) == 4
    assert all(row["perdure"] > 0 and row["bare"] > 0 and row["ratio"] > 0 for row in ran.rows)
    assert list(tmp_path.iterdir()) == []
    assert json.loads(ran.out.splitlines()[0])["unit"] == "turns/s"
    assert run("bench", str(tmp_path), "--seconds", "0").status == 2


def test_a_command_that_fails_leaves_the_streams_of_its_process_alone(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`run` is called from programs too: what they print after a command that failed is still seen."""
    from perdure.cli import run as run_here

    assert run_here(["show", "none", "--url", f"sqlite:///{tmp_path}/none.db"]) == 3
    print("after it", flush=True)
    assert capfd.readouterr().out == "after it\n"


def test_no_help_breaks_in_the_middle_of_a_sentence() -> None:
    """Each paragraph of a command's help is one line of its docstring: a terminal wraps it, at whatever width it has."""
    for name in app:
        if name.startswith("-"):
            continue
        text = inspect.getdoc(app[name].default_command) or ""
        assert text, name
        for paragraph in text.partition("\n\nParameters\n---")[0].split("\n\n"):
            assert "\n" not in paragraph, paragraph


def test_a_command_that_refuses_names_its_own_help(run: Run, url: str) -> None:
    """What a command asks for is in that command's help, and the message leads there."""
    assert run("delete", "hello").status == 0
    ran = run("purge", "hello")
    assert (ran.status, ran.err.strip().endswith("See `perdure purge --help`.")) == (2, True), ran.err
