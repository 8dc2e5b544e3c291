"""`perdure upgrade`: what it says and answers, and what it leaves alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import apsw
import pytest

from perdure.backends.spi import SCHEMA_VERSION
from tests.cli.conftest import Run

OLD = Path(__file__).parents[1] / "codec" / "golden" / "schema1.db"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file of schema 1."""
    return Path(shutil.copy(OLD, tmp_path / "old.db"))


def test_it_upgrades_and_says_so(run: Run, old: Path) -> None:
    """JSON is one row, whose notes are silent; the second time nothing is done."""
    ran = run("upgrade", f"sqlite:///{old}")
    (row,) = ran.rows
    assert (ran.status, ran.err) == (0, "")
    assert (row["was"], row["schema"], row["upgraded"]) == (1, SCHEMA_VERSION, True)
    again = run("upgrade", "--url", f"sqlite:///{old}")
    assert again.rows == [{**row, "was": SCHEMA_VERSION, "upgraded": False}]
    findings = run("doctor", "--url", f"sqlite:///{old}").rows[0]["findings"]
    assert [found for found in findings if "is in memory" not in found["what"]] == [], "but for the folder of this test"


def test_people_see_what_it_does(run: Run, old: Path) -> None:
    """It says that nothing else should use the store, then each step, then the outcome; `--quiet` says nothing."""
    ran = run("upgrade", f"sqlite:///{old}", "--no-json")
    assert ran.status == 0
    assert ran.out == f"schema {SCHEMA_VERSION}, from 1\n"
    assert "Nothing else should use it now" in ran.err
    assert "the index of what is due" in ran.err
    assert run("upgrade", f"sqlite:///{old}", "--no-json").out == f"schema {SCHEMA_VERSION}: it is up to date\n"
    assert run("upgrade", f"sqlite:///{old}", "--no-json", "--quiet")[1:] == ("", "")


def test_no_store(run: Run, tmp_path: Path) -> None:
    """Where no store is nothing is made, and the error says how to name one."""
    ran = run("upgrade", f"sqlite:///{tmp_path}/none.db")
    assert ran.status == 3
    assert "--url" in ran.err
    assert not list(tmp_path.iterdir())


def test_the_store_is_named_once(run: Run, old: Path) -> None:
    """The argument and `--url` together are a mistake, and nothing is opened."""
    ran = run("upgrade", f"sqlite:///{old}", "--url", f"sqlite:///{old}")
    assert ran.status == 2
    assert "once" in ran.err
    assert run("doctor", "--url", f"sqlite:///{old}").rows[0]["schema"] == 1


def test_a_store_of_a_later_version(run: Run, old: Path) -> None:
    """What this version does not know it does not touch: `Unsupported`, by its exit code."""
    database = apsw.Connection(str(old))
    database.pragma("user_version", 99)
    database.close()
    ran = run("upgrade", f"sqlite:///{old}")
    assert ran.status == 9
    assert "upgrade perdure" in ran.err


def test_a_file_in_use(run: Run, old: Path) -> None:
    """While another process writes to the file, the upgrade waits for so long and then says `Unavailable`; the file stays as it is."""
    database = apsw.Connection(str(old))
    database.execute("BEGIN IMMEDIATE")
    ran = run("upgrade", f"sqlite:///{old}?busy_timeout=0")
    assert ran.status == 8
    assert "locked" in ran.err
    database.execute("ROLLBACK")
    assert database.pragma("user_version") == 1
    database.close()
