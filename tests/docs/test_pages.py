"""Pages and files around the code: links lead somewhere, guarantees name real tests, commands are the ones that CI runs."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.docs.pages import PAGES, ROOT, blocks, name

LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")
TEST = re.compile(r"\[`(\w+)`\]\(\.\./([\w/.-]+\.py)\)")


@cache
def functions(path: Path) -> frozenset[str]:
    """The names of the functions and state machines of a test file."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return frozenset(node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    """A relative link on a page names a file or folder of the repository; no page links elsewhere."""
    for target, _ in LINK.findall(page.read_text()):
        assert "://" not in target, f"{name(page)} links to {target}"
        assert (page.parent / target).exists(), f"{name(page)} links to {target}, which is not there"


def test_every_guarantee_names_tests_that_exist() -> None:
    """Each numbered row of the guarantees links at least one test function, and each such function is in the file linked."""
    rows = [line for line in (ROOT / "docs" / "guarantees.md").read_text().splitlines() if re.match(r"\| *\d+ *\|", line)]
    assert rows
    for row in rows:
        tests = TEST.findall(row)
        assert tests or "*not in this version*" in row, f"no test in: {row[:80]}"
        for function, path in tests:
            assert function in functions(ROOT / path), f"{path} has no {function}"


def test_every_page_can_be_reached() -> None:
    """Each page of docs/ is linked from another page."""
    linked = {(page.parent / target).resolve() for page in PAGES for target, _ in LINK.findall(page.read_text())}
    assert [name(page) for page in PAGES if page not in linked and page.name not in ("README.md", "CHANGELOG.md", "index.md")] == []


def test_ci_runs_the_command_of_the_readme() -> None:
    """The README's first two `sh` blocks are one line each; the second is what .ci/run calls."""
    tour, test = [block.text.splitlines() for block in blocks(ROOT / "README.md") if block.language == "sh"][:2]
    assert (tour, test) == (["python3 dev.py tour"], ["python3 dev.py test"])
    assert f"\nexec {test[0]} </dev/null\n" in (ROOT / ".ci" / "run").read_text()


def test_the_readme_and_the_guide_are_short() -> None:
    """The README has 48 to 120 lines, the contributors' guide fits one screen."""
    assert 48 <= len((ROOT / "README.md").read_text().splitlines()) <= 120
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 45


@pytest.mark.parametrize("lock", ["core", "dev", "oldest"])
def test_a_lock_holds_hashes_and_no_place(lock: str) -> None:
    """Every pinned package of a lock has hashes; none names where it came from, or a path of the machine that wrote it."""
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    assert "://" not in text and not re.search(r"(^|\s)/\w", text)
    for entry in re.split(r"\n(?=[a-z0-9])", text):
        assert "--hash=sha256:" in entry, entry[:60]


def test_the_locks_fit_the_project() -> None:
    """What pyproject.toml asks for is in the lock at a version that it allows, and the two locks agree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    texts = {lock: (ROOT / "requirements" / f"{lock}.lock").read_text() for lock in ("core", "dev")}
    locked = {lock: dict(re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==([^\s;]+)", text, re.MULTILINE)) for lock, text in texts.items()}
    core = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    more = [name for group in project["dependency-groups"].values() for name in group if isinstance(name, str)]
    extras = [name for extra in project["project"]["optional-dependencies"].values() for name in extra]
    for lock, wanted in (("core", core), ("dev", core + more + extras)):
        for requirement in map(Requirement, wanted):
            assert locked[lock][requirement.name.replace(".", "-").replace("_", "-")] in requirement.specifier
    assert locked["core"].items() <= locked["dev"].items()


def test_the_oldest_versions_are_those_that_are_tested() -> None:
    """The lock of the oldest versions names, for each adapter, the lowest that pyproject.toml allows; the adapter itself says the same."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", (ROOT / "requirements" / "oldest.lock").read_text(), re.MULTILINE))
    adapters = [path.read_text() for path in (ROOT / "src" / "perdure" / "adapters").glob("*/__init__.py")]
    required = [re.search(r"^require\((.*)\)$", text, re.MULTILINE) for text in adapters]
    ranges = [ast.literal_eval(f"({found[1]})") for found in required if found]
    assert len(ranges) == len(required)
    for package, low, high, extra in ranges:
        assert extras[extra] == [f"{package}>={low},<{high}"]
        assert Version(locked[package]).release[: low.count(".") + 1] == Version(low).release
