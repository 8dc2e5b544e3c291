"""The hostile kit: real records with each field falsified in turn. The node stores none of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from perdure import Event, op
from perdure.backends.spi import Head, Record
from perdure.codec import envelope
from perdure.codec.records import Base
from perdure.errors import Invalid
from perdure.model.commit import Kind, Status
from perdure.model.control import CONTROL
from perdure.model.epoch import challenged, granted, raised
from perdure.model.ids import SessionKey
from perdure.model.lease import LeaseSection, leased, released
from perdure.service.hooks import Scope
from perdure.service.refusals import Forbidden
from perdure.wire import records as wire
from tests.support.service.hostile import CODEC, OWNER, TENANT, Client, client, everything, only, rehashed

DAY = 24 * 3600 * 10**9
S = "s"
Lie = Callable[[Client, Head, Record], wire.Attempt]
LIES: dict[str, Lie] = {}


def lie(what: str) -> Callable[[Lie], Lie]:
    """Register a lie about an honest record that would follow the head."""

    def register(make: Lie) -> Lie:
        LIES[what] = make
        return make

    return register


def events(ops: bytes) -> bytes:
    """A body with one event, which has these operations."""
    return envelope.wrap_events(b'[["e",null,[%b]]]' % ops, 1)


def columns(what: str, **changed: Any) -> None:
    """A lie about columns. The hash is the honest one."""

    @lie(what)
    def make(client: Client, head: Head, record: Record) -> wire.Attempt:
        return client.attempt(S, head, msgspec.structs.replace(record, **changed))


def position(what: str, make_changes: Callable[[Client, Head, Record], dict[str, Any]]) -> None:
    """A lie about columns, and the hash is that of the lie."""

    @lie(what)
    def make(client: Client, head: Head, record: Record) -> wire.Attempt:
        return client.attempt(S, head, rehashed(S, record, **make_changes(client, head, record)))


def heads(what: str, **changed: Any) -> None:
    """A lie about the record's head alone."""

    @lie(what)
    def make(client: Client, head: Head, record: Record) -> wire.Attempt:
        return client.attempt(S, head, msgspec.structs.replace(record, head=msgspec.structs.replace(record.head, **changed)))


heads("the hash", hash=bytes(32))
heads("a hash that is too short", hash=b"x")
heads("the version in the column", version=3)
heads("the time in the column", at=1)
heads("the epoch in the column", epoch=1)
columns("the id", id=bytes(16))
columns("an id that is too short", id=b"x")
columns("the kind in the column", kind=int(Kind.configure))
columns("a kind that there is not", kind=99)
columns("a key that the hash does not have", key="k")
columns("a request without a key", request=bytes(16))
columns("another body", body=CODEC.encode_events((Event("other"),)))
columns("no body", body=b"")
columns("a body that is no body", body=b"\xd5\x01\x01\x00garbage")
columns("a header that is cut off", meta=b"x" * 20)
columns("a header that is no header", meta=bytes(32) + b"\xc1")
position("another commit before it", lambda *_: {"prev": hashlib.sha256(b"?").digest()})
position("a gap", lambda _, head, __: {"version": head.version + 2})
position("the version of the head", lambda _, head, __: {"version": head.version})
position("a time that is the head's", lambda _, head, __: {"at": head.at})
position("a time before the head", lambda _, head, __: {"at": head.at - DAY})
position("a time more than a day ahead", lambda client, *_: {"at": client.core.clock.now() + DAY + 3_600 * 10**9})
position("a data commit that raises the epoch", lambda *_: {"epoch": raised(0, 1)})
position("a data commit that takes the lease", lambda *_: {"epoch": granted(0, 1, exclusive=True)})
position("an epoch beyond 63 bits", lambda *_: {"epoch": 1 << 63})
position("a kind that nothing makes", lambda *_: {"kind": int(Kind.moved)})
position("data as a pin", lambda *_: {"kind": int(Kind.pin)})
position("data as a lease", lambda *_: {"kind": int(Kind.lease)})
position("data as a tombstone", lambda *_: {"kind": int(Kind.tombstone)})
position("data as an anchor", lambda *_: {"kind": int(Kind.anchor)})
position("an actor that is too long", lambda *_: {"actor": "a" * 256})
position("an actor with control characters", lambda *_: {"actor": "a\nb"})
position("a trace that is none", lambda *_: {"trace": "é" * 10})
position("a digest of another length", lambda *_: {"key": "k", "request": b"x"})
position("a record of another tenant", lambda *_: {"tenant": "other"})
position("events that are none", lambda *_: {"body": envelope.wrap_events(b"[]", 1)})
position("an event that is none", lambda *_: {"body": envelope.wrap_events(b"[[1]]", 1)})
position("an event without a name", lambda *_: {"body": envelope.wrap_events(b'[[""]]', 1)})
position("an operation that there is not", lambda *_: {"body": envelope.wrap_events(b'[["e",null,[["pop","/n"]]]]', 1)})
position("an operation on a path that is none", lambda *_: {"body": envelope.wrap_events(b'[["e",null,[["set","n",1]]]]', 1)})
position("an operation with a value that is none", lambda *_: {"body": events(b'["add","/n","1"]')})
position("an operation with a mark that there is not", lambda *_: {"body": events(b'["add","/n",1,"take"]')})
position("data that is too deep", lambda *_: {"body": envelope.wrap_events(b'[["e",' + b"[" * 150 + b"]" * 150 + b"]]", 1)})
position("data that no stack has room for", lambda *_: {"body": envelope.wrap_events(b'[["e",' + b"[" * 99_999 + b"]" * 99_999 + b"]]", 1)})
position("an unknown format", lambda *_: {"body": b"\xd5\x01\x07\x00[]"})
position("a body that unpacks to too much", lambda *_: {"body": envelope.wrap_events(b'[["e","%b"]]' % (b"x" * (17 << 20)), 1)})


