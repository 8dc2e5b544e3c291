"""append and fork."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_append_starts_a_store(run: Run, tmp_path: Path) -> None:
    """The first append makes the file and answers with the receipt; data comes as a word, from a file or from stdin."""
    (tmp_path / "data.json").write_text('{"from": "file"}')
    first = run("append", "s", "message", "--data", '{"role": "user"}', "--actor", "ana").rows[0]
    assert (first["session"], first["version"], first["durability"], first["duplicate"]) == ("s", 1, "local", False)
    assert len(first["hash"]) == 64 and len(first["id"]) == 36 and first["at"].endswith("Z")
    assert run("append", "s", "note", "--data", "@data.json", "--no-json").out == "s version 2, durability local\n"
    assert run("append", "s", "note", "--data", "-", stdin="-5").status == 0
    assert run("append", "s", "note", "--data", "-7", "--quiet", "--no-json").out == ""
    assert [row["events"][0]["data"] for row in run("log", "s").rows] == [-7, -5, {"from": "file"}, {"role": "user"}]


def test_append_changes_the_state(run: Run) -> None:
    """Operations are given as arrays or as objects and are applied in their order."""
    run("append", "s", "start", "--op", '["set", "/a", 1]', "--op", '{"op": "append", "path": "/l", "value": [1]}')
    run("append", "s", "more", "--op", '["add", "/a", 2]', "--op", '["remove", "/l"]')
    assert run("show", "s").rows[0]["state"] == {"a": 3}


def test_append_once(run: Run) -> None:
    """A second call with the same key answers with the first one's receipt; with another payload it is refused."""
    first = run("append", "s", "paid", "--key", "k").rows[0]
    again = run("append", "s", "paid", "--key", "k").rows[0]
    assert again == {**first, "duplicate": True}
    assert "applied before" in run("append", "s", "paid", "--key", "k", "--no-json").out
    assert run("append", "s", "unpaid", "--key", "k").status == 6


def test_append_on_a_version(run: Run) -> None:
    """--expect 0 refuses a session that is there; an old version merges, or conflicts and writes nothing."""
    run("append", "s", "one", "--op", '["set", "/a", 1]')
    run("append", "s", "two", "--op", '["set", "/a", 2]')
    taken = run("append", "s", "x", "--expect", "0")
    assert taken.status == 4 and taken.err.startswith("perdure: already_exists: ")
    clash = run("append", "s", "x", "--expect", "1", "--op", '["set", "/a", 3]')
    assert clash.status == 4 and clash.err.startswith("perdure: conflict: ")
    assert run("append", "s", "x", "--expect", "1", "--on-conflict", "raise").status == 4
    assert run("append", "s", "x", "--expect", "1", "--op", '["set", "/b", 3]').rows[0]["version"] == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["s", "note", "--data", "hello"],
        ["s", "note", "--data", "@missing"],
        ["s", "note", "--data", "-"],
        ["s", "note", "--op", "set /a 1"],
        ["s", "note", "--op", '["set"]'],
        ["s", "note", "--op", '["sett", "/a", 1]'],
        ["s", "note", "--op", '{"op": "set", "path": "/a", "valeu": 1}'],
        ["s", "note", "--expect", "-1"],
        ["s", ""],
        ["", "note"],
        ["a\nb", "note"],
    ],
)
def test_append_refuses(run: Run, arguments: list[str]) -> None:
    """Bad input is one line on stderr and exit 6; nothing is written."""
    ran = run("append", *arguments)
    assert (ran.status, ran.out, ran.err.count("\n")) == (6, "", 1)
    assert ran.err.startswith("perdure: invalid: ")
    assert run("ls").out == ""


def test_fork(run: Run, url: str) -> None:
    """A fork goes on from a version, under a name or a fresh id, and has the parent's state there."""
    row = run("fork", "trip-42", "--at", "2", "--id", "what-if").rows[0]
    assert row == {"session": "what-if", "parent": "trip-42", "at": 2, "version": 3}
    assert run("show", "what-if").rows[0]["state"]["status"] == "searching"
    name = run("fork", "trip-42", "--no-json", "--quiet").out.strip()
    assert json.loads(run("ls", name).out)["session"] == name
    assert run("fork", "trip-42", "--id", "what-if").status == 4
    assert run("fork", "trip-42", "--at", "99").status == 3


def test_merge(run: Run, url: str) -> None:
    """What a fork did goes into its parent as one commit; a second time there is nothing to merge; what clashes is refused."""
    run("fork", "trip-42", "--id", "what-if")
    run("append", "what-if", "insured", "--op", '["set", "/insurance", true]')
    assert (
        run("merge", "what-if", "--into", "trip-42", "--no-json", "--actor", "ana").out
        == "what-if was merged into trip-42, now version 5\n"
    )
    assert run("show", "trip-42", "--path", "/insurance").rows[0]["state"] is True
    again = run("merge", "what-if", "--into", "trip-42", "--no-json")
    assert (again.status, again.out) == (0, "") and "nothing to merge" in again.err
    run("append", "what-if", "x", "--op", '["set", "/status", "a"]')
    run("append", "trip-42", "x", "--op", '["set", "/status", "b"]')
    assert run("merge", "what-if", "--into", "trip-42").status == 4
    assert run("merge", "hello", "--into", "trip-42").status == 6


def test_delete_and_begin_again(run: Run, url: str) -> None:
    """A deleted session is not found and takes no writes; with --recreate it goes on from its tombstone."""
    row = run("delete", "hello", "--actor", "ana").rows[0]
    assert (row["session"], row["version"]) == ("hello", 2)
    assert run("delete", "hello").status == run("show", "hello").status == run("append", "hello", "x").status == 3
    assert [row["session"] for row in run("ls").rows] == ["trip-42"]
    assert run("append", "hello", "x", "--recreate").rows[0]["version"] == 3
    assert run("delete", "nobody").status == 3


