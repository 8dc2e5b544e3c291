"""The first things that a reader does: paste the quick start, save a page's first program, check them with a type checker."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.docs.test_examples import assert_shown
from tests.support.docs.pages import PAGES, ROOT, blocks, name

QUICKSTART = ROOT / "docs" / "quickstart.md"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PERDURE_URL"} | {"PYTHONPATH": str(ROOT / "src")}
FRAMEWORKS = sorted(page for page in (ROOT / "docs" / "frameworks").glob("*.md") if page.name != "langgraph-server.md")
"""A server's page has files that the server reads, and no program."""


def quickstart() -> list[str]:
    return [block.text for block in blocks(QUICKSTART) if block.language == "python"]


def test_the_quick_start_can_be_pasted_twice(tmp_path: Path) -> None:
    """Each block, pasted into `python -m asyncio` and ended with Enter, runs; and again on the file that the first time left."""
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, "-m", "asyncio"], check=True, cwd=tmp_path, env=ENVIRONMENT, input="\n".join(quickstart()) + "\n",
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert "Error" not in ran.stderr and "Traceback" not in ran.stderr, ran.stderr
        assert "booked train" in ran.stdout and "trip-42 True" in ran.stdout
    assert [path.name for path in tmp_path.glob("*.db")] == ["quickstart.db"]


def test_readme_and_quick_start_use_files_of_their_own() -> None:
    """Who does one after the other meets no session that the other left."""
    assert "quickstart.db" not in (ROOT / "README.md").read_text() and "agents.db" not in "".join(quickstart())


@pytest.mark.long
@pytest.mark.parametrize("page", FRAMEWORKS, ids=name)
def test_a_first_program_runs_when_it_is_saved(page: Path, tmp_path: Path) -> None:
    """The first Python block of a framework's page is a program: saved as a file it prints what the page shows."""
    found = blocks(page)
    place = next(number for number, block in enumerate(found) if block.language == "python")
    (tmp_path / "first.py").write_text(found[place].text)
    ran = subprocess.run(
        [sys.executable, "first.py"], check=False, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert found[place + 1].language == "text"
    assert_shown(found[place + 1].text, ran.stdout, name(page))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The README's program and the quick start as files, the latter in one function."""
    folder = tmp_path_factory.mktemp("typed")
    first = next(block.text for block in blocks(ROOT / "README.md") if block.language == "python")
    (folder / "first.py").write_text(first)
    lines = "\n".join(quickstart()).splitlines()
    imports = [line for line in lines if line.startswith("import ")]
    body = textwrap.indent("\n".join(line for line in lines if line not in imports), "    ")
    program = [*imports, "", "", "async def main() -> None:", body, "", "", "asyncio.run(main())", ""]
    (folder / "quickstart.py").write_text("\n".join(program))
    return folder


def test_they_pass_mypy(programs: Path) -> None:
    """mypy, strict, finds nothing in the README's program and in the quick start."""
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-version=3.11", "--cache-dir=.mypy_cache", "first.py", "quickstart.py"],
        check=False, cwd=programs, env={**os.environ, "MYPYPATH": str(ROOT / "src")}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout


@pytest.mark.skipif(importlib.util.find_spec("basedpyright") is None, reason="pip install basedpyright")
def test_they_pass_pyright(programs: Path) -> None:
    """Pyright, strict, finds nothing in the README's program and in the quick start."""
    options = {
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "include": ["first.py", "quickstart.py"],
        "extraPaths": [str(ROOT / "src")],
    }
    (programs / "pyrightconfig.json").write_text(json.dumps(options))
    ran = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--project", "."],
        check=False, cwd=programs, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout


def test_a_package_page_has_no_link_that_leads_nowhere(tmp_path: Path) -> None:
    """What a package index shows is the README with no link into the repository, and names authors; a built package carries it."""
    built = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(built, check=True, cwd=ROOT, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    assert "# Perdure" in metadata and "Quick start" in metadata and "Author: The Perdure authors" in metadata
    assert [link for link in re.findall(r"\]\(([^)]+)\)", metadata) if not link.startswith("https://")] == []


INSTALL = re.compile(r"pip install [^\n`]*perdure[^\n`]*")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_page_installs_what_is_not_published(page: Path) -> None:
    """A line that installs Perdure is one for a clone: no package index has it. The extras that are named exist."""
    text = page.read_text()
    assert INSTALL.search(text) is None
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {extra for found in re.findall(r"pip install '\.\[([\w,-]+)\]'", text) for extra in found.split(",")} <= {*extras}
