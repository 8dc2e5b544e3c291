"""How what is too large for one commit is split: events into several commits, a text into pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from perdure.engine.options import EVENTS_MAX

T = TypeVar("T")

COMMIT_BYTES = 8 << 20
"""How much JSON goes into one commit before the next begins. The store's limit is 16 MiB, in whichever format it writes."""
PIECE_LENGTH = 3 << 20
"""Characters of a text that go into one commit: in UTF-8, and with quotes and backslashes escaped, at most 12 MiB."""


def batches(items: Sequence[T], data: Sequence[Any]) -> Iterator[list[T]]:
    """The items in groups that one commit holds each, by the JSON `data` that is stored of them. An item that is too large is alone."""
    batch: list[T] = []
    size = 0
    for item, stored in zip(items, data, strict=True):
        length = len(msgspec.json.encode(stored))
        if batch and (size + length > COMMIT_BYTES or len(batch) == EVENTS_MAX):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length
    if batch:
        yield batch


def pieces(text: str, length: int = PIECE_LENGTH) -> list[str]:
    """The text in pieces, of which each fits into a commit."""
    return [text[start : start + length] for start in range(0, len(text), length)]
