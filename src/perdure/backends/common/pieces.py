"""Values that are too large for one row, item or entity: they lie in pieces, which are stored first, under a name that nothing uses yet.

Pieces stay when the write that refers to them fails: the same write may have been stored, and only its answer lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.backends.spi import Record


def cut(data: bytes, size: int) -> list[bytes]:
    """The pieces of a value, each of `size` bytes at most."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def pieces_of(length: int, size: int) -> int:
    """Into how many pieces a value of this length is cut."""
    return -(-length // size)


def piece_name(name: str, number: int) -> str:
    """The name of a piece. Names sort as numbers do, up to 65,535."""
    return f"{name}-{number:04x}"


class PiecedRecord(msgspec.Struct, frozen=True):
    """A record as it lies there. `pieces` of 0: all of it is here; else its meta (`meta_bytes` long) and its body lie in that many."""

    record: Record
    pieces: int
    meta_bytes: int

    def joined(self, parts: Sequence[bytes]) -> Record:
        """The record with what its pieces hold."""
        payload = b"".join(parts)
        return msgspec.structs.replace(self.record, meta=payload[: self.meta_bytes], body=payload[self.meta_bytes :])
