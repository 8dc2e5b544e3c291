"""`perdure show --size`, and `--blobs` on commands."""

from __future__ import annotations

from pathlib import Path

import pytest

import perdure.sync
from perdure import Event, op
from tests.cli.conftest import Run
from tests.support.engine.bodies import LEAST, folder, large, stored, text

WIDTHS = (60, 80, 100, 160)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store at the default place of the test's folder whose session has a body out of line and a heavy path with special characters."""
    address = f"sqlite:///{tmp_path}/perdure.db"
    with perdure.sync.open(address, blobs=folder(tmp_path), blob_bytes=LEAST, snapshot_bytes_min=3_000) as store:
        for number in range(5):
            store.append("trip-42", Event("x", None, (op.append("/mess~1ages", [{"content": text(700, number)}]),)))
        store.append("trip-42", large())
        store.append("trip-42", Event("x", None, (op.set("/\x1b[31m", {"a path that is far too long for the line " * 3: "x" * 1_500}),)))
    return address


def test_it_draws_where_the_bytes_are(run: Run, url: str, tmp_path: Path) -> None:
    """Every width has all lines, none longer than the terminal: the state, its parts below their containers, and what is stored."""
    for width in WIDTHS:
        done = run("show", "trip-42", "--size", "--no-json", "--blobs", folder(tmp_path), columns=width)
        assert done.status == 0, done.err
        lines = done.out.splitlines()
        assert all(len(line.rstrip()) <= width for line in lines)
        shown = done.out
        for name in ("state", "  /mess~1ages", "    /0", "  /n0", "snapshot", "commits since", "older commits", "bodies out of line"):
            assert any(line.startswith(name) for line in lines), (width, name, shown)
        assert "\x1b" not in shown
        assert "█" in shown
        assert "trip-42 version 7" in done.err
        at = [next(place for place, line in enumerate(lines) if line.startswith(name)) for name in ("  /mess~1ages", "    /0", "snapshot")]
        assert at == sorted(at)


def test_it_is_json_for_machines(run: Run, url: str, tmp_path: Path) -> None:
    """One object with exact bytes; the environment names the place as the option does."""
    (row,) = run("show", "trip-42", "--size", PERDURE_BLOBS=folder(tmp_path)).rows
    with perdure.sync.open(url, blobs=folder(tmp_path), blob_bytes=LEAST) as store:
        sizes = store.sizes("trip-42", parts=12)
    assert row["blob_bytes"] == sizes.blob_bytes == sum((tmp_path / "place" / name).stat().st_size for name in stored(tmp_path))
    assert (row["blob_commits"], row["log_commits"] + row["old_commits"], row["version"]) == (1, 7, 7)
    assert [part["path"] for part in row["parts"]] == [part.path for part in sizes.parts]
    assert row["parts"][0] == {"path": "", "bytes": row["state_bytes"], "members": 3}


def test_it_says_what_it_needs(run: Run, url: str, tmp_path: Path) -> None:
    """Without the place the option is named; with another store's, or one that is not there, that is said; `--at` does not go with it."""
    done = run("log", "trip-42", "--limit", "2")
    assert done.status == 9
    assert "blobs=" in done.err
    assert run("show", "trip-42", "--size", "--at", "3").status == 2
    assert run("show", "trip-42", "--size", "--path", "/a").status == 2
    assert run("show", "nobody", "--size", "--blobs", folder(tmp_path)).status == 3
    missing = run("show", "trip-42", "--blobs", f"file://{tmp_path}/missing")
    assert missing.status == 3
    assert "missing" in missing.err


def test_commands_read_and_write_with_the_place(run: Run, url: str, tmp_path: Path) -> None:
    """`append`, `log`, `verify`, `doctor` and `purge` work on a store whose bodies lie elsewhere."""
    blobs = ("--blobs", folder(tmp_path))
    content = text(100_000, 5)
    assert run("append", "trip-42", "note", "--data", f'"{content}"', *blobs).status == 0
    assert len(stored(tmp_path)) == 2
    assert run("log", "trip-42", *blobs).rows[0]["events"][0]["data"] == content
    assert run("verify", *blobs).rows[0]["ok"]
    assert run("verify").status == 9
    assert run("doctor", *blobs).status == 0
    assert run("delete", "trip-42", *blobs).status == 0
    assert run("purge", "trip-42", "--yes", *blobs).status == 0
    assert not stored(tmp_path)
