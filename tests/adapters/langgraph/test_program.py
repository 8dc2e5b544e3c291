"""The first program of the page, saved as a file: one changed line must be enough to run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.docs.pages import ROOT, blocks


def test_the_first_program_runs_as_a_file_and_goes_on_when_it_runs_again(tmp_path: Path) -> None:
    """Saved and started in an empty folder it prints what the page shows and nothing else, and ends well; again, it goes on."""
    found = blocks(ROOT / "docs" / "frameworks" / "langgraph.md")
    first = next(index for index, block in enumerate(found) if block.language == "python")
    (tmp_path / "program.py").write_text(found[first].text)
    for shown in (found[first + 1].text, "I have read 5 messages.\nI have read 7 messages.\n"):
        done = subprocess.run([sys.executable, "program.py"], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout, done.stderr) == (0, shown, "")