@lie("an erased body")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    return client.attempt(S, head, msgspec.structs.replace(record, body=envelope.erase_body(record.body)))


@lie("a body that is said to lie elsewhere")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    proposal = CODEC.propose(SessionKey(TENANT, S), (Event("note"),), id=record.id)
    return client.attempt(S, head, msgspec.structs.replace(record, body=proposal.out_of_line(0, (Event("note"),))[1].body))


@lie("a header that is written in another way")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    return client.attempt(S, head, msgspec.structs.replace(record, meta=record.meta[:32] + b"\xdc\x00\x03" + record.meta[33:]))


@lie("a key that is not the record's")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    return client.attempt(S, head, record, key="k")


@lie("a key that the attempt hides")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    return client.attempt(S, head, client.record(S, head, key="k", request=bytes(16)), key=None)


@lie("a key with control characters")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    return client.attempt(S, head, client.record(S, head, key="a\nb", request=bytes(16)))


@lie("a head that never was")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    return client.attempt(S, msgspec.structs.replace(head, hash=bytes(32)), record)


@lie("no head, where there is one")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    return client.attempt(S, None, client.record(S, None))


@lie("the record of another session")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    return client.attempt("other", None, client.record(S, None))


@lie("another tenant")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    return client.attempt(S, None, client.record(S, None, tenant="other"), tenant="other")


@lie("the tenant of Perdure's own sessions")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    return client.attempt(S, None, client.record(S, None, tenant="~" + TENANT), tenant="~" + TENANT)


@lie("the tenant of the whole store's own sessions")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    return client.attempt(S, None, client.record(S, None, tenant="~"), tenant="~")


@lie("no record")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    return client.attempt(S, head)


@lie("more records than an attempt has")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    return client.attempt(S, head, *chain(client, head, 9))


@lie("a second record that follows another one")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    first, second = chain(client, head, 2)
    return client.attempt(S, head, first, rehashed(S, second, prev=bytes(32)))


@lie("a second record with a gap")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    first, second = chain(client, head, 2)
    return client.attempt(S, head, first, rehashed(S, second, version=second.head.version + 1))


@lie("operations that do not fit the state")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    return client.attempt(S, head, client.record(S, head, Event("e", None, (op.remove("/nothing"),))))


@lie("a test that does not hold")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    return client.attempt(S, head, client.record(S, head, Event("e", None, (op.test("/n", 2),))))


@lie("operations of a second record that do not fit what the first one makes")
def _(client: Client, head: Head, record: Record) -> wire.Attempt:
    first = client.record(S, head, Event("e", None, (op.remove("/n"),)))
    return client.attempt(S, head, first, client.record(S, first.head, Event("e", None, (op.remove("/n"),))))


