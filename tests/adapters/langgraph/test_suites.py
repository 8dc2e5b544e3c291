"""The tests of the framework's SQLite store and saver, run unchanged on ours; what does not apply is named with a reason, counted."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from langgraph.checkpoint.conformance import capabilities

from tests.support.adapters.framework_suites import environment, fetched

pytestmark = pytest.mark.fetched

PACKAGE = "langgraph-checkpoint-sqlite"
STORE = {
    "tests/test_store.py::test_vector_store_initialization": "looks for the tables of SQLite's vector extension",
    "tests/test_store.py::test_sql_injection_vulnerability": "asks that odd filter keys be refused: here a key is data, in no SQL",
    "tests/test_async_store.py::test_no_running_loop": "asks that blocking calls fail where a loop runs: here they are served",
}
REWRITES = "puts other content under the id of a checkpoint that is there: refused here, for a checkpoint never changes"
DELTA = {
    "tests/test_get_delta_channel_history.py::test_seed_present_when_snapshot_in_ancestor_sync": REWRITES,
    "tests/test_delta_parent_walk.py::test_walk_terminates_when_put_makes_the_parent_chain_cycle": REWRITES,
    "tests/test_delta_parent_walk.py::test_walk_step_looks_up_the_parent_by_primary_key": "asks SQLite for the plan of the saver's query",
}
FROM_THE_REPOSITORY = "delta_channel_history"
"""The capability that test_conformance_delta.py asks for; the released conformance kit, 0.0.2, does not know it."""


def ran(swap: str, files: list[str], excluded: dict[str, str]) -> tuple[int, dict[str, int], str]:
    """Run files of the suite with a plugin that swaps what they test: exit code, counts, output."""
    pytest_here = [sys.executable, "-m", "pytest", "-p", swap, "-p", "no:cacheprovider", "-o", "anyio_mode=auto", "-q", "--rootdir", "."]
    done = subprocess.run(
        [*pytest_here, *[f"--deselect={case}" for case in excluded], *files],
        check=False,
        cwd=fetched(PACKAGE),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    summary = done.stdout.splitlines()[-1] if done.stdout else done.stderr
    return done.returncode, {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", summary)}, done.stdout[-3_000:]


def test_the_store_suite_passes() -> None:
    """All of test_store.py and test_async_store.py passes, but for what is listed: two of those run on a memory and on a file store."""
    code, counts, output = ran("langgraph_store_plugin", ["tests/test_store.py", "tests/test_async_store.py"], STORE)
    assert code == 0, output
    assert (counts["passed"], counts["deselected"]) == (134, 5)


def test_the_delta_suite_passes() -> None:
    """The saver's tests of delta channels pass: histories, walks to parents of any ids, threads that had another kind of channel before."""
    files = ["tests/test_get_delta_channel_history.py", "tests/test_delta_parent_walk.py", "tests/test_delta_channel_migration.py"]
    code, counts, output = ran("langgraph_saver_plugin", files, DELTA)
    assert code == 0, output
    assert (counts["passed"], counts["deselected"]) == (16, 3)


def test_the_delta_conformance_passes_where_the_kit_has_it() -> None:
    """test_conformance_delta.py passes; with a released kit that lacks the capability it can only say so."""
    code, counts, output = ran("langgraph_saver_plugin", ["tests/test_conformance_delta.py"], {})
    if FROM_THE_REPOSITORY in [capability.value for capability in capabilities.Capability]:
        assert (code, counts["passed"]) == (0, 1), output
    else:
        assert counts["failed"] == 1 and f"'{FROM_THE_REPOSITORY}' is not a valid Capability" in output, output
