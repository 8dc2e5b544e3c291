"""A place holds one store on a real server: it can be dumped, logically and alike each time, and filled from a dump.

A dump is JSON: bytes are base64, names are without the namespace, and everything is in an order of its own, so two dumps of the same
store are the same bytes. A place knows nothing of Perdure but what its layout's page says: how names begin.
"""

from __future__ import annotations

import base64
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import msgspec

from tests.servers.process import Server

FOLDER = Path(__file__).parents[2] / "backends" / "golden"
"""Where dumps lie: a folder for each schema version, in it a file for each layout."""
Dump = dict[str, Any]


class Place(Protocol):
    """Where one store lies, alone."""

    url: str
    """What `perdure.open` takes."""

    def dump(self) -> Dump:
        """All that lies there."""
        ...

    def load(self, dump: Dump) -> None:
        """Fill the place, which is empty."""
        ...


Make = Callable[[Server | None, Path], Place]
"""An empty place on a running server, or in a folder."""


def fresh() -> str:
    """A name that nobody has used."""
    return f"g{uuid4().hex[:12]}"


def text(data: bytes) -> str:
    """Bytes as JSON can say them."""
    return base64.b64encode(data).decode()


def data(text: str) -> bytes:
    """Back from `text`."""
    return base64.b64decode(text)


def encoded(dump: Dump) -> bytes:
    """The same bytes for the same dump."""
    return msgspec.json.encode(dump, order="deterministic")


def keep(path: Path, dump: Dump) -> None:
    """Write a dump to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(encoded(dump), preset=9 | lzma.PRESET_EXTREME))


def kept(path: Path) -> Dump:
    """Read it back."""
    found: Dump = msgspec.json.decode(lzma.decompress(path.read_bytes()))
    return found
