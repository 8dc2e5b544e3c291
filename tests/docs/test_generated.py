"""Pages that come out of the code: they say what the code says."""

from __future__ import annotations

import pytest

import perdure
from scripts import docs_reference
from tests.support.docs.pages import ROOT


@pytest.mark.parametrize("page", docs_reference.PAGES, ids=str)
def test_a_generated_page_is_up_to_date(page: str) -> None:
    """The page in the repository is the one that the code gives: conflicts from the table, commands from --help, names from docstrings."""
    assert (ROOT / page).read_text() == docs_reference.render(page), f"{page} is old: run python3 dev.py docs"


def test_every_public_name_is_described() -> None:
    """The reference has every name of `perdure.__all__`, and each has a docstring."""
    reference = (ROOT / "docs" / "reference.md").read_text()
    for public in perdure.__all__:
        assert f"`{public}" in reference or f"`perdure.{public}" in reference, public
        assert public in docs_reference.ALIASES or getattr(perdure, public).__doc__, public


def test_the_check_sees_a_page_that_differs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The check that CI runs fails on a page that the code no longer gives, shows the difference, and leaves the page as it is."""
    before = (ROOT / "docs" / "conflicts.md").read_text()
    monkeypatch.setattr(docs_reference, "MAKERS", {"docs/conflicts.md": lambda: before + "One more line.\n"})
    assert docs_reference.main(check=True) == 1
    assert "+One more line." in capsys.readouterr().out
    assert (ROOT / "docs" / "conflicts.md").read_text() == before
