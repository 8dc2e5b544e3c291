"""Tests that frameworks ship in their source distributions, fetched and run as they are."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from scripts.fetch_suites import SUITES
from tests.support.needs import missing

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
