"""Sections of the control cell: set whole, removed by None, kept when unknown."""

from __future__ import annotations

import msgspec
import pytest

from perdure.errors import Corrupt, Invalid
from perdure.model.commit import Kind
from perdure.model.control import CONTROL_BYTES_MAX, NOTHING_SET, Control, decode_control
from perdure.model.events import Event


class Owner(msgspec.Struct):
    """A section of one field."""

    owner: str


def setting(**sections):
    return (Event("configured", {"control": sections}),)


def test_sections_are_set_whole_and_removed_by_none():
    """A later commit replaces a section and leaves the others; folding it again changes nothing."""
    first = NOTHING_SET.after(Kind.configure, setting(policy={"keep": 5}, lease={"owner": "a"}))
    second = first.after(Kind.lease, setting(lease={"owner": "b"}))
    assert second.section("lease", Owner) == Owner("b")
    assert second.sections["policy"] == {"keep": 5}
    assert second.after(Kind.lease, setting(lease={"owner": "b"})) == second
    assert second.after(Kind.lease, setting(lease=None)).section("lease", Owner) is None


def test_data_changes_nothing_and_a_tombstone_removes_all():
    """Only control commits speak of the cell: a user's event with the same key in its data does not."""
    set_ = NOTHING_SET.after(Kind.configure, setting(policy={"keep": 5}))
    assert set_.after(Kind.data, setting(policy=None)) == set_
    assert set_.after(Kind.tombstone, (Event("deleted"),)) == NOTHING_SET


def test_what_this_version_does_not_know_is_kept():
    """A section of a later version goes through decode, change and encode as it is."""
    cell = msgspec.msgpack.encode({"of-tomorrow": {"x": [1, 2]}, "lease": {"owner": "a"}})
    changed = decode_control(cell).after(Kind.lease, setting(lease=None))
    assert decode_control(changed.encode()).sections == {"of-tomorrow": {"x": [1, 2]}}
    assert NOTHING_SET.encode() == b""
    assert decode_control(b"") == NOTHING_SET


def test_damage_and_size_are_named():
    """Bytes that are no cell are Corrupt, a section of another shape too, and a cell over the limit is Invalid."""
    for damaged in (b"\xc1", b"\x81", b"\x01", b"\x81\xa1\xff\x01"):
        with pytest.raises(Corrupt):
            decode_control(damaged)
    with pytest.raises(Corrupt, match="lease"):
        Control({"lease": [1]}).section("lease", Owner)
    with pytest.raises(Invalid, match="1,024"):
        Control({"lease": {"owner": "a" * CONTROL_BYTES_MAX}}).encode()
