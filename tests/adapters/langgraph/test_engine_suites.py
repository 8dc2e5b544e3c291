"""The tests of LangGraph's engine and of the agents built on it, run as they are with their SQLite savers swapped for ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.adapters.framework_suites import environment, fetched
from tests.support.adapters.suite_outcomes_plugin import RESULTS

pytestmark = pytest.mark.fetched


class Part(NamedTuple):
    """Test files of a suite that are run together, less some, and how many of their tests take an SQLite saver at least."""

    package: str
    files: str
    count: int
    less: tuple[str, ...] = ()


PARTS = {
    "engine": Part("langgraph", "tests/test_pregel.py", 250),
    "engine, async": Part("langgraph", "tests/test_pregel_async.py", 130),
    "engine, large cases": Part("langgraph", "tests/test_large_cases*.py", 45),
    "engine, the rest": Part("langgraph", "tests/test_*.py", 600, less=("test_pregel.py", "test_pregel_async.py", "test_large_cases*.py")),
    "prebuilt": Part("langgraph-prebuilt", "tests/test_*.py", 46),
    "agents": Part("langchain", "tests/unit_tests/agents/**/test_*.py", 2),
}

TIMED = {
    "test_stream_buffering_single_node": "asserts at which tenth of a second each chunk comes",
    "test_imp_nested": "asserts the order in which two tasks stream, of which one sleeps for 10 ms: on a busy machine the other is slower",
}
"""Tests of the engine's that depend on time, and why. One that fails runs once more, with nothing beside it."""


def ran(package: str, results: Path, tests: Sequence[str], strict: str, *plugins: str) -> tuple[list[str], list[str], str]:
    """Run tests of a suite: those that passed, those that failed, and the end of the output."""
    options = ["-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider", "-o", "anyio_mode=auto", "-q", "--tb=short", "-k", "sqlite"]
    for plugin in ("suite_outcomes_plugin", *plugins):
        options += ["-p", plugin]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        check=False,
        cwd=fetched(package),
        env=environment(**{RESULTS: results}, NO_DOCKER="true", LANGGRAPH_TEST_FAST="false", LANGGRAPH_STRICT_MSGPACK=strict),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert results.exists(), done.stdout[-3_000:] + done.stderr[-3_000:]
    outcome = json.loads(results.read_text())
    return outcome["passed"], outcome["failed"], done.stdout[-6_000:]


def taking_savers(part: Part) -> list[str]:
    """The files of a part that take a saver."""
    folder = fetched(part.package)
    found = [path for path in sorted(folder.glob(part.files)) if not any(map(path.match, part.less))]
    return [str(path.relative_to(folder)) for path in found if re.search("sync_checkpointer|sqlite", path.read_text())]


CLASSES, STRICT = "false", "true"
"""Whether LangGraph's serializer makes any class again, as it does unless it is told otherwise, or those alone that were allowed."""
OTHERWISE = pytest.mark.slow("the same tests as in the ordinary tier, by the serializer's other way")


@pytest.mark.parametrize(
    ("part", "strict"),
    [
        *[pytest.param(part, CLASSES, id=f"{name}-any class") for name, part in PARTS.items()],
        *[pytest.param(PARTS[name], STRICT, id=f"{name}-strict msgpack") for name in ("prebuilt", "agents")],
        *[pytest.param(part, STRICT, id=f"{name}-strict msgpack", marks=OTHERWISE) for name, part in PARTS.items() if "engine" in name],
    ],
)
def test_what_passes_with_the_frameworks_saver_passes_with_ours(part: Part, strict: str, tmp_path: Path) -> None:
    """Each test that takes an SQLite saver passes with PerdureSaver in its place, or fails with the framework's own saver as well."""
    passed, failed, output = ran(part.package, tmp_path / "ours", taking_savers(part), strict, "langgraph_engine_plugin")
    assert len(passed) + len(failed) >= part.count, output
    if timed := [name for name in failed if name.partition("::")[2].partition("[")[0] in TIMED]:
        by_itself, _, _ = ran(part.package, tmp_path / "timed", timed, strict, "langgraph_engine_plugin")
        failed = [name for name in failed if name not in by_itself]
    if failed:
        with_theirs, _, _ = ran(part.package, tmp_path / "theirs", failed, strict)
        assert set(failed).isdisjoint(with_theirs), output
