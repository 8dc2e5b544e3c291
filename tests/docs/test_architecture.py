"""The page for those who change Perdure: its files exist, and its steps lead to an engine and a command that work."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.support.docs.pages import ROOT

PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "src" / "perdure"
KIT = """
import asyncio, sys
from contextlib import asynccontextmanager
from uuid import uuid4
from perdure.backends.conformance import CASES
from perdure.backends.registry import open_backend
from perdure.clock import SystemClock

for case in CASES:
    url = f"toy:{uuid4().hex}"

    @asynccontextmanager
    async def opened(_=None):
        backend = await open_backend(url, clock=SystemClock())
        try:
            yield backend
        finally:
            await backend.close()

    case.run(opened, opened)
    print(case)
"""


def test_every_file_that_it_names_exists() -> None:
    """Each path on the page is a file or a folder of the repository; capitals stand for a name of one's own."""
    named = {
        path for path in re.findall(r"`([\w./]+(?:/|\.\w+))`", PAGE.read_text()) if "/" in path or path.endswith((".py", ".md", ".toml"))
    }
    assert len(named) > 60
    missing = [
        path for path in named if "NAME" not in path and not (ROOT / path).exists() and not (ROOT / "src" / "perdure" / path).exists()
    ]
    assert sorted(missing) == ["backends/toy.py"], "The engine that the page adds is the only one that is not there."


def test_every_folder_of_the_package_is_in_its_tree() -> None:
    """The tree leaves out no folder, and has none that is not there."""
    tree = re.search(r"```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert tree
    shown: set[str] = set()
    path: list[str] = []
    for indent, folder in re.findall(r"^( *)(\w+)/ ", tree[1], re.MULTILINE):
        path = [*path[: len(indent) // 2], folder]
        shown.add("/".join(path))
    folders = {path.parent.relative_to(ROOT / "src" / "perdure").as_posix() for path in (ROOT / "src" / "perdure").rglob("__init__.py")} - {
        "."
    }
    siblings = {folder for folder in folders if folder.startswith(("backends/", "adapters/"))}
    assert shown <= folders
    assert folders - siblings <= shown


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package in which the steps were followed."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    shutil.copy(ROOT / "examples" / "toy_engine.py", root / "src" / "perdure" / "backends" / "toy.py")
    steps = re.findall(r"^ +```(python|diff)\n(.*?)^ +```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert [language for language, _ in steps] == ["diff", "diff", "diff", "python", "diff", "diff"]
    for language, block in steps:
        text = textwrap.dedent(block)
        (add if language == "python" else change)(root, text)
    return root


def add(root: Path, text: str) -> None:
    """Write a file whose name is its first line."""
    first, _, rest = text.partition("\n")
    (root / first.removeprefix("# ")).write_text(rest)


def change(root: Path, text: str) -> None:
    """Apply a difference: its lines stand in the file exactly once."""
    first, _, rest = text.partition("\n")
    path = root / first.removeprefix("--- a/")
    before = "".join(line[1:] + "\n" for line in rest.splitlines() if not line.startswith("+"))
    after = "".join(line[1:] + "\n" for line in rest.splitlines() if not line.startswith("-"))
    source = path.read_text()
    assert source.count(before) == 1, f"{path.name} does not have these lines once:\n{before}"
    path.write_text(source.replace(before, after))


def run(root: Path, *words: str, **environment: str) -> str:
    """What a command prints in the copy; it must succeed."""
    found = {**os.environ, "PYTHONPATH": str(root / "src"), **environment}
    ran = subprocess.run([sys.executable, *words], cwd=root, env=found, check=False, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_engine_passes_every_case_of_the_kit(copy: Path) -> None:
    """The toy engine, opened by its URL in the copy, does what the specification says, through two handles where a case asks for them."""
    from perdure.backends.conformance import CASES

    assert run(copy, "-c", KIT).split() == [case.name for case in CASES]


def test_the_engine_serves_the_shell(copy: Path) -> None:
    """A command of the copy writes to the toy engine by its URL."""
    receipt = json.loads(run(copy, "-m", "perdure", "append", "s", "note", "--url", "toy:demo", "--json"))
    assert (receipt["version"], receipt["durability"]) == (1, "memory")


@pytest.mark.long
def test_the_command_counts(copy: Path, tmp_path: Path) -> None:
    """The toy command is in the help, and answers people and machines."""
    url: dict[str, Any] = {"PERDURE_URL": f"sqlite:///{tmp_path}/store.db"}
    for session in ("a1", "a2", "b1"):
        run(copy, "-m", "perdure", "append", session, "note", **url)
    assert "Count the sessions." in run(copy, "-m", "perdure", "--help")
    assert run(copy, "-m", "perdure", "count", "--no-json", **url) == "3 sessions\n"
    assert json.loads(run(copy, "-m", "perdure", "count", "a", "--json", **url)) == {"sessions": 2}


def test_the_rules_of_imports_hold(copy: Path) -> None:
    """Neither the engine nor the command imports what its place forbids, and each is named where the rules ask for it."""
    assert "0 broken" in run(copy, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")
