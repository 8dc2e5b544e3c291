"""Strands' own tests, unchanged, in a process in which the stores that they make are Perdure's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.adapters.framework_suites import environment, fetched

pytestmark = pytest.mark.fetched

ONLY_IN_MEMORY = "clear() belongs to InMemoryStorage, not to the Storage protocol: one call that empties a durable store is not offered"
EXCLUDED = {
    "TestInMemoryStorage::test_clear": ONLY_IN_MEMORY,
    "TestInMemoryStorage::test_namespace_clear_only_clears_prefix": ONLY_IN_MEMORY,
}
CASES = {
    "tests/strands/session/test_repository_session_manager.py": 51,
    "tests/strands/session/test_snapshot_session_manager.py": 117,
    "tests/strands/storage/test_in_memory_storage.py": 21,
}


@pytest.fixture(scope="module")
def folder() -> Path:
    """Where the suite was fetched to."""
    return fetched("strands-agents")


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.parametrize("file", CASES, ids=lambda file: Path(file).stem)
def test_strands_own_tests_pass(folder: Path, file: str, engine: str, tmp_path: Path) -> None:
    """Every case of the file passes on Perdure, but for those that are named here with their reason; none goes missing."""
    excluded = [f"--deselect={file}::{name}" for name in EXCLUDED if "storage" in file]
    plugins = ["-p", "strands_stores_plugin", "-p", "no:cacheprovider"]
    pytest_here = [sys.executable, "-m", "pytest", *plugins, "-c", os.devnull, "-q", "-W", "ignore"]
    done = subprocess.run(
        [*pytest_here, "--rootdir", str(folder), str(folder / file), *excluded],
        cwd=folder,
        env=environment(folder, HOME=tmp_path, PERDURE_SUITE_ENGINE=engine, PERDURE_SUITE_PLACE=tmp_path),
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    summary = done.stdout.splitlines()[-1]
    assert re.findall(r"(\d+) (\w+)", summary)[0] == (str(CASES[file]), "passed"), summary
    assert f"{len(excluded)} deselected" in summary if excluded else "deselected" not in summary
    assert not re.search(r"failed|error|skipped|xfailed", summary), summary
