"""The conformance kit on the engines that need no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.backends.conformance import CASES, Case
from tests.support.backends.scenarios import opened


@pytest.mark.parametrize("case", [case for case in CASES if not case.needs_another], ids=str)
def test_memory_conforms(case: Case) -> None:
    """The reference model does what the specification says."""
    case.run(lambda: opened("memory:"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sqlite_conforms(case: Case, tmp_path: Path) -> None:
    """SQLite does what the specification says, through two handles on one file where the case asks for them."""
    url = f"sqlite:///{tmp_path}/store.db"
    case.run(lambda: opened(url), lambda _: opened(url))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_folders_conform(case: Case, tmp_path: Path) -> None:
    """A folder of segments does what the specification says, through two handles that share nothing but the files."""
    url = f"file://{tmp_path}/store?shards=3"
    case.run(lambda: opened(url), lambda _: opened(url))
