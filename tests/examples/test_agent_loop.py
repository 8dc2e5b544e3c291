"""The example agent: it answers, goes on after being killed anywhere, does nothing twice, and works with a rival on the same session."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import perdure
from examples import agent_loop

ROOT = Path(__file__).resolve().parents[2]
ASKED = perdure.Event("message", {"role": "user", "content": "Two nights in Rome, please."})
DONE = {"bookings": [9], "spent": 95}


def program(place: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """The example in a process of its own; `before` runs first."""
    code = f"import runpy, sys\n{before}\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PERDURE_URL": f"sqlite:///{place}/agents.db"}
    command = [sys.executable, "-W", "error", "-c", code, str(ROOT / "examples" / "agent_loop.py"), *arguments]
    return subprocess.run(command, cwd=place, env=environment, text=True, capture_output=True, check=False)


def test_the_program_answers_and_the_conversation_goes_on(tmp_path: Path) -> None:
    """Run twice on one file, it books twice, and the second answer rests on the first conversation."""
    for spent in (95, 190):
        done = program(tmp_path, "Two nights in Rome, please.")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[0] == "Done: room 9 is booked." and f"'spent': {spent}" in done.stdout
    assert program(tmp_path).stdout.splitlines()[0] == "Done: room 9 is booked."


@pytest.mark.parametrize("commit", range(1, 7))
def test_killed_behind_any_commit_it_goes_on_and_books_once(tmp_path: Path, commit: int) -> None:
    """`kill -9` right after the n-th commit; run again without the question, the agent comes to the same end."""
    before = (
        "import os, perdure.engine.write.committer as made\n"
        "whole, count = made.Committer.commit, [0]\n"
        "async def commit(self, change):\n"
        "    receipt = await whole(self, change)\n"
        "    count[0] += 1\n"
        f"    os.kill(os.getpid(), 9) if count[0] == {commit} else None\n"
        "    return receipt\n"
        "made.Committer.commit = commit\n"
    )
    killed = program(tmp_path, "Two nights in Rome, please.", before=before)
    assert killed.returncode == -signal.SIGKILL
    done = program(tmp_path)
    assert done.stdout.splitlines() == ["Done: room 9 is booked.", str(DONE)], done.stderr


async def test_a_tool_whose_work_is_done_is_not_called_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time a call is acted on, its receipt is found before the tool runs."""
    calls = []

    monkeypatch.setitem(agent_loop.TOOLS, "count", lambda state: calls.append(1) or "counted")
    async with perdure.open("memory:") as store:
        for _ in range(2):
            await agent_loop.act(store, "s", {"id": "call-1", "name": "count", "args": {}})
        assert (await store.read("s")).version == len(calls) == 1


async def test_two_workers_on_one_session_do_the_work_of_one(tmp_path: Path) -> None:
    """Three workers go on with one session at once: one answer stands for each question, and the room is booked once."""

    async def slow(messages: list[Any]) -> Any:
        await asyncio.sleep(0.01)
        return await agent_loop.model(messages)

    async with perdure.open(f"sqlite:///{tmp_path}/agents.db") as store:
        await store.append("s", ASKED)
        answers = await asyncio.gather(*[agent_loop.run(store, "s", slow) for _ in range(3)])
        assert set(answers) == {"Done: room 9 is booked."}
        assert (await store.read("s")).state == DONE
        messages, _ = await agent_loop.read(store, "s")
        assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
