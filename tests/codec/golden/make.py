"""Makes the golden files. Run it only to add a format or a schema: files that are there stay as they are, for ever.

The bytes of a SQLite file, and of a compressed body, may differ with the version of the library that wrote them; what they read as may not.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import perdure
from perdure.backends.spi import SCHEMA_VERSION
from perdure.clock import SeededClock
from perdure.codec import envelope, formats
from perdure.codec.codec import Codec
from perdure.codec.records import request_digest
from perdure.model.commit import GENESIS, Kind, commit_hash, static_header
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.ops import Op, TakingOp

HERE = Path(__file__).parent
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BYTES = "bytes3"
"""The newest of the files of bytes: since the second, what is small is compressed with the dictionary; since the third, operations
may be marked."""
REFERENCES = "references1"
"""The newest of the files of references to bodies out of line."""
STORE = f"schema{SCHEMA_VERSION}-lives"
"""The newest of the stores: since the second, a tombstone raises the epoch, and a second life has keys of its own."""
BODIES: dict[str, Any] = {
    "plain": [["message", {"role": "user", "content": "hi"}, []]],
    "ops": [["edited", None, [[kind, "/a~1b/é", value] for kind, value in (("set", 1), ("remove", None), ("init", []), ("append", [1]))]]],
    "more ops": [
        ["x", None, [["splice", "/l", [0, 1, ["a"]]], ["add", "/n", 0.5], ["union", "/u", [1]], ["merge", "", {"k": None}]]],
        ["y", 0, [["test", "/n", 0.5]]],
    ],
    "marked ops": [
        ["edited", None, [["splice", "/todo", [0, 1, []], "take"], ["append", "/mine", ["take"]], ["remove", "/a", None, "take"]]],
        ["y", "take", [["set", "/n", 1, "take"], ["remove", "/b", None]]],
    ],
    "numbers": [["n", [0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 0.0, -0.0, 5e-324, 1.7976931348623157e308, 1e16], []]],
    "big integers": [["n", [2**64, -(2**63) - 1, 10**200], []]],
    "text": [["é\U0001f600", {"": "\u0000\u001f\u007f\u2028\ud7ff\uffff\U0010ffff", "~/": None, "quote": '"\\/'}, []]],
    "compressed": [["message", {"text": "the quick brown fox " * 60}, []]],
}
STATES: dict[str, Any] = {
    "empty": {},
    "document": {"tokens": 512, "offers": [{"id": 7, "price": -0.0}], "done": False, "note": None, "big": 2**70},
    "list": [1, [2, [3]]],
    "compressed": {f"key {number}": ["value"] * 3 for number in range(50)},
}


def events(plain: Any) -> tuple[Event, ...]:
    """Events from the JSON in which the golden files spell them."""
    return tuple(Event(type, data, tuple(Op(*op) if len(op) < 4 else TakingOp(*op) for op in ops)) for type, data, ops in plain)


def as_bytes() -> dict[str, Any]:
    """Bodies, snapshots and hashes, each beside what it was made from."""
    session, commit_id = SessionKey("acme", "trip-42"), bytes(range(16))
    bodies, snapshots, records = [], [], []
    for name, plain in BODIES.items():
        for format in sorted(formats.NAMES):
            body = Codec(format).encode_events(events(plain))
            bodies.append({"name": name, "format": format, "events": plain, "body": body.hex(), "digest": envelope.body_digest(body).hex()})
    for name, state in STATES.items():
        for format in sorted(formats.NAMES):
            made = Codec(format).encode_snapshot(session, 300, bytes(range(32)), state)
            snapshots.append({"name": name, "format": format, "state": state, "body": made.body.hex()})
    facts: list[tuple[int, int, int, str, Kind, str | None, str | None, str | None]] = [
        (0, 1_700_000_000_000_000_000, 0, "json", Kind.data, None, None, None),
        (1, 1_700_000_000_000_000_001, 0, "msgpack", Kind.data, "planner", "key-1", TRACE),
        (2**40, 2**62, 2**33, "json", Kind.tombstone, "é", None, None),
    ]
    for before, at, epoch, format, kind, actor, key, trace in facts:
        prev = GENESIS if before == 0 else bytes(range(32))
        request = b"" if key is None else request_digest(events(BODIES["plain"]))
        options = {"actor": actor, "key": key, "request": request, "trace": trace}
        proposal = Codec(format).propose(session, events(BODIES["plain"]), id=commit_id, kind=kind, **options)
        static = static_header(session.tenant, session.id, commit_id, kind, actor, key, request, trace, proposal.body[2])
        assert static == proposal.static
        hash = commit_hash(prev, before + 1, at, epoch, static, proposal.digest)
        columns = {"version": before + 1, "at": at, "epoch": epoch, "kind": int(kind), "actor": actor, "key": key, "trace": trace}
        stored = {"prev": prev, "request": request, "body": proposal.body, "static": static, "meta": prev + proposal.meta, "hash": hash}
        records.append({**columns, **{name: value.hex() for name, value in stored.items()}})
    erased = envelope.erase_body(Codec().encode_events(events(BODIES["plain"])))
    return {
        "session": list(session),
        "id": commit_id.hex(),
        "bodies": bodies,
        "snapshots": snapshots,
        "records": records,
        "erased": erased.hex(),
    }


def as_references() -> list[dict[str, Any]]:
    """What stands in a record for a body that lies elsewhere, beside the body and what it says of it."""
    many = [["type " + "x" * 100 + str(number), None, []] for number in range(60)]
    found = []
    for name, plain in [*BODIES.items(), ("many types", many)]:
        for format, life in zip(sorted(formats.NAMES), (0, 5 << 14), strict=True):
            proposal = Codec(format).propose(SessionKey("acme", "trip-42"), events(plain), id=bytes(range(16)))
            reference, made = proposal.out_of_line(life, events(plain))
            facts = {"size": reference.size, "life": life, "has_ops": reference.has_ops, "types": reference.types}
            found.append({"name": name, "format": format, "body": proposal.body.hex(), **facts, "reference": made.body.hex()})
    return found


async def fill(url: str) -> None:
    """A store that has one of each: formats, kinds, keys, actors, a merged fork, a deletion, a re-creation, snapshots, tenants."""
    for format in sorted(formats.NAMES):
        async with perdure.open(url, clock=SeededClock(len(format)), format=format, snapshot_bytes_min=1_500) as store:
            name = f"trip-{format}"
            await store.append(name, Event("message", {"role": "user", "content": "hi"}), key="first", actor="planner")
            async with store.edit(name) as draft:
                draft.state.update({"status": "searching", "offers": [{"id": 7}], "zero": -0.0, "big": 2**70})
                draft.event("tool_called", {"name": "search"})
            await store.configure(name, tags={"team": "ops", "format": format})
            for number in range(12):
                async with store.edit(name, actor="worker") as draft:
                    draft.add("/tokens", 128)
                    draft.state["offers"].insert(0, {"id": number, "text": "offer " * 5})
            fork = await store.fork(name, at=4, id=f"fork-{format}")
            async with store.edit(fork) as draft:
                draft.state["status"] = "booked"
            await store.merge(fork, into=name)
            await store.append("gone-" + format, Event("x", None, (Op("set", "/a", 1),)))
            await store.delete("gone-" + format)
            await store.append("back-" + format, Event("x", None, (Op("set", "/a", 1),)))
            await store.delete("back-" + format)
            await store.append("back-" + format, Event("y", None, (Op("set", "/b", 2),)), recreate=True)
            await store.for_tenant("acme").append(name, Event("other", format))
            for session in ("twice-" + format, "purged-" + format):
                await store.append(session, Event("x", None, (Op("set", "/a", 1),)), key="first")
                await store.delete(session)
                if session.startswith("purged"):
                    await store.purge(session)
                await store.append(session, Event("y", None, (Op("set", "/b", 2),)), key="first", recreate=True)
                await store.fork(session, id=f"fork-of-{session}")
            await store.append("ended-" + format, Event("x"))
            await store.delete("ended-" + format)
            await store.purge("ended-" + format)


async def describe(url: str) -> dict[str, Any]:
    """All that a reader sees: of every session its row, and each commit with the state behind it."""
    found: dict[str, Any] = {}
    async with perdure.open(url) as store:
        found["id"] = store.id
        for tenant in ("acme", "default"):
            scoped = store.for_tenant(tenant)
            infos = [info async for info in scoped.list()] + [info async for info in scoped.list(status="deleted")]
            for info in infos:
                proof = await scoped.verify(info.session)
                session: dict[str, Any] = {
                    "version": info.version,
                    "status": info.status.name,
                    "tags": dict(info.tags),
                    "created_at": info.created_at.isoformat(),
                    "updated_at": info.updated_at.isoformat(),
                    "hash": proof.hash.hex(),
                    "snapshots": proof.snapshots,
                }
                if info.status.name != "deleted":
                    session["state"] = (await scoped.read(info.session)).state
                    session["commits"] = [
                        {
                            "version": commit.version,
                            "kind": commit.kind.name,
                            "at": commit.at,
                            "actor": commit.actor,
                            "key": commit.key,
                            "hash": commit.hash.hex(),
                            "events": [
                                [event.type, event.data, [[op.kind, op.path, op.value] for op in event.ops]] for event in commit.events
                            ],
                            "state": (await scoped.read(info.session, at=commit.version)).state,
                        }
                        async for commit in scoped.history(info.session)
                    ]
                found[f"{tenant}/{info.session}"] = session
    return found


def main() -> None:
    """Write what is missing."""
    if not (HERE / f"{BYTES}.json").exists():
        (HERE / f"{BYTES}.json").write_text(json.dumps(as_bytes(), indent=1) + "\n")
    if not (HERE / f"{REFERENCES}.json").exists():
        (HERE / f"{REFERENCES}.json").write_text(json.dumps(as_references(), indent=1) + "\n")
    if not (HERE / f"{STORE}.db").exists():
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/{STORE}.db"
            asyncio.run(fill(url))
            (HERE / f"{STORE}.json").write_text(json.dumps(asyncio.run(describe(url)), indent=1) + "\n")
            (HERE / f"{STORE}.db").write_bytes(Path(folder, f"{STORE}.db").read_bytes())


if __name__ == "__main__":
    main()
