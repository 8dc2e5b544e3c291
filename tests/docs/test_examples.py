"""Examples on the pages: run as they stand, and their output is the one shown."""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import os
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure.cli.output.describe import describe
from perdure.cli.output.rows import CommitRow
from tests.support.docs.pages import PAGES, ROOT, Block, blocks, name
from tests.support.service.nodes import serving

FILE = "sqlite:///agents.db"
"""The store of the pages."""
SHOWN = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


def assert_shown(expected: str, printed: str, where: str) -> None:
    """The output is the one shown; `...` stands for anything."""
    if not doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS):
        pytest.fail(f"{where} shows\n\n{expected}\nbut the block before it prints\n\n{printed}", pytrace=False)


def run(block: Block, page: Path, namespace: dict[str, Any], runner: asyncio.Runner) -> None:
    """Run a block, which may await outside of functions; a traceback names the line of the page."""
    code = compile("\n" * (block.line - 1) + block.text, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(code, namespace)
    if inspect.iscoroutine(result):
        runner.run(result)


def command(line: str) -> str:
    """What a `perdure` command prints to a pipe; it must succeed."""
    words = shlex.split(line.removeprefix(".venv/bin/"), comments=True)
    return subprocess.check_output([sys.executable, "-m", *words], env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, text=True)


def assert_told(folder: Path) -> None:
    """What `perdure log` says of the sessions that a page has made is not the operations by which an adapter keeps them."""
    if not (folder / "agents.db").exists():
        return
    bodies = f"file://{folder / 'bodies'}" if (folder / "bodies").exists() else None
    with perdure.sync.open(f"sqlite:///{folder / 'agents.db'}", blobs=bodies) as store:
        for info in store.list():
            with suppress(perdure.Truncated):  # What is shown is shown newest first, down to what was dropped.
                for commit in store.history(info.session, newest_first=True):
                    for line in describe(CommitRow.of(commit)):
                        assert not re.match(r"(merge|set) \(all\)", line.text), (info.session, line)


def walk(page: Path, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run Python blocks and `perdure` commands in order, in one namespace, with the store at `url`; text after one is its output."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PERDURE_URL", raising=False)
    program = ModuleType("__main__")  # what the blocks would be if they were saved as a file: its classes are found by their names
    monkeypatch.setitem(sys.modules, "__main__", program)
    namespace = vars(program)
    printed = None
    with asyncio.Runner() as runner:
        try:
            for block in (block._replace(text=block.text.replace(FILE, url)) for block in blocks(page)):
                if block.language == "python":
                    run(block, page, namespace, runner)
                    printed = capsys.readouterr().out
                    continue
                if block.language == "sh" and block.text.startswith(("perdure ", ".venv/bin/perdure ")):
                    printed = "".join(command(line) for line in block.text.splitlines())
                    continue
                if block.language == "text" and printed is not None and not block.between.strip():
                    assert_shown(block.text, printed, f"{name(page)}:{block.line}")
                printed = None
        except BaseException:
            for store in namespace.values():  # The page did not come to its end, where it closes what it opened.
                if isinstance(store, perdure.Store):
                    runner.run(store.close())
            raise


@pytest.mark.long
@pytest.mark.parametrize("page", SHOWN, ids=name)
def test_a_page_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands, in an empty folder."""
    walk(page, FILE, tmp_path, monkeypatch, capsys)
    assert_told(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in SHOWN if page.parent.name == "frameworks"], ids=name)
def test_a_frameworks_page_runs_on_a_service(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the URL of a node in place of the file's, and nothing else changed, it does and prints the same."""
    with serving(f"sqlite:///{tmp_path}/store.db") as node:
        walk(page, node.url, tmp_path, monkeypatch, capsys)


def test_the_first_program_works_when_pasted(tmp_path: Path) -> None:
    """The README's program is at most ten lines of code, runs as a script of its own, and goes on from where it was when it runs again."""
    program = next(block for block in blocks(ROOT / "README.md") if block.language == "python")
    (tmp_path / "first.py").write_text(program.text)
    command, environment = [sys.executable, "-W", "error", "first.py"], {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    runs = [subprocess.check_output(command, cwd=tmp_path, env=environment, text=True) for _ in range(2)]
    assert len([line for line in program.text.splitlines() if line.strip()]) <= 10
    assert [run.split()[:2] for run in runs] == [["version", "1"], ["version", "2"]]
    assert "[{'id': 7}, {'id': 7}]" in runs[1]
