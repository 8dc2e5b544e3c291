"""Schemes and extras: what an installation without drivers says."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from perdure.backends import registry
from perdure.backends.registry import schemes
from perdure.engine.read.shared import client

ROOT = Path(__file__).parents[2]

BARE = """
import sys

DRIVERS = ("psycopg", "redis", "pymongo", "cassandra", "aiobotocore", "httpx", "obstore", "grpc", "google.cloud", "google.auth", "aiohttp")

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(DRIVERS):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import perdure.sync
try:
    perdure.sync.open(sys.argv[1])
except perdure.Unsupported as error:
    print(error)
"""


@pytest.mark.long
@pytest.mark.parametrize("scheme", sorted({*schemes()} - {"memory", "sqlite", "file"}))
def test_an_engine_without_its_driver_names_its_extra(scheme: str) -> None:
    """Every engine that needs a driver is `Unsupported` with a `pip install` line, and the extra in it exists."""
    ran = subprocess.run([sys.executable, "-c", BARE, f"{scheme}://host/name"], check=False, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    extra = ran.stdout.partition("pip install '.[")[2].partition("]'")[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]


def test_one_table_is_what_the_package_says_of_itself() -> None:
    """Every scheme of the table is an entry point to the same function and every entry point is in the table; every engine that needs a
    driver has an extra of its name, and every extra that is no adapter's, no shared cache's and not the service's own is an engine's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    targets = {scheme: f"perdure.backends.{module}:open" for scheme, module in registry._MODULES.items()}
    assert targets == project["entry-points"][registry.GROUP]
    adapters = {path.name.replace("_", "-") for path in (ROOT / "src/perdure/adapters").iterdir() if path.is_dir()}
    engines = {module.partition(".")[0] for module in registry._MODULES.values()}
    caches = {*client._MODULES.values()} - engines
    assert {*project["optional-dependencies"]} - adapters - caches - {"service"} == engines - {"memory", "sqlite"}
