"""Makes a compression dictionary from its text: `python scripts/make_dictionary.py scripts/dictionary1.txt NEW`.

A dictionary in src/perdure/codec is for ever: bodies were compressed with it. A better one gets a number of its own, in the envelope too.
The text is ours: how our events, operations and the frameworks' messages are spelled, the most frequent last. zstd finds matches in it.
What it does not find are ids, numbers and prose; how often each byte is among them comes from samples, with sentences of docs/ as they
were on that day.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROOT = Path(__file__).parent.parent
SAMPLES, LEVEL = 4_000, 3


def sentences() -> list[str]:
    """Prose without tables and code."""
    pages = "\n".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    return [line for line in pages.split("\n") if len(line) > 60 and not line.startswith(("|", "`", "#", " "))]


def sample(chance: random.Random, prose: list[str], kind: int) -> Any:
    """A body such as adapters write, of one of five kinds."""

    def id() -> str:
        return str(UUID(int=chance.getrandbits(128), version=4))

    def checkpoint(parent: str, source: str, more: dict[str, Any]) -> list[Any]:
        ts = f"2026-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}T{chance.randint(0, 23):02}:{chance.randint(0, 59):02}:"
        head = {
            "id": id(),
            "parent": parent,
            "ts": f"{ts}{chance.uniform(10, 60):09.6f}+00:00",
            "metadata": {"source": source, "step": step},
        }
        return [
            "checkpoint",
            {"step": step, "source": source},
            [["test", "/n", n], ["merge", "", {"checkpoint": head, **more, "n": n + 1}]],
        ]

    n, step = chance.randint(1, 1_000_000), chance.randint(1, 1_000)
    said = chance.choice(prose)[: chance.randint(10, 400)]
    parent, message = id(), {"$": chance.choice(["ai", "human"]), "content": said, "id": id()}
    append = ["values", None, [["append", "/values/messages", [message]]]]
    if kind == 0:
        return [["message", {"role": chance.choice(["user", "assistant"]), "content": said}, []]]
    if kind == 1:
        start = ["values", None, [["set", "/values/__start__", {"messages": [message]}]]]
        return [checkpoint(parent, "input", {"versions": {"__start__": step + 1}}), start]
    if kind == 2:
        words = said.split()
        arguments = msgspec.json.encode({word: chance.choice([n, chance.choice(words), True]) for word in words[:3]}).decode()
        call = {"id": "call_" + id()[:8], "type": "function", "function": {"name": words[0].lower(), "arguments": arguments}}
        return [["message", {"role": "assistant", "content": None, "tool_calls": [call]}, []]]
    versions = {"messages": step + 1, "branch:to:agent": step + 1}
    writes = {"writes": {"": {parent: {id(): {"0": ["messages", [message]]}}}}}
    made = {"versions": versions, "seen": {"agent": {"branch:to:agent": step}}, "writes": {"": {parent: None}}}
    return [["writes", None, [["merge", "", writes]]], checkpoint(parent, "loop", made), append]


def main() -> None:
    """Write the dictionary."""
    text, place = (Path(argument) for argument in sys.argv[1:])
    content = text.read_bytes().replace(b"\n", b"")
    chance, prose = random.Random(1), sentences()
    samples = [msgspec.json.encode(sample(chance, prose, number % 5)) for number in range(SAMPLES)]
    made = zstd.finalize_dict(zstd.ZstdDict(content, is_raw=True), samples, len(content) + 1_000, LEVEL)
    with place.open("xb") as file:
        file.write(made.dict_content)
    print(f"{place}: {len(made.dict_content):,} bytes")


if __name__ == "__main__":
    main()
