"""watch: commits on stdout as they come, until the session ends or the reader has enough."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import perdure.sync
from perdure import Event
from tests.cli.conftest import SOURCE, Run


def following(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A command under way; Ctrl-C reaches it also where a shell has started the tests in the background."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "NO_COLOR": "1"}
    command = [sys.executable, "-W", "error", "-m", "perdure", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - background jobs of a shell ignore it
    )  # fmt: skip


def test_commits_come_as_json_lines_while_others_write(url: str, tmp_path: Path) -> None:
    """Each commit is on stdout before the next is written, into a pipe too; a tombstone ends it with 0."""
    with following(tmp_path, "watch", "trip-42", "--after", "1") as child, perdure.sync.open(url) as store:
        assert child.stdout is not None and child.stderr is not None
        assert [json.loads(child.stdout.readline())["version"] for _ in range(2)] == [2, 3]
        for version in (4, 5):
            store.append("trip-42", Event("message", {"role": "user", "content": f"number {version}"}), actor="bo")
            row = json.loads(child.stdout.readline())
            assert (row["version"], row["actor"], row["events"][0]["data"]["content"]) == (version, "bo", f"number {version}")
        store.delete("trip-42")
        assert json.loads(child.stdout.readline())["kind"] == "tombstone"
        assert (child.stdout.read(), child.stderr.read(), child.wait(30)) == ("", "", 0)


def test_people_read_a_line_a_commit(run: Run, url: str) -> None:
    """Without --after the newest ten come first; --types and --limit choose; what could steer a terminal is shown as escapes."""
    with perdure.sync.open(url) as store:
        for number in range(20):
            store.append("hello", Event("note", number), *[Event("more")] * 4)
    lines = run("watch", "hello", "--limit", "3", "--no-json").out.splitlines()
    assert [line.split()[0] for line in lines] == ["12", "13", "14"]
    assert lines[0].endswith("-  note: 10  more  more  and 2 more")
    assert run("watch", "trip-42", "--types", "edited", "--after", "0", "--limit", "1", "--no-json").out.split()[:1] == ["2"]
    assert "hi \\x1b[31m" in run("watch", "hello", "--after", "0", "--limit", "1", "--no-json").out
    assert run("watch", "hello", "--limit", "0").out == ""


def test_what_is_not_there(run: Run, url: str) -> None:
    """A session that is missing or deleted is told at once, with its exit code; nothing waits for ever."""
    assert run("watch", "nobody").status == 3
    assert run("watch", "hello", "--after", "9").status == 4
    assert run("watch", "hello", "--after", "x").status == 2
    with perdure.sync.open(url) as store:
        store.delete("hello")
    assert run("watch", "hello").status == 3


def test_an_interrupt_ends_it(url: str, tmp_path: Path) -> None:
    """Ctrl-C while it waits: no traceback, exit 130."""
    with following(tmp_path, "watch", "hello") as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert (child.wait(30), "Traceback" in child.stderr.read()) == (130, False)