def test_tags(run: Run, url: str) -> None:
    """Tags are shown, set one by one and taken away; the others stay; the same again is no commit."""
    assert run("tag", "trip-42", "team=ops", "env=test").rows[0] == {
        "session": "trip-42",
        "version": 4,
        "tags": {"team": "ops", "env": "test"},
    }
    assert run("tag", "trip-42", "team=sales", "--remove", "env").rows[0]["tags"] == {"team": "sales"}
    assert run("tag", "trip-42", "team=sales").rows[0]["version"] == 5
    assert run("tag", "trip-42", "--no-json").out == "team=sales\n"
    assert "has no tags" in run("tag", "hello", "--no-json").err
    assert run("tag", "nobody", "a=b").status == 3 and run("tag", "trip-42", "ab").status == 2


def test_find(run: Run, url: str) -> None:
    """A key leads to the commit that it was applied by; one that was not is exit 3, in silence for machines."""
    assert run("find", "trip-42", "k-1").rows[0]["version"] == 1
    assert run("find", "trip-42", "k-1", "--no-json").out.startswith("trip-42 version 1, ")
    missing = run("find", "trip-42", "k-2", "--no-json")
    assert (missing.status, missing.out) == (3, "") and "was not applied" in missing.err


def test_ls_recent(run: Run, url: str) -> None:
    """--recent orders by the newest commit, and --limit takes the first of them."""
    run("append", "hello", "x")
    assert [row["session"] for row in run("ls", "--recent").rows] == ["hello", "trip-42"]
    assert [row["session"] for row in run("ls", "--recent", "--limit", "1").rows] == ["hello"]
    assert run("ls", "--recent", "--limit", "0").rows == []


def test_log_full(run: Run, url: str) -> None:
    """--full shows all of a commit, uncut: key, hash, data and every operation."""
    text = run("log", "trip-42", "--full", "--no-json", columns=60).out
    hashes = [row["hash"] for row in run("log", "trip-42").rows]
    assert all(hash in text for hash in hashes) and "k-1" in text and f"add /tokens {2**70}" in text
    assert '{"role":"user","content":"Two nights\\nin Lisbon"}' in text.replace("\n", "").replace("    ", "")


def test_messages(run: Run, url: str) -> None:
    """A transcript is a dialogue, oldest first: who, the words on their own lines, calls and answers; a session without one says so."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "book", "arguments": '{"room": 7}'}}]}
    for message in (call, {"role": "tool", "tool_call_id": "c", "content": "booked"}):
        run("append", "trip-42", "message", "--data", json.dumps(message))
    rows = run("messages", "trip-42").rows
    said = [(row["version"], row["who"], row["text"]) for row in rows]
    assert said == [(1, "user", "Two nights\nin Lisbon"), (4, "assistant", ""), (5, "tool", "")]
    assert rows[1]["calls"] == [{"name": "book", "arguments": {"room": 7}, "id": "c"}]
    assert rows[2]["answers"] == [{"name": "book", "content": "booked", "id": "c"}]
    lines = [line.rstrip() for line in run("messages", "trip-42", "--no-json").out.splitlines()]
    assert lines[0].startswith("user  version 1, ") and lines[1:3] == ["  Two nights", "  in Lisbon"]
    assert "  → book(room=7)" in lines and "  book: booked" in lines
    assert len(run("messages", "trip-42", "--limit", "1").rows) == 1
    run("append", "other", "note")
    assert "There are no messages in other" in run("messages", "other", "--no-json").err


def test_a_store_that_is_made_is_said_to_be(run: Run, tmp_path: Path) -> None:
    """The append that starts a store says so on stderr, with --json as an object; later ones, and --quiet, say nothing."""
    assert run("append", "s", "note", "--no-json").err == "perdure: the store sqlite:///perdure.db was not there and was made.\n"
    assert run("append", "s", "note", "--no-json").err == ""
    assert json.loads(run("append", "s", "note", "--json", "--url", "sqlite:///b.db").err) == {"made": "sqlite:///b.db"}
    assert run("append", "s", "note", "--quiet", "--url", "sqlite:///c.db").err == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.db", "c.db", "perdure.db"]


def test_reading_a_mistyped_place_makes_nothing(run: Run, tmp_path: Path) -> None:
    """A folder that holds no store stays as it is, for every command but append and import."""
    (tmp_path / "there").mkdir()
    for url in ("file:///" + str(tmp_path / "nowhere").lstrip("/"), "file:///" + str(tmp_path / "there").lstrip("/")):
        for command in (["ls"], ["log", "s"], ["verify"], ["doctor"], ["delete", "s"]):
            assert run(*command, "--url", url).status == 3, command
    assert [path.name for path in tmp_path.iterdir()] == ["there"] and not list((tmp_path / "there").iterdir())


def test_purge(run: Run, url: str, tmp_path: Path) -> None:
    """Purging needs --yes where nobody can be asked, and a deleted session; then its commits are gone and its id stays dead."""
    run("append", "hello", "secret", "--data", '"the-hotel-in-lisbon"')
    assert run("purge", "hello").status == 2
    assert run("purge", "hello", "--yes").status == 6
    run("delete", "hello")
    assert run("log", "hello").status == 3 and len(run("log", "hello", "--include-deleted").rows) == 3
    assert run("show", "hello", "--include-deleted").rows[0]["status"] == "deleted"
    assert run("purge", "hello", "--yes", "--no-json").out == "hello was purged\n"
    assert run("purge", "nobody", "--yes").status == 3 and run("show", "hello").status == 3
    assert b"the-hotel-in-lisbon" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