def control(what: str, kind: Kind, event: Event, epoch: Callable[[int], int] | None = None) -> None:
    """A control commit that says what it may not."""

    @lie(what)
    def make(client: Client, head: Head, record: Record) -> wire.Attempt:
        made = client.record(S, head, event, kind=kind, epoch=None if epoch is None else epoch(head.epoch))
        return client.attempt(S, head, made)


def _take(grant: int, life: int = 0, **changed: Any) -> Event:
    return leased(msgspec.structs.replace(LeaseSection("me", 30.0, 1, "id", grant), **changed), life)


control("tags that are none", Kind.configure, Event("configured", {"tags": {"a": 1}}))
control("a section of a lease, set by a configure commit", Kind.configure, Event("configured", {CONTROL: {"lease": None}}))
control("a section of an anchor, set by a configure commit", Kind.configure, Event("configured", {CONTROL: {"anchor": {"version": 1}}}))
control("a section that there is not", Kind.configure, Event("configured", {CONTROL: {"x": 1}}))
control("sections that are none", Kind.configure, Event("configured", {CONTROL: 7}))
control("a policy that is none", Kind.configure, Event("configured", {CONTROL: {"policy": {"expire_after": "soon"}}}))
control("a policy of no duration", Kind.configure, Event("configured", {CONTROL: {"policy": {"expire_after": -5}}}))
control("more than a configure commit says", Kind.configure, Event("configured", {"tags": {}, "more": 1}))
control("a configure commit of another name", Kind.configure, Event("renamed", {}))
control("a configure commit with operations", Kind.configure, Event("configured", {"tags": {}}, (op.set("/n", 2),)))
control("a configure commit that raises the epoch", Kind.configure, Event("configured", {"tags": {}}), lambda epoch: raised(epoch, 1))
control("a fork's first commit within a chain", Kind.configure, Event("forked", {"session": "p", "version": 1, "hash": "00" * 32}))
control("a pin for nothing", Kind.pin, Event("pinned", {"fork": "f"}))
control("a pin of a version that is still to come", Kind.pin, Event("pinned", {"fork": "f", "version": 99}))
control("a tombstone that leaves the epoch", Kind.tombstone, Event("deleted"))
control("a tombstone that raises the epoch too far", Kind.tombstone, Event("deleted"), lambda epoch: raised(epoch, 1 << 17))
control("a tombstone that leaves the lease held", Kind.tombstone, Event("deleted"), lambda epoch: granted(epoch, 1, exclusive=False))
control("a tombstone with data", Kind.tombstone, Event("deleted", {}), lambda epoch: raised(epoch, 1))
control("an anchor", Kind.anchor, Event("compacted", {CONTROL: {"anchor": {"version": 1, "hash": "", "digest": ""}}}))
control("the end of an archive that there is not", Kind.anchor, Event("restored"))
control("a lease that raises nothing", Kind.lease, _take(0))
control("a lease of another grant than its epoch's", Kind.lease, _take(7), lambda epoch: granted(epoch, 1, exclusive=False))
control("a lease of another life", Kind.lease, _take(1, life=1), lambda epoch: granted(epoch, 1, exclusive=False))
control("a lease for ever", Kind.lease, _take(1, ttl=float(1 << 60)), lambda epoch: granted(epoch, 1, exclusive=False))
control("a lease of nobody", Kind.lease, _take(1, owner=""), lambda epoch: granted(epoch, 1, exclusive=False))
control("a lease without its section", Kind.lease, Event("leased", {}), lambda epoch: granted(epoch, 1, exclusive=False))
control("a challenge of nobody", Kind.lease, Event("challenged", {"owner": "me"}), challenged)
control("an answer to nobody", Kind.lease, Event("renewed"))
control("a release of nothing", Kind.lease, released(0, 1), lambda epoch: raised(epoch, 1))


def chain(client: Client, head: Head, count: int) -> list[Record]:
    """Records one after another."""
    found: list[Record] = []
    for _ in range(count):
        found.append(client.record(S, found[-1].head if found else head))
    return found


