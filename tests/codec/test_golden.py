"""Golden files: what was once stored is read for ever, and the bytes that are written today are the same."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure.codec import compress, envelope, formats, out_of_line
from perdure.codec.codec import Codec
from perdure.model.commit import Kind, commit_hash, static_header
from perdure.model.ids import SessionKey
from perdure.model.record import Head, Record, Snapshot
from perdure.model.state import apply
from perdure.model.values import same

GOLDEN = Path(__file__).parent / "golden"
FILES: list[dict[str, Any]] = [json.loads(path.read_text()) for path in sorted(GOLDEN.glob("bytes*.json"))]
SESSION, ID = SessionKey(*FILES[0]["session"]), bytes.fromhex(FILES[0]["id"])
DICTIONARY = "1269a567c2378cb321af23c01b7cb30269064a75ac39dedeb078f1ac8ccb2650"
REFERENCES: list[dict[str, Any]] = [case for path in sorted(GOLDEN.glob("references*.json")) for case in json.loads(path.read_text())]
SCHEMAS = sorted(path.stem for path in GOLDEN.glob("schema*.db"))


def load_maker() -> Any:
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = load_maker()


def named(kind: str) -> Any:
    cases = {f"{case['name']}-{case['format']}-{number}": case for number, file in enumerate(FILES, 1) for case in file[kind]}
    return pytest.mark.parametrize("case", cases.values(), ids=[name.replace(" ", "-") for name in cases])


def written_as_ever(written: bytes, body: bytes) -> None:
    """The bytes are the same, but where a compressed frame changed, or the way to compress."""
    assert written[:3] == body[:3]
    assert bool(written[3]) == bool(body[3])
    if not body[3]:
        assert written == body


@named("bodies")
def test_a_body_is_read_and_written_as_ever(case: dict[str, Any]) -> None:
    """The bytes give the events, and the events give the bytes (a compressed body: the same payload, whatever the frame)."""
    body, codec = bytes.fromhex(case["body"]), Codec(case["format"])
    events = make.events(case["events"])
    found = codec.decode_events(body)
    assert [event.type for event in found] == [event.type for event in events]
    assert same([event.data for event in found], [event.data for event in events])
    assert tuple(found) == events
    plain = [[op.kind, op.path, op.value, *(["take"] if op.taken else [])] for event in found for op in event.ops]
    assert same(plain, [op for event in case["events"] for op in event[2]])
    assert envelope.body_digest(body).hex() == case["digest"]
    written_as_ever(codec.encode_events(events), body)


@pytest.mark.parametrize("code", [formats.JSON, formats.MSGPACK])
def test_a_reader_that_knows_no_marks_folds_marked_operations_all_the_same(code: int) -> None:
    """The mark stands behind what every reader reads: without it the operations are the same, and so is the state."""
    marked = make.events(make.BODIES["marked ops"])
    payload, _ = formats.encode(marked, code)
    decoder: Any = msgspec.json if code == formats.JSON else msgspec.msgpack
    unmarked = decoder.decode(payload, type=tuple[make.Event, ...])
    ops = [op for event in unmarked for op in event.ops]
    assert [(op.kind, op.path, op.value) for op in ops] == [(op.kind, op.path, op.value) for event in marked for op in event.ops]
    state = {"todo": [1], "mine": [], "a": 0, "b": 0, "n": 0}
    assert apply(state, ops) == apply(state, [op for event in marked for op in event.ops]) == {"todo": [], "mine": ["take"], "n": 1}


@named("snapshots")
def test_a_snapshot_is_read_and_written_as_ever(case: dict[str, Any]) -> None:
    """The same for snapshots, with their seal."""
    codec, stored = Codec(case["format"]), Snapshot(300, bytes(range(32)), bytes.fromhex(case["body"]))
    assert same(codec.decode_snapshot(SESSION, stored), case["state"])
    written_as_ever(codec.encode_snapshot(SESSION, 300, stored.hash, case["state"]).body, stored.body)


def test_the_dictionary_is_as_ever() -> None:
    """Not a byte of the dictionary changes: bodies that were compressed with it would be lost."""
    assert hashlib.sha256(compress.dictionary().dict_content).hexdigest() == DICTIONARY


def test_every_way_to_compress_is_among_them() -> None:
    """The golden bodies and snapshots are stored in each of the ways that there are."""
    for kind in ("bodies", "snapshots"):
        assert {case["body"][6:8] for file in FILES for case in file[kind]} == {"00", "01", "02"}


@pytest.mark.parametrize("case", FILES[-1]["records"], ids=lambda case: f"version-{case['version']}")
def test_a_hash_is_computed_as_ever(case: dict[str, Any]) -> None:
    """Header, meta and hash of a commit are the golden ones, and its record opens."""
    prev, request, body, static, meta, hash = (bytes.fromhex(case[name]) for name in ("prev", "request", "body", "static", "meta", "hash"))
    kind = Kind(case["kind"])
    assert static == static_header(*SESSION, ID, kind, case["actor"], case["key"], request, case["trace"], body[2])
    assert hash == commit_hash(prev, case["version"], case["at"], case["epoch"], static, envelope.body_digest(body))
    codec = Codec({code: name for name, code in formats.NAMES.items()}[body[2]])
    events = codec.decode_events(body)
    made = codec.propose(SESSION, events, id=ID, kind=kind, actor=case["actor"], key=case["key"], request=request, trace=case["trace"])
    assert (made.static, prev + made.meta, made.body) == (static, meta, body)
    head = Head(case["version"], hash, case["at"], case["epoch"], 0, case["version"])
    commit = codec.open_record(SESSION, Record(head, ID, case["kind"], case["key"], request, meta, body), prev)
    assert (commit.kind, commit.actor, commit.trace, commit.events) == (kind, case["actor"], case["trace"], events)


def test_an_erased_body_is_as_ever() -> None:
    """The marker of an erased body keeps its layout."""
    plain = next(case for case in FILES[0]["bodies"] if case["name"] == "plain" and case["format"] == "json")
    assert envelope.erase_body(bytes.fromhex(plain["body"])).hex() == FILES[0]["erased"]
    assert envelope.body_digest(bytes.fromhex(FILES[0]["erased"])).hex() == plain["digest"]


@pytest.mark.parametrize("case", REFERENCES, ids=lambda case: f"{case['name']}-{case['format']}".replace(" ", "-"))
def test_a_reference_is_read_and_written_as_ever(case: dict[str, Any]) -> None:
    """What stands in a record for a body that lies elsewhere says what it said, and is written as it was, for that very body."""
    body, stored = bytes.fromhex(case["body"]), bytes.fromhex(case["reference"])
    found = out_of_line.unwrap_reference(stored)
    assert found.digest == envelope.body_digest(body) == envelope.body_digest(stored)
    assert (found.size, found.life, found.has_ops) == (case["size"], case["life"], case["has_ops"])
    assert found.types == (None if case["types"] is None else tuple(case["types"]))
    events = Codec().decode_events(body)
    assert out_of_line.wrap_reference(out_of_line.refer(body, body[2], case["life"], events)) == stored
    codec = Codec(case["format"])
    proposal = msgspec.structs.replace(codec.propose(SESSION, events, id=ID), digest=envelope.body_digest(body), body=stored)
    record = proposal.finish(None, 1)
    assert codec.open_record(SESSION, record, bytes(32), body=body).events == events
    assert codec.open_record(SESSION, record, bytes(32), partial=True).events == ()


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_an_old_file_reads_as_ever(schema: str, tmp_path: Path) -> None:
    """A file of each schema there was opens, verifies, and gives every commit, hash, tag and state that it gave when it was made."""
    shutil.copy(GOLDEN / f"{schema}.db", tmp_path / "old.db")
    expected = json.loads((GOLDEN / f"{schema}.json").read_text())
    found = await make.describe(f"sqlite:///{tmp_path}/old.db")
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == expected[name], name
    assert same(found, expected)


async def test_an_old_file_goes_on(tmp_path: Path) -> None:
    """Sessions of an old file take new commits, remember their keys and merge their forks."""
    shutil.copy(GOLDEN / "schema1.db", tmp_path / "old.db")

    async with make.perdure.open(f"sqlite:///{tmp_path}/old.db") as store:
        again = await store.append("trip-json", make.Event("message", {"role": "user", "content": "hi"}), key="first", actor="planner")
        assert (again.version, again.duplicate) == (1, True)
        before = await store.read("trip-json")
        async with store.edit("fork-json") as draft:
            draft.state["note"] = "new"
        receipt = await store.merge("fork-json", into="trip-json")
        assert receipt is not None
        assert receipt.version == before.version + 1
        after = await store.read("trip-json")
        assert after.state == {**before.state, "note": "new"}
        await store.verify("trip-json")


async def test_the_maker_still_makes_them(tmp_path: Path) -> None:
    """The script that made the golden files gives the same store today, hash by hash, but where a compressed frame changed."""
    url = f"sqlite:///{tmp_path}/new.db"
    await make.fill(url)
    found = await make.describe(url)
    expected = json.loads((GOLDEN / f"{make.STORE}.json").read_text())
    assert found.keys() == expected.keys()
    for name, session in expected.items():
        if name != "id" and "commits" in session:
            assert [commit["state"] for commit in found[name]["commits"]] == [commit["state"] for commit in session["commits"]], name
            assert [commit["events"] for commit in found[name]["commits"]] == [commit["events"] for commit in session["commits"]], name
