"""Programs of the TypeScript client: run by Node, as it stands in `clients/typescript`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.docs.pages import ROOT

CLIENT = ROOT / "clients" / "typescript"
ENTRY = CLIENT / "src" / "index.js"
NODE_MIN = 20


def find_node() -> str:
    """The program `node`. Skips where there is none that is new enough."""
    path = shutil.which("node")
    if path is None:
        pytest.skip(f"the TypeScript client needs Node {NODE_MIN} or later: node is not installed")
    said = subprocess.check_output([path, "--version"], text=True).strip()
    if int(said.removeprefix("v").split(".")[0]) < NODE_MIN:
        pytest.skip(f"the TypeScript client needs Node {NODE_MIN} or later: node is {said}")
    return path


def installed(folder: Path) -> Path:
    """A folder in which programs find the package by its name."""
    (folder / "node_modules").mkdir(parents=True)
    (folder / "node_modules" / "perdure").symlink_to(CLIENT, target_is_directory=True)
    return folder


class Programs:
    """Runs programs in a folder that has the package."""

    def __init__(self, folder: Path) -> None:
        self.node = find_node()
        self.folder = installed(folder)
        self._count = 0

    def command(self, source: str, *arguments: str) -> list[str]:
        """The command line of a program. Its arguments are in `args`, the package's names in `perdure`."""
        self._count += 1
        file = self.folder / f"program{self._count}.mjs"
        file.write_text(f'import * as perdure from "perdure";\nconst args = process.argv.slice(2);\n{source}')
        return [self.node, str(file), *arguments]

    def run(self, source: str, *arguments: str) -> str:
        """What it prints."""
        done = subprocess.run(self.command(source, *arguments), capture_output=True, text=True, cwd=self.folder, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout
