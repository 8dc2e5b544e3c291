"""Several processes on one session: dense versions, nothing lost, each key applied once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import perdure

PROCESSES, TASKS, TURNS = 4, 8, 6

WRITER = """
import asyncio, sys
import perdure
from perdure import Event, op

async def main(url, process, tasks, turns):
    async with perdure.open(url) as store:
        async def task(number):
            for turn in range(turns):
                # Every key is sent by this process and by the next one.
                for owner in (process, (process + 1) % 4):
                    name = f"{owner}-{number}-{turn}"
                    ops = (op.add("/count", 1), op.append("/names", [name]))
                    await store.append("shared", Event("turn", {"name": name}, ops), key=name)
                async with store.edit("shared") as draft:
                    draft.add("/edits", 1)
                    draft.state.setdefault("by", {}).setdefault(f"p{process}-{number}", []).append(turn)
        await asyncio.gather(*[task(number) for number in range(tasks)])

asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
"""


async def test_four_processes_race_on_one_session(tmp_path: Path) -> None:
    """Every turn of every task is in the chain exactly once, versions are dense, and the state equals what was done."""
    url = f"sqlite:///{tmp_path}/store.db"
    commands = [[sys.executable, "-c", WRITER, url, str(process), str(TASKS), str(TURNS)] for process in range(PROCESSES)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    ends = [(process.communicate(timeout=240)[1], process.returncode) for process in running]
    assert [code for _, code in ends] == [0] * PROCESSES, "\n".join(text[-600:] for text, _ in ends)
    async with perdure.open(url) as store:
        view = await store.read("shared")
        names = {f"{process}-{task}-{turn}" for process in range(PROCESSES) for task in range(TASKS) for turn in range(TURNS)}
        assert view.state["count"] == len(names)
        assert sorted(view.state["names"]) == sorted(names)
        assert view.state["edits"] == len(names)
        assert view.state["by"] == {f"p{process}-{task}": list(range(TURNS)) for process in range(PROCESSES) for task in range(TASKS)}
        versions = [commit.version async for commit in store.history("shared")]
        assert versions == list(range(1, 2 * len(names) + 1))
        await store.verify("shared")
