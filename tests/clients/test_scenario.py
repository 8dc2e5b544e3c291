"""One scenario, by Python and by the TypeScript client, each on a node of its own: the same results."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import perdure
from tests.servers.node import Nodes
from tests.support.service.programs import ENTRY, Programs
from tests.support.service.scenario import run_scenario

FOLDER = Path(__file__).parent
STEPS = json.loads((FOLDER / "scenario.json").read_text())


async def test_a_scenario_has_the_same_results_in_both_languages(programs: Programs, nodes: Nodes, tmp_path: Path) -> None:
    """Versions, states, pages, streams, leases and errors, with ids of any characters; and each session can be read by the other one."""
    command = [programs.node, str(FOLDER / "scenario_in_node.mjs"), str(ENTRY), nodes.url, str(FOLDER / "scenario.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    others = Nodes(tmp_path / "others")
    try:
        others.start()
        async with perdure.open(others.url) as store:
            ours = await run_scenario(store, STEPS)
            states = {info.session: (await store.read(info.session)).state async for info in store.list()}
    finally:
        others.stop()
    assert len(theirs) == len(STEPS)
    for step, one, other in zip(STEPS, ours, theirs, strict=True):
        assert one == other, step
    assert {result["error"] for result in ours if isinstance(result, dict) and "error" in result} >= {
        "Conflict", "KeyReused", "NotFound", "AlreadyExists", "Held", "Fenced", "Deleted", "Invalid",
    }  # fmt: skip
    async with perdure.open(nodes.url) as store:
        assert {info.session: (await store.read(info.session)).state async for info in store.list()} == states
