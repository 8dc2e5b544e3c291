"""The parts that engines share: bytes that stay as they are, pages, refusals, the store's header."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.backends.common import packing, pages, pieces, refusals
from perdure.backends.common.store_header import StoreHeader, open_header
from perdure.backends.spi import Head, Record, Snapshot
from perdure.clock import SystemClock
from perdure.errors import Corrupt, Invalid, NotFound, TooLarge, Unavailable, Unsupported
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey

S = SessionKey("tenant", "session")
HEAD = Head(7, b"h" * 32, 1_700_000_000_000_000_000, 3, int(Status.active), 6)
RECORD = Record(HEAD, b"i" * 16, int(Kind.anchor), "key", b"r" * 8, b"meta", b"body")


def test_the_stored_bytes_stay() -> None:
    """A head, a key and a record have these bytes for ever: stores hold them, and heads are compared by them."""
    head = "9607c420" + "68" * 32 + "cf17979cfe362a0000030006"
    assert packing.encode_head(HEAD).hex() == head
    assert packing.encode_key(7, b"r" * 8).hex() == "9207c408" + "72" * 8
    record = "9d" + head[2:] + "c410" + "69" * 16 + f"{RECORD.kind:02x}" + "a36b6579" + "c408" + "72" * 8
    assert packing.encode_record(RECORD, 0).hex() == record + "0004" + "c408" + b"metabody".hex()
    assert packing.encode_record(RECORD, 2).hex() == record + "0204" + "c400"


def test_what_was_stored_comes_back() -> None:
    """Head, key and record are read as they were written; a record in pieces is whole once they are joined."""
    assert packing.decode_head(packing.encode_head(HEAD)) == HEAD
    assert packing.decode_key(packing.encode_key(7, b"r")) == (7, b"r")
    assert packing.decode_record(packing.encode_record(RECORD, 0)) == pieces.PiecedRecord(RECORD, 0, 4)
    assert packing.decode_record(packing.encode_record(RECORD, 3)).joined(pieces.cut(b"metabody", 3)) == RECORD


@given(st.binary(max_size=40), st.integers(1, 9))
def test_pieces_are_the_value(data: bytes, size: int) -> None:
    """Joined in order the pieces are the value; they are as many as was said, none is too large, and their names sort as they do."""
    cut = pieces.cut(data, size)
    assert b"".join(cut) == data
    assert len(cut) == pieces.pieces_of(len(data), size)
    assert all(0 < len(piece) <= size for piece in cut)
    names = [pieces.piece_name("n", number) for number in range(len(cut))]
    assert sorted(names) == names


@pytest.mark.parametrize("error", [KeyError("x"), TypeError(), ValueError(), IndexError(), AttributeError(), msgspec.DecodeError("x")])
def test_a_value_of_another_shape_is_corrupt(error: Exception) -> None:
    """Whatever goes wrong while a stored value is taken apart says where it lies; other errors pass as they are."""
    with pytest.raises(Corrupt, match="The item at 'x' is not what was written"), packing.Reading(lambda: "The item at 'x'"):
        raise error
    with pytest.raises(ZeroDivisionError), packing.Reading(lambda: "The item"):
        raise ZeroDivisionError


def _sized(size: int) -> Record:
    return msgspec.structs.replace(RECORD, meta=b"", body=bytes(size))


def test_a_page_holds_one_record_at_least_and_about_its_bytes() -> None:
    """A page takes records up to its limit, or up to the one that exceeds its bytes, which it still has; of a limit of 0 it is empty."""
    large = [_sized(pages.PAGE_BYTES), *[_sized(10)] * 3]
    assert pages.one_page(large, 9) == large[:1]
    assert pages.one_page(large[1:], 2) == large[1:3]
    assert pages.one_page(large[1:], 9) == large[1:]
    assert pages.one_page(large, 0) == []


def test_room_follows_the_sizes_so_far() -> None:
    """As many more are fetched as fit when they are as large as those before: never none, never above the limit or what may be at once."""
    page = pages.RecordPage[Record](100)
    assert page.room(64) == 64
    page.add(_sized((1 << 20) - 96))
    assert page.room(64) == 3
    page.add(_sized((3 << 20) - 97))
    assert (page.room(64), page.full) == (1, False)
    small = pages.RecordPage[Record](5)
    small.add(_sized(1))
    assert small.room(64) == 4


def test_a_range_lies_within_what_is_there() -> None:
    """Both ends are outside, as in `read`; what is not there bounds them."""
    assert pages.version_range(0, None) == (1, pages.VERSION_END)
    assert pages.version_range(2, 9, 5, 7) == (5, 7)
    assert pages.version_range(5, 7, 1, 9) == (6, 6)
    assert pages.version_range(0, 3, 5, 9) == (5, 2)


async def test_a_gap_is_looked_at_again_before_it_is_damage() -> None:
    """A read that met a gap is done again; where the gap stays, records are gone."""
    asked = []

    async def ask() -> str:
        asked.append(1)
        pages.check_dense([1, 2, 4] if len(asked) < 3 else [1, 2, 3], 1, 3)
        return "whole"

    assert await pages.without_gaps(ask, S, "here") == "whole"
    assert len(asked) == 3
    asked.clear()
    with pytest.raises(Corrupt, match="gone from here") as raised:
        await pages.without_gaps(ask, S, "here", looks=2)
    assert (len(asked), raised.value.facts["session"]) == (2, "session")


@pytest.mark.parametrize("versions", [[1, 2], [2, 3], [1, 3, 2], [1, 2, 2, 3], [1, 2, 3, 4], []])
def test_only_all_versions_once_and_in_order_are_dense(versions: list[int]) -> None:
    """A missing, repeated, additional or misplaced version is a gap."""
    with pytest.raises(pages.GapError):
        pages.check_dense(versions, 1, 3)
    pages.check_dense([1, 2, 3], 1, 3)
    pages.check_dense([], 4, 3)


def test_an_anchor_is_a_commit_of_its_kind_with_its_hash_and_not_below_the_cut() -> None:
    """A truncation needs all three; a missing record is no anchor."""
    refusals.check_anchor(S, RECORD, 7, (7, HEAD.hash))
    data = msgspec.structs.replace(RECORD, kind=int(Kind.data))
    for record, below, hash in ((None, 7, HEAD.hash), (data, 7, HEAD.hash), (RECORD, 8, HEAD.hash), (RECORD, 7, b"other")):
        with pytest.raises(Invalid, match="no anchor commit at version 7"):
            refusals.check_anchor(S, record, below, (7, hash))


def test_only_a_deleted_session_is_purged() -> None:
    """A session that is not there, or not deleted, is refused."""
    deleted = msgspec.structs.replace(HEAD, status=int(Status.deleted))
    assert refusals.check_deleted(S, deleted) is deleted
    for head in (None, HEAD):
        with pytest.raises(Invalid, match="not deleted"):
            refusals.check_deleted(S, head)


def test_a_snapshot_that_is_too_large_is_refused() -> None:
    """The limit itself is taken."""
    refusals.check_snapshot_size(Snapshot(1, b"", b"1234"), 4, "Toy")
    with pytest.raises(TooLarge, match="of 5 bytes; Toy takes 4"):
        refusals.check_snapshot_size(Snapshot(1, b"", b"12345"), 4, "Toy")


class Place:
    """Where a header lies. `theirs` is what another process makes just before we do."""

    def __init__(self, held: Any = None, *, theirs: Any = None, keeps: bool = True) -> None:
        self.held, self.theirs, self.keeps, self.made = held, theirs, keeps, list[str]()

    async def read(self) -> Any:
        return self.held

    async def make(self, id: str) -> None:
        self.made.append(id)
        if self.keeps:
            self.held = self.theirs or {"schema": 1, "id": id}

    async def open(self, *, create: bool = True) -> StoreHeader:
        return await open_header(
            self.read, self.make, lambda held: StoreHeader(int(held["schema"]), str(held["id"])),
            place="toy://place", what="the key 'k'", known=1, clock=SystemClock(), create=create,
        )  # fmt: skip


async def test_a_header_is_made_once_and_then_read() -> None:
    """The first to open makes it; who comes second has the same id, also where both came at once."""
    place = Place()
    header = await place.open()
    assert header == (1, place.made[0], None)
    assert (await place.open(create=False), len(place.made)) == (header, 1)
    raced = Place(theirs={"schema": 1, "id": "theirs"})
    assert (await raced.open()).id == "theirs"


async def test_a_header_that_cannot_be_used_says_what_to_do() -> None:
    """Missing without `create`, of another program, of a later version, not given back: each is an error of its own, and makes nothing."""
    for place, create, kind, said in (
        (Place(), False, NotFound, "the key 'k' is not there"),
        (Place({"other": 1}), True, Corrupt, "The key 'k' at toy://place was not written by Perdure: choose another namespace"),
        (Place({"schema": "x", "id": "y"}), True, Corrupt, "choose another namespace"),
        (Place({"schema": 2, "id": "y"}), True, Unsupported, "schema version 2; this version of Perdure knows 1: upgrade perdure"),
    ):
        with pytest.raises(kind, match=said):
            await place.open(create=create)
        assert not place.made
    with pytest.raises(Unavailable, match="does not give it back"):
        await Place(keeps=False).open()
