"""Tests that frameworks ship in their source distributions, fetched and run as they are."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

from scripts.fetch_suites import SUITES
from tests.support.needs import missing

ROOT = Path(__file__).resolve().parents[3]
PLUGINS = Path(__file__).parent
"""Where the plugins lie that put Perdure's classes in the place of the frameworks': a pytest of its own loads them by name."""


def fetched(package: str) -> Path:
    """The folder of a package's suite. Without it the test skips, or fails where the suites must be there."""
    (suite,) = [suite for suite in SUITES if suite.package == package]
    try:
        installed = metadata.version(package)
    except metadata.PackageNotFoundError:
        missing(f"{package} is not installed: it is in the group `suites` of pyproject.toml")
    if installed != suite.version:
        missing(f"the tests that were fetched are those of {package} {suite.version}, and {installed} is installed")
    if not all((suite.folder / name).exists() for name in suite.files):
        missing(f"the tests of {package} {suite.version} are not here: python3 dev.py fetch")
    return suite.folder


def environment(*folders: Path, **more: object) -> dict[str, str]:
    """What a suite is run with: this source and the plugins, then these folders, to import from. Coverage is not read there: it would make
    thousands of tests slow, and our own tests of the adapter show it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    places = [ROOT / "src", PLUGINS, *folders, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(map(str, places)), **{name: str(value) for name, value in more.items()}}
