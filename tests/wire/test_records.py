"""The messages of the record face: there and back, garbage, and streams in pieces."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perdure
from perdure.backends import spi
from perdure.model.ids import SessionKey
from perdure.model.record import Head, Record, Snapshot
from perdure.wire import records as wire

KEY = SessionKey("acme", "s é")
HEAD = Head(3, b"h" * 32, 1 << 60, 5, 0, 2)
RECORD = Record(HEAD, b"i" * 16, 0, "k", b"r" * 16, b"m" * 40, b"b" * 300)
ROW = wire.Row(KEY, HEAD, {"team": "ops"}, 7, 8, b"c", 9)
CELLS = wire.IndexCells({"a": "b"}, -1, b"", 0)
KNOWN = wire.KeyApplied(2, b"r" * 16, HEAD)
MESSAGES: list[wire.Message] = [
    wire.About((1,), "id", 2, {"durability": 2}, "acme", archive=True),
    wire.Append((wire.Attempt(KEY, (3, b"h" * 32), (RECORD,), "k", CELLS, 2), wire.Attempt(KEY, None, ()))),
    wire.Appended((wire.Stored(2), wire.Mismatch(HEAD), wire.Mismatch(None), KNOWN, wire.refusal(perdure.Invalid("No.", session="s")))),
    wire.Heads((KEY, KEY)),
    wire.HeadsFound((HEAD, None)),
    wire.Load(KEY, 3),
    wire.Loaded(ROW, Snapshot(2, b"h" * 32, b"body"), (RECORD,)),
    wire.Loaded(),
    wire.Read(KEY, 1, 9, 10, reverse=True),
    wire.RecordsFound((RECORD, RECORD)),
    wire.FindKey(KEY, "k"),
    wire.KeyFound(KNOWN),
    wire.KeyFound(),
    wire.Scan("acme", "p", {"a": "b"}, 3, "due", 5, "cursor", 10),
    wire.RowsFound((ROW,), "cursor"),
    wire.Feed("cursor", 7),
    wire.ChangesFound((wire.Change(KEY, RECORD),), "cursor", more=True),
    wire.Notices((KEY,), ("acme",)),
    wire.Notices(),
    wire.Moved(((KEY, 3),), lost=True),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_was(message: wire.Message) -> None:
    """Each message is the same after its bytes, and after those of a later version that says more."""
    assert wire.decode(type(message), wire.encode(message)) == message
    later = {**msgspec.msgpack.decode(wire.encode(message)), "said by a later version": [1, {"x": None}]}
    assert wire.decode(type(message), msgspec.msgpack.encode(later)) == message


@given(data=st.binary(max_size=200), message=st.sampled_from(MESSAGES), place=st.floats(0, 1), byte=st.integers(0, 255))
def test_garbage_is_invalid(data: bytes, message: wire.Message, place: float, byte: int) -> None:
    """Bytes that are no message, that are cut off, or changed in one place, are `Invalid` or another message: nothing else is raised."""
    sound = wire.encode(message)
    at = int(place * (len(sound) - 1))
    for given_bytes in (data, sound[:at], sound[:at] + bytes((byte,)) + sound[at + 1 :], sound + data):
        for kind in {type(each) for each in MESSAGES}:
            try:
                wire.decode(kind, given_bytes)
            except perdure.Invalid:
                continue


def test_a_message_that_nests_without_end_is_invalid() -> None:
    """No depth of arrays stops the node."""
    with pytest.raises(perdure.Invalid):
        wire.decode(wire.Append, b"\x81\xa8attempts" + b"\x91" * 1_000_000)


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_a_stream_is_taken_apart_however_it_is_cut(step: int) -> None:
    """Frames come out whole and in order, whatever pieces they come in."""
    sent = [wire.Moved(), wire.Moved(((KEY, 1),)), wire.Moved(lost=True), wire.Moved(tuple((KEY, number) for number in range(50)))]
    stream = b"".join(map(wire.frame, sent))
    frames, found = wire.Frames(), []
    for start in range(0, len(stream), step):
        found += frames.feed(stream[start : start + step])
    assert found == sent


def test_a_frame_has_a_bound() -> None:
    """A length that no frame has is refused before anything of it is kept."""
    with pytest.raises(perdure.Invalid):
        wire.Frames().feed(b"\xff\xff\xff\xff")


def test_an_error_keeps_its_kind_and_its_facts() -> None:
    """What a node refuses raises the same kind of error in the client."""
    for error in (perdure.Fenced("No.", session="s", token=7), perdure.TooLarge("No.", size=2, limit=1), perdure.Unknown("Perhaps.")):
        again = wire.refused(wire.decode(wire.Appended, wire.encode(wire.Appended((wire.refusal(error),)))).answers[0])  # type: ignore[arg-type]
        assert (type(again), again.detail, again.facts) == (type(error), error.detail, error.facts)


def test_rows_and_cells_have_all_that_the_engines_have() -> None:
    """What the specification of engines adds to a row, a query or an index change has a place in the messages too."""
    rows = [(spi.Row, wire.Row), (spi.Index, wire.IndexCells), (spi.Query, wire.Scan)]
    for specified, message in [*rows, (spi.Loaded, wire.Loaded), (spi.Known, wire.KeyApplied)]:
        assert {*specified.__struct_fields__} <= {*message.__struct_fields__}, message
