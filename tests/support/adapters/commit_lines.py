"""What `perdure log` says of a commit."""

from __future__ import annotations

import perdure
from perdure.cli.output.describe import describe
from perdure.cli.output.rows import CommitRow


def lines_of(commit: perdure.Commit) -> list[str]:
    """A line for each thing that happened."""
    return [str(line) for line in describe(CommitRow.of(commit))]
