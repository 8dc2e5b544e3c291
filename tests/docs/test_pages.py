"""Pages and files around the code: links lead somewhere, guarantees name real tests, commands are the ones that CI runs."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import perdure
from dev import TIERS
from tests.support.docs.pages import PAGES, ROOT, blocks, name

LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")
LABEL = re.compile(r"\[([^\]]*)\]\([^)]*\)")
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
    """Each numbered section of the guarantees links at least one test function, and each such function is in the file linked."""
    sections = re.split(r"^## (?=\d+\. |Notes)", (ROOT / "docs" / "guarantees.md").read_text(), flags=re.MULTILINE)[1:-1]
    assert sections
    for section in sections:
        tests = TEST.findall(section)
        assert tests or "*Not in this version.*" in section, f"no test in: {section[:80]}"
        for function, path in tests:
            assert function in functions(ROOT / path), f"{path} has no {function}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_cell_of_a_table_is_short(page: Path) -> None:
    """A cell of a table has at most 150 characters as a reader sees it; what needs more is text."""
    text = re.sub(r"^(```+).*?^\1$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for line in text.splitlines():
        if line.startswith("|"):
            cells = [LABEL.sub(r"\1", cell).strip() for cell in re.split(r"(?<!\\)\|", line)]
            assert max(map(len, cells)) <= 150, f"{name(page)}: {max(cells, key=len)}"


def test_troubleshooting_has_every_error() -> None:
    """Each class of perdure.errors has a section of its name."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    errors = {kind.__name__ for kind in vars(perdure).values() if isinstance(kind, type) and issubclass(kind, perdure.Error)}
    assert errors - {"Error"} <= set(re.findall(r"^### (\w+)$", page, re.MULTILINE))


def test_every_page_can_be_reached() -> None:
    """Each page of docs/ is linked from another page."""
    linked = {(page.parent / target).resolve() for page in PAGES for target, _ in LINK.findall(page.read_text())}
    assert [name(page) for page in PAGES if page not in linked and page.name not in ("README.md", "CHANGELOG.md", "index.md")] == []


def test_ci_runs_the_commands_of_the_readme() -> None:
    """The README's two commands are a line each. CI calls both, the second in two parts; what both parts have skips in the first."""
    first, second = [block.text.splitlines() for block in blocks(ROOT / "README.md") if block.language == "sh"][:2]
    assert (first, second) == (["python3 dev.py tour"], ["python3 dev.py test"])
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    for call in (f"newcomer {first[0]}", f"newcomer {second[0]} --bare", f"{second[0]} --rest </dev/null"):
        assert call in lines
    for slow, server, fetched in product((False, True), repeat=3):
        markers = {"slow": slow, "server": server, "fetched": fetched}
        assert eval(TIERS["--bare"], {}, markers) + eval(TIERS["--rest"], {}, markers) == (not slow) + (not slow and fetched)


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
    folders = [path for path in (ROOT / "src" / "perdure" / "adapters").glob("*/__init__.py") if path.parent.name != "common"]
    adapters = [path.read_text() for path in folders]
    required = [re.search(r"^require\((.*)\)$", text, re.MULTILINE) for text in adapters]
    ranges = [ast.literal_eval(f"({found[1]})") for found in required if found]
    assert len(ranges) == len(required)
    for package, low, high, extra in ranges:
        assert extras[extra] == [f"{package}>={low},<{high}"]
        assert Version(locked[package]).release[: low.count(".") + 1] == Version(low).release
