"""Transcripts of agents: real ones where they are there, else made ones with their sizes."""

from __future__ import annotations

import gzip
import random
from typing import Any

import msgspec

from tests.support.docs.pages import ROOT

SOURCE = ROOT.parent / "shared/data/airline.jsonl.gz"
"""200 conversations between a user, an agent and its tools; not part of the repository."""
WORDS = ("flight", "from", "to", "reservation", "the", "you", "please", "number", "change", "cancel", "seat", "baggage", "card", "user")


def transcripts(count: int) -> dict[str, list[Any]]:
    """The messages of so many sessions, 200 at most."""
    if SOURCE.exists():
        with gzip.open(SOURCE) as lines:
            found = [msgspec.json.decode(line) for line, _ in zip(lines, range(count), strict=False)]
        return {item["session"]: item["messages"] for item in found}
    chance = random.Random(1)
    return {f"made-{number:03d}": [_message(chance) for _ in range(chance.randint(6, 62))] for number in range(count)}


def _message(chance: random.Random) -> dict[str, Any]:
    """A message of some 600 bytes of JSON; a few are much larger."""
    length = chance.choice((10, 40, 80, 120, 160, 1_000 if chance.random() < 0.05 else 100))
    said = " ".join(chance.choice(WORDS) + str(chance.randrange(1_000)) for _ in range(length))
    return {"role": chance.choice(("user", "assistant", "tool")), "content": said}