@pytest.mark.parametrize("what", LIES)
async def test_a_record_with_a_lie_is_not_stored(what: str) -> None:
    """The node refuses it, names it `Invalid` or says where the head is, and stores nothing; the honest record still fits."""
    async with client() as hostile:
        await hostile.write(S, Event("begin", None, (op.set("/n", 1),)))
        head = await hostile.head(S)
        assert head is not None
        honest = hostile.record(S, head)
        before = everything(hostile.core.backend)
        (answer,) = await hostile.send(LIES[what](hostile, head, honest))
        assert everything(hostile.core.backend) == before
        assert isinstance(answer, wire.Refusal | wire.Mismatch), answer
        if isinstance(answer, wire.Refusal):
            assert answer.problem["code"] in ("invalid", "too_large", "forbidden", "unsupported", "corrupt"), answer
            assert answer.problem["code"] != "corrupt", "nothing stored is damaged"
        assert await hostile.send(hostile.attempt(S, head, honest)) == (wire.Stored(0),)


async def _new(hostile: Client, *records: Record) -> Any:
    before = everything(hostile.core.backend)
    (answer,) = await hostile.send(hostile.attempt("new", None, *records))
    assert everything(hostile.core.backend) == before
    assert isinstance(answer, wire.Refusal), answer
    return answer.problem


FIRSTS: dict[str, Callable[[Client], list[Record]]] = {
    "a version above 1": lambda client: [client.record("new", Head(4, bytes(32), 1, 0, 0, 4))],
    "a commit before the first one": lambda client: [rehashed("new", client.record("new", None), prev=b"x" * 32)],
    "a pin": lambda client: [client.record("new", None, Event("pinned", {"fork": "f", "version": 1}), kind=Kind.pin)],
    "a tombstone": lambda client: [client.record("new", None, Event("deleted"), kind=Kind.tombstone, epoch=raised(0, 1))],
    "tags and nothing else": lambda client: [client.record("new", None, Event("configured", {"tags": {}}), kind=Kind.configure)],
    "an epoch": lambda client: [client.record("new", None, epoch=raised(0, 1))],
    "the end of an archive": lambda client: [client.record("new", None, Event("restored"), kind=Kind.anchor)],
    "operations that need a state": lambda client: [client.record("new", None, Event("e", None, (op.remove("/x"),)))],
}


@pytest.mark.parametrize("what", FIRSTS)
async def test_no_session_begins_with_a_lie(what: str) -> None:
    """A chain begins with version 1, with data or a lease, with nothing before it."""
    async with client() as hostile:
        assert (await _new(hostile, *FIRSTS[what](hostile)))["code"] == "invalid"


async def _parent(hostile: Client) -> tuple[Record, Head]:
    """A session of three commits, a pin on the second for `f` as the fourth; the second record and the head."""
    _, second, _ = [await hostile.write("p", Event("note", number)) for number in range(3)]
    await hostile.write("p", Event("pinned", {"fork": "f", "version": 2}), kind=Kind.pin)
    head = await hostile.head("p")
    assert head is not None
    return second, head


def _forked(hostile: Client, id: str, parent: Head, *, session: str = "p", version: int | None = None, hash: bytes | None = None) -> Record:
    version = parent.version if version is None else version
    hash = parent.hash if hash is None else hash
    event = Event("forked", {"session": session, "version": version, "hash": hash.hex()})
    base = Base(parent.version, parent.hash, parent.at, parent.epoch)
    return hostile.record(id, None, event, kind=Kind.configure, base=base)


