"""What leaves the program, whatever was stored and wherever it goes: no traceback, nothing that steers a terminal, no table that hides."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

import perdure.sync
from perdure import Event, op, ops
from perdure.cli.output.text import clean, json_line
from tests.cli.conftest import SOURCE, Run

NASTY = (
    "nbsp\u00a0 soft\u00adhyphen \u202eevil \x1b[31m \x9b31m \u2028line \u200bzero \U0001fae9 \U000e0041 [/red] [bold] caf\u00e9 "
    "\U0001f468\u200d\U0001f469"
)
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff\U000e0000-\U000e007f]")
READING = [
    ["ls"], ["show", "nasty"], ["log", "nasty"], ["log", "nasty", "--full"], ["messages", "nasty"], ["diff", "nasty", "0"],
    ["watch", "nasty", "--after", "0", "--limit", "3"], ["verify"], ["tag", "nasty"], ["doctor"],
    ["changes"], ["consumers"], ["consumers", "index\u202e [bold]"],
]  # fmt: skip


@pytest.fixture
def nasty(tmp_path: Path) -> None:
    """A session in which every text that a caller can choose holds what a terminal should not get."""
    with perdure.sync.open(f"sqlite:///{tmp_path}/perdure.db") as store:
        state = (op.set("/x", NASTY), op.set("/\u202e[~1red]", [1]), op.set("/l", [10, 11, 12, 13]))
        said = {"role": "user", "content": NASTY, "tool_calls": 5}
        store.append("nasty", Event("message", said, state), actor="an[bold]na[/bold]", key="k [/x]")
        store.append("nasty", Event("[/red]", {"role": "[/red]", "content": "[bold]x[/] [/nope]", "tool_calls": [5, {"function": 7}]}))
        store.configure("nasty", tags={"tag\u202e[/red]": "\u202evalue \u200b [/x]"})
        store.append("other [/red]\u202e", Event("x"))
        ops.consume(store, "index\u202e [bold]", _refuse, attempts=1, follow=False)


def _refuse(changes: list[perdure.Change]) -> None:
    raise ValueError(NASTY)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
@pytest.mark.parametrize("how", ["--json", "--no-json"])
def test_nothing_stored_steers_a_terminal(run: Run, nasty: None, encoding: str, how: str) -> None:
    """Every reading command shows control, C1, bidirectional and invisible characters as escapes, markup as text, in every encoding."""
    for command in READING:
        ran = run(*command, how, encoding=encoding)
        assert ran.status == 0, (command, ran.err)
        found = STEERING.search(ran.out + ran.err)
        assert found is None, (command, ascii(found))
        if how == "--json":
            assert all(isinstance(row, dict) for row in ran.rows)
    assert run("show", "nasty", "--json", encoding=encoding).rows[0]["state"]["x"] == NASTY
    assert "[/red]" in run("ls", "--no-json", encoding=encoding).out


def test_a_state_on_a_terminal(nasty: None, tmp_path: Path) -> None:
    """On a terminal a state is JSON in colours, whatever characters it holds."""
    shown = on_a_terminal(tmp_path, ["show", "nasty"])
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.replace("\r", ""))
    assert json.loads(plain[plain.index("{\n") :])["x"] == NASTY


def on_a_terminal(folder: Path, command: list[str], columns: int = 100) -> str:
    """What a command shows on a terminal of so many columns; it must succeed."""
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TERM": "xterm-256color", "COLUMNS": str(columns)}
    with subprocess.Popen(
        [sys.executable, "-m", "perdure", *command], cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as child:
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
    assert child.returncode == 0, shown
    return shown.decode()


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
def test_tables_fit_and_hide_nothing_that_is_narrow(run: Run, tmp_path: Path, columns: int) -> None:
    """At any usual width a table shows version, time and actor whole, cuts the last column, and no line is longer than the terminal."""
    with perdure.sync.open(f"sqlite:///{tmp_path}/perdure.db") as store:
        for number in range(12):
            event = Event("message", {"role": "user", "content": "a long question " * 20 + "\U0001f600" * 40})
            store.append("trip-42/" + "long" * 20, event, actor="planner", key=f"{number:064}")
        store.configure("trip-42/" + "long" * 20, tags={"team": "travel" * 8})
    text = run("log", "trip-42/" + "long" * 20, "--no-json", columns=columns).out
    for line in text.splitlines()[1:]:
        assert cells(line) <= columns
    assert re.search(r"^ +12  .*\d\d:\d\d.*  planner .*user: a long question", text, re.MULTILINE)
    with perdure.sync.open(f"sqlite:///{tmp_path}/perdure.db") as store:
        ops.consume(store, "index" * 12, _refuse, attempts=1, follow=False)
    for command in (
        ["ls"], ["verify"], ["messages", "trip-42/" + "long" * 20], ["diff", "trip-42/" + "long" * 20, "0"], ["changes"], ["consumers"],
        ["consumers", "index" * 12],
    ):  # fmt: skip
        shown = run(*command, "--no-json", columns=columns).out
        assert all(cells(line) <= columns for line in shown.splitlines()), command
    assert re.search(r"13 +(active)? *.*\d\d:\d\d", run("ls", "--no-json", columns=columns).out)


def cells(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line.rstrip())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", [["ls"], ["show", "trip-42"], ["log", "trip-42", "--no-json"], ["--help"], ["completion", "bash"]])
def test_a_full_device(url: str, tmp_path: Path, command: list[str]) -> None:
    """Output that cannot be written is one line on stderr and exit 1; an error that cannot be said keeps its exit status."""
    shell = f"{sys.executable} -W error -m perdure"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    ran = subprocess.run(
        f"{shell} {' '.join(command)} > /dev/full", check=False, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (1, "perdure: error: The output could not be written: No space left on device.\n")
    silent = subprocess.run(f"{shell} show nobody 2> /dev/full > /dev/full", check=False, shell=True, cwd=tmp_path, env=environment)
    assert silent.returncode == 3


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(url: str, tmp_path: Path, closed: str) -> None:
    """With stdout or stderr closed a command does its work, and the store is not what it writes its words into."""
    shell = f"{sys.executable} -W error -m perdure append s note --no-json {closed}"
    subprocess.run(shell, check=True, shell=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(SOURCE)})
    with perdure.sync.open(url) as store:
        assert store.verify("s").commits == 1


def test_the_first_line_of_much(run: Run, tmp_path: Path) -> None:
    """A reader that takes one line gets it; the rest ends with 141 and without a word."""
    with perdure.sync.open(f"sqlite:///{tmp_path}/perdure.db") as store:
        for _ in range(100):
            store.append("s", Event("note", "x" * 10_000))
    for how in ("--json", "--no-json"):
        line = f"{sys.executable} -W error -m perdure log s {how} --limit 100 | head -1; echo ${{PIPESTATUS[0]}}"
        ran = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True
        )
        assert ran.stderr == "" and ran.stdout.splitlines()[-1] in ("141", "0")
        assert how == "--no-json" or ran.stdout.endswith("\n141\n")


@pytest.mark.parametrize("argument", [b"\xff\xfe", b"a\x9bb", "\u202e".encode(), b"[/red]", b"\xed\xa0\x80"])
def test_arguments_of_any_bytes(run: Run, url: str, argument: bytes) -> None:
    """Whatever bytes stand on the command line, what comes back is a result or one printable line with a code."""
    word = os.fsdecode(argument)
    append = ["append", "s", "x"]
    for command in (
        ["show", word], ["append", word, "x"], ["append", "s", word], [*append, "--data", word], [*append, "--data", f"@{word}"],
        [*append, "--op", word], ["ls", word], ["ls", "--tag", f"{word}={word}"], ["tag", "hello", word], ["tag", "hello", f"x={word}"],
        ["show", "hello", "--path", f"/{word}"], ["show", "hello", "--at", word], ["ls", "--url", word], ["ls", "--url", f"sqlite:///{word}"],
        [word], ["ls", f"--{word}"], ["ls", "--limit", word], ["ls", "--tenant", word], ["log", "hello", "--types", word],
        ["find", "hello", word], ["import", "langgraph", word], ["import", word, "x"], ["bench", word], ["completion", word],
        ["delete", word], ["merge", word, "--into", word],
    ):  # fmt: skip
        ran = run(*command, "--json")
        assert STEERING.search(ran.out + ran.err.removesuffix("\n")) is None and ran.err.isascii(), (command, ran)
        if ran.status and ran.err:
            (error,) = ran.err.splitlines()
            assert json.loads(error)["code"] != "error", (command, error)


def test_errors_as_json(run: Run, url: str) -> None:
    """With --json an error is one object on stderr with its code, its words, whether to try again, the exit status and its facts."""
    ran = run("show", "nobody", "--json")
    error = json.loads(ran.err)
    assert (ran.status, ran.out, error["code"], error["exit"], error["retryable"]) == (3, "", "not_found", 3, False)
    assert error["facts"] == {"session": "nobody"} and "nobody" in error["message"]
    usage = json.loads(run("log", "--json").err)
    assert (usage["code"], usage["exit"]) == ("usage", 2)
    run("append", "s", "one", "--op", '["set", "/a", 1]')
    run("append", "s", "two", "--op", '["set", "/a", 2]')
    clash = json.loads(run("append", "s", "x", "--expect", "1", "--op", '["set", "/a", 3]', "--json").err)
    assert (clash["code"], clash["facts"]["paths"], clash["facts"]["actual"]) == ("conflict", ["/a"], 2)
    assert json.loads(run("--json", "show", "nobody").err)["code"] == "not_found"


CASES: list[Any] = [
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "caf\u00e9 \u00a0 \U0001fae9",
]


@pytest.mark.parametrize("text", CASES)
def test_what_only_looks_special_stays(text: str) -> None:
    """Joined emoji, joiners within words of scripts that need them, no-break spaces and new characters are shown as they are."""
    assert clean(text) == text


def test_escapes_are_valid_json() -> None:
    """A line of JSON holds printable characters alone, and is the same value when it is read; halves of a pair included."""
    value = {"x\u202e": NASTY, "half": "\udcff \ud83d"}
    line = json_line(value)
    assert line.isprintable() and json.loads(line) == value
