"""What tests of bodies out of line share: stores with a folder for bodies, and what lies in it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import perdure
from perdure import Event, op

LEAST = 1_024
"""`blob_bytes` of these stores."""


def text(size: int, seed: int = 0) -> str:
    """Text that no compression makes much smaller."""
    return "".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=size))


def large(number: int = 0, *, ops: bool = True, type: str = "noted") -> Event:
    """An event whose commit's body goes out of line; with operations it sets `/n<number>`."""
    content = text(3_000, number)
    return Event(type, {"text": content}, (op.set(f"/n{number}", content),) if ops else ())


def folder(path: Path) -> str:
    """The URL of a folder for bodies."""
    return f"file://{path}/place"


def stored(path: Path) -> list[str]:
    """The names of the bodies in that folder."""
    root = path / "place"
    return sorted(str(file.relative_to(root)) for file in (root / "blobs").rglob("*") if file.is_file())


def opened(url: str, path: Path, **options: Any) -> Any:
    """A store on this URL whose large bodies go to the folder."""
    return perdure.open(url, blobs=folder(path), blob_bytes=LEAST, **options)