async def test_a_fork_needs_its_parent_and_a_pin() -> None:
    """A fork of a commit that its parent does not have, without a pin for it, or of another parent is not stored; the honest one is."""
    async with client() as hostile:
        second, head = await _parent(hostile)
        other = await hostile.write("q")
        lies = {
            "another id than the pin's": hostile.attempt("g", None, _forked(hostile, "g", second.head)),
            "another version than the pin's": hostile.attempt("f", None, _forked(hostile, "f", head)),
            "a parent that is not there": hostile.attempt("f", None, _forked(hostile, "f", second.head, session="nobody")),
            "another parent": hostile.attempt("f", None, _forked(hostile, "f", second.head, session="q")),
            "a hash that the parent does not have": hostile.attempt(
                "f", None, _forked(hostile, "f", msgspec.structs.replace(second.head, hash=bytes(32)))
            ),
            "a hash that it does not follow": hostile.attempt("f", None, _forked(hostile, "f", second.head, hash=other.head.hash)),
            "a version that it does not follow": hostile.attempt("f", None, _forked(hostile, "f", second.head, version=1)),
            "another epoch": hostile.attempt("f", None, rehashed("f", _forked(hostile, "f", second.head), epoch=raised(0, 1))),
            "a time before its parent's": hostile.attempt("f", None, rehashed("f", _forked(hostile, "f", second.head), at=second.head.at)),
        }
        before = everything(hostile.core.backend)
        for what, attempt in lies.items():
            (answer,) = await hostile.send(attempt)
            assert isinstance(answer, wire.Refusal), (what, answer)
            assert answer.problem["code"] in ("invalid", "not_found"), (what, answer)
            assert everything(hostile.core.backend) == before, what
        (answer,) = await hostile.send(hostile.attempt("f", None, _forked(hostile, "f", second.head)))
        assert answer == wire.Stored(0)
        again = _forked(hostile, "f", second.head)
        (answer,) = await hostile.send(hostile.attempt("f", None, again))
        assert isinstance(answer, wire.Mismatch)


async def test_a_held_lease_is_not_taken_without_a_challenge() -> None:
    """A take of a session that somebody holds is refused, until its holder was challenged; so is a challenge of one that is challenged."""
    async with client() as hostile:
        await hostile.write(S)
        await hostile.write(S, _take(1), kind=Kind.lease, epoch=granted(0, 1, exclusive=False))
        head = await hostile.head(S)
        assert head is not None
        take = hostile.record(S, head, _take(2), kind=Kind.lease, epoch=granted(head.epoch, 1, exclusive=False))
        (answer,) = await hostile.send(hostile.attempt(S, head, take))
        assert isinstance(answer, wire.Refusal)
        await hostile.write(S, Event("challenged", {"owner": "me"}), kind=Kind.lease, epoch=challenged(head.epoch))
        head = await hostile.head(S)
        assert head is not None
        (answer,) = await hostile.send(hostile.attempt(S, head, hostile.record(S, head, kind=Kind.data, epoch=head.epoch + 8)))
        assert isinstance(answer, wire.Refusal)
        await hostile.write(S, _take(2), kind=Kind.lease, epoch=granted(head.epoch, 1, exclusive=False))


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("data", [0, 1, 7])
async def test_what_no_hash_covers_is_made_by_the_node(status: Status, data: int) -> None:
    """Whatever a client says of status and data version, what is stored is what follows from the commits."""
    async with client() as hostile:
        await hostile.write(S)
        head = await hostile.head(S)
        assert head is not None
        record = hostile.record(S, head, Event("configured", {"tags": {"a": "b"}}), kind=Kind.configure)
        false = msgspec.structs.replace(record, head=msgspec.structs.replace(record.head, status=int(status), data=data))
        assert await hostile.send(hostile.attempt(S, head, false)) == (wire.Stored(0),)
        stored = await hostile.head(S)
        assert stored is not None
        assert (stored.version, stored.status, stored.data) == (2, Status.active, 1)


async def test_the_index_row_is_derived_and_never_taken() -> None:
    """Tags, due times and control cells that a client sends beside its records are ignored; those that its commits say are kept."""
    async with client() as hostile:
        head = None
        cells = wire.IndexCells({"stolen": "1"}, 5, b"\x81\xa1x\x01", 99)
        await hostile.send(hostile.attempt(S, None, hostile.record(S, None), index=cells))
        head = await hostile.head(S)
        said = Event("configured", {"tags": {"team": "ops"}, CONTROL: {"policy": {"expire_after": 10**12}, "look": None}})
        await hostile.send(hostile.attempt(S, head, hostile.record(S, head, said, kind=Kind.configure), index=cells))
        loaded = await hostile.core.backend.load(SessionKey(TENANT, S))
        assert loaded is not None
        row = loaded.row
        assert (dict(row.tags), row.size_bytes) == ({"team": "ops"}, 0)
        assert row.due_at not in (None, 5)
        assert msgspec.msgpack.decode(row.control) == {"policy": {"expire_after": 10**12}}


