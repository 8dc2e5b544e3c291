"""One scenario, by Python and by the TypeScript client, each on a node of its own: the same results."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.servers.node import Nodes
from tests.support.service.programs import ENTRY, Programs
from tests.support.service.scenario import as_in_python

FOLDER = Path(__file__).parent
STEPS = json.loads((FOLDER / "scenario.json").read_text())


async def test_a_scenario_has_the_same_results_in_both_languages(programs: Programs, nodes: Nodes, tmp_path: Path) -> None:
    """Versions, states, pages, streams, leases and errors, with ids of any characters; and each session can be read by the other one."""
    command = [programs.node, str(FOLDER / "scenario_in_node.mjs"), str(ENTRY), nodes.url, str(FOLDER / "scenario.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    ours = await as_in_python(theirs, STEPS, nodes, tmp_path)
    assert {result["error"] for result in ours if isinstance(result, dict) and "error" in result} >= {
        "Conflict", "KeyReused", "NotFound", "AlreadyExists", "Held", "Fenced", "Deleted", "Invalid",
    }  # fmt: skip
