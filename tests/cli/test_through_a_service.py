"""Commands on the URL of a service: nodes do what asks for an archive or a clock; what they do not do is refused, with where it is done."""

from __future__ import annotations

from pathlib import Path

import perdure
from perdure import Event
from tests.cli.conftest import Run
from tests.support.service.nodes import serving


def test_an_archive_is_the_nodes(run: Run, tmp_path: Path) -> None:
    """Sessions go to it and come back; a node without one says so."""
    with serving(f"sqlite:///{tmp_path}/s.db", archive=f"file://{tmp_path}/archive") as node:
        with perdure.sync.open(node.url) as store:
            store.append("s", Event("a"))
        (archived,) = run("archive", "s", "--url", node.url).rows
        assert (archived["session"], archived["commits"]) == ("s", 2)
        assert run("restore", "s", "--url", node.url).status == 0
        assert run("show", "s", "--url", node.url).rows[0]["status"] == "active"
    with serving(f"sqlite:///{tmp_path}/s.db") as node:
        refused = run("archive", "s", "--url", node.url)
        assert refused.status != 0 and refused.rows[0]["code"] == "unsupported" and "--archive" in refused.rows[0]["problem"], refused


def test_a_round_of_the_sweeper(run: Run, tmp_path: Path) -> None:
    """The node does it, and the summary comes back."""
    with serving(f"sqlite:///{tmp_path}/s.db") as node:
        with perdure.sync.open(node.url) as store:
            store.append("s", Event("a"))
            store.configure("s", expire_after=60)
        *_, last = run("sweep", "--once", "--url", node.url).rows
        assert last["swept"]["looked"] == 1


def test_tokens_are_made_at_the_engine(run: Run, tmp_path: Path) -> None:
    """Each command says where; nothing is made."""
    with serving(f"sqlite:///{tmp_path}/s.db") as node:
        for command in (("create", "--tenant", "acme", "--scope", "read"), ("list",), ("revoke", "--id", "abc")):
            refused = run("tokens", *command, "--url", node.url)
            assert (refused.status, refused.out) != (0, "") and "the URL of the engine" in refused.err, (command, refused)
    assert run("tokens", "list", "--url", f"sqlite:///{tmp_path}/s.db").rows == []