SCOPED: dict[str, tuple[Kind, Event, Callable[[int], int] | None, Scope]] = {
    "data": (Kind.data, Event("note"), None, Scope.append),
    "pin": (Kind.pin, Event("pinned", {"fork": "f", "version": 1}), None, Scope.append),
    "lease": (Kind.lease, _take(1), lambda epoch: granted(epoch, 1, exclusive=False), Scope.lease),
    "configure": (Kind.configure, Event("configured", {"tags": {"a": "b"}}), None, Scope.admin),
    "tombstone": (Kind.tombstone, Event("deleted"), lambda epoch: raised(epoch, 1), Scope.admin),
}


@pytest.mark.parametrize("what", SCOPED)
async def test_each_kind_asks_for_its_scope(what: str) -> None:
    """With every scope but its own a commit is `forbidden`, and nothing is stored; with its own alone it is stored."""
    kind, event, epoch, scope = SCOPED[what]
    async with client() as hostile:
        await hostile.write(S)
        head = await hostile.head(S)
        assert head is not None
        made = hostile.record(S, head, event, kind=kind, epoch=None if epoch is None else epoch(head.epoch))
        (answer,) = await hostile.send(hostile.attempt(S, head, made), credential=only(*({*Scope} - {scope})))
        assert isinstance(answer, wire.Refusal) and answer.problem["code"] == "forbidden", answer
        assert await hostile.head(S) == head
        assert await hostile.send(hostile.attempt(S, head, made), credential=only(scope)) == (wire.Stored(0),)


async def test_credentials_that_are_bound_to_an_actor_write_as_no_other() -> None:
    """A commit of another actor, or of none, is `forbidden`."""
    async with client() as hostile:
        bound = only(Scope.append, actor="me")
        for actor in ("you", None):
            (answer,) = await hostile.send(hostile.attempt(S, None, hostile.record(S, None, actor=actor)), credential=bound)
            assert isinstance(answer, wire.Refusal) and answer.problem["code"] == "forbidden"
        assert await hostile.send(hostile.attempt(S, None, hostile.record(S, None, actor="me")), credential=bound) == (wire.Stored(0),)


async def test_reads_reach_one_tenant() -> None:
    """Heads, records, keys, listings and notices of another tenant, and those of the whole store, are refused; the feed leaves them out."""
    async with client() as hostile:
        await hostile.write(S)
        face, other = hostile.face, OWNER.__class__("other")
        key = SessionKey(TENANT, S)
        for asked in (wire.Load(key), wire.Read(key), wire.FindKey(key, "k"), wire.Heads((key,)), wire.Scan(TENANT), wire.Scan(None)):
            method = {"Load": face.load, "Read": face.read, "FindKey": face.find_key, "Heads": face.heads, "Scan": face.scan}
            with pytest.raises(Forbidden):
                await method[type(asked).__name__](other, asked)
        with pytest.raises(Forbidden):
            face.notices(other, wire.Notices((key,)), 1)
        assert (await face.feed(other, wire.Feed())).changes == ()
        assert len((await face.feed(OWNER, wire.Feed())).changes) == 1


async def test_a_batch_has_bounds_and_names_no_session_twice() -> None:
    """A request with none, with too many or with two attempts for one session is refused as a whole."""
    async with client() as hostile:
        one = hostile.attempt(S, None, hostile.record(S, None))
        many = [hostile.attempt(str(number), None, hostile.record(str(number), None)) for number in range(257)]
        for attempts in ((), (one, one), tuple(many)):
            with pytest.raises(Invalid):
                await hostile.send(*attempts)
        assert not everything(hostile.core.backend)


async def test_a_lie_in_a_batch_stops_nobody_else() -> None:
    """Each attempt of a request has its own answer."""
    async with client() as hostile:
        honest = [hostile.attempt(name, None, hostile.record(name, None)) for name in ("a", "b")]
        false = hostile.attempt("c", None, rehashed("c", hostile.record("c", None), epoch=1 << 20))
        answers = await hostile.send(honest[0], false, honest[1])
        assert [type(answer) for answer in answers] == [wire.Stored, wire.Refusal, wire.Stored]
        assert {session.id for session in everything(hostile.core.backend)} == {"a", "b"}
