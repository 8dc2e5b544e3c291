"""verify and doctor: what is whole is said to be so, what is not is found, and nothing is changed by looking."""

from __future__ import annotations

import hashlib
from pathlib import Path

import apsw
import pytest

import perdure.sync
from perdure.backends.spi import SCHEMA_VERSION
from tests.cli.conftest import Run


def tamper(path: Path) -> None:
    """Flip one bit of one body."""
    database = apsw.Connection(str(path))
    pos, body = next(database.execute("SELECT pos, body FROM log WHERE version = 2"))
    database.execute("UPDATE log SET body = ? WHERE pos = ?", (body[:-1] + bytes([body[-1] ^ 1]), pos))
    database.close()


def prints(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_verify_proves(run: Run, url: str) -> None:
    """Verify gives for each session the version and hash up to which it is proved; without a name for all, deleted ones too."""
    with perdure.sync.open(url) as store:
        store.delete("hello")
    rows = run("verify").rows
    assert [(row["session"], row["ok"], row["version"], row["commits"]) for row in rows] == [("trip-42", True, 3, 3), ("hello", True, 2, 2)]
    assert rows == run("verify", "--all").rows
    assert rows[0]["hash"] == run("log", "trip-42").rows[0]["hash"]
    assert "1 session verified" in run("verify", "trip-42", "--no-json").err
    assert run("verify", "nobody").status == 3
    assert run("verify", "trip-42", "--all").status == 2


def test_verify_finds_tampering(run: Run, url: str, tmp_path: Path) -> None:
    """A changed byte is exit 7, with the session and version named; the other sessions are verified all the same."""
    tamper(tmp_path / "perdure.db")
    ran = run("verify")
    assert ran.status == 7
    assert [(row["session"], row["ok"], row["code"]) for row in ran.rows] == [("hello", True, None), ("trip-42", False, "corrupt")]
    assert "Version 2" in ran.rows[1]["problem"]
    assert run("verify", "hello").status == 0
    shown = run("verify", "--no-json", "--quiet")
    assert "BAD" in shown.out and "hello" not in shown.out and shown.err == ""
    assert run("show", "trip-42").err.startswith("perdure: corrupt: ")


def test_doctor_of_a_healthy_store(run: Run, url: str, tmp_path: Path) -> None:
    """A healthy store is exit 0, with its facts, and not a byte of it is changed."""
    before = prints(tmp_path)
    ran = run("doctor", "--deep")
    facts = ran.rows[0]
    assert (ran.status, facts["healthy"], facts["engine"], facts["durability"]) == (0, True, "sqlite", "local")
    assert (facts["sessions"], facts["commits"], facts["schema"], facts["journal_mode"]) == (2, 4, SCHEMA_VERSION, "wal")
    assert (facts["synchronous"], facts["deep"], facts["sqlite_wal_reset_fixed"]) == ("full", "ok", True)
    assert facts["pages"] * facts["page_bytes"] == facts["file_bytes"] and facts["disk_free_bytes"] > 0
    text = run("doctor", "--no-json").out
    assert "journal mode" in text and "healthy" in text
    assert prints(tmp_path) == before


def test_doctor_while_a_writer_is_at_work(run: Run, url: str) -> None:
    """A store in use is examined, its log included, and its writer goes on."""
    with perdure.sync.open(url) as store:
        store.append("new", perdure.Event("step"))
        facts = run("doctor").rows[0]
        assert (facts["healthy"], facts["sessions"]) == (True, 3) and facts["wal_bytes"] > 0
        assert store.append("new", perdure.Event("step")).version == 2


@pytest.mark.parametrize("kind", ["text", "database", "wal", "newer", "truncated", "flipped"])
def test_doctor_finds_what_is_wrong(run: Run, url: str, tmp_path: Path, kind: str) -> None:
    """What is no store, newer, or damaged is named with what to do about it; a file that is not ours is left byte for byte."""
    path = tmp_path / "perdure.db"
    if kind in ("text", "database", "wal"):
        path.unlink()
    match kind:
        case "text":
            path.write_text("Dear diary, " * 100)
        case "database" | "wal":
            database = apsw.Connection(str(path))
            database.pragma("journal_mode", "wal" if kind == "wal" else "delete")
            database.execute("CREATE TABLE theirs (x)")
            database.close()
        case "newer":
            database = apsw.Connection(str(path))
            database.pragma("user_version", 99)
            database.execute("UPDATE store SET value = '99' WHERE name = 'min_writer'")
            database.close()
        case "truncated":
            path.write_bytes(path.read_bytes()[:9000])
        case "flipped":
            content = path.read_bytes()
            path.write_bytes(content[:4096] + bytes(byte ^ 255 for byte in content[4096:12288]) + content[12288:])
    before = prints(tmp_path)
    ran = run("doctor", "--deep")
    expected = {"text": (7, "corrupt"), "database": (6, "invalid"), "wal": (6, "invalid"), "newer": (9, "unsupported")}
    facts = ran.rows[0]
    assert (ran.status, facts["findings"][0]["code"]) == expected.get(kind, (7, "corrupt"))
    assert not facts["healthy"] and facts["findings"][0].keys() == {"level", "code", "what", "fix"} and facts["findings"][0]["fix"]
    assert "fix: " in run("doctor", "--no-json", "--deep").out
    assert {name: print for name, print in prints(tmp_path).items() if name in before} == before
    if kind in ("text", "database", "wal"):
        assert prints(tmp_path) == before


def test_doctor_of_other_urls(run: Run) -> None:
    """Memory is healthy and survives nothing; a URL that nobody serves is named with those there are."""
    facts = run("doctor", "--url", "memory:").rows[0]
    assert (facts["engine"], facts["durability"], facts["healthy"]) == ("memory", "memory", True)
    ran = run("doctor", "--url", "carrier-pigeon://user:secret@roof")
    assert ran.status == 6 and "sqlite" in ran.rows[0]["findings"][0]["what"] and "secret" not in ran.out + ran.err
