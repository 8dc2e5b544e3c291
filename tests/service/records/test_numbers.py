"""Numbers and texts that no engine can hold, sent to a real one: 400, and never a defect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event
from perdure.model.ids import SessionKey
from perdure.service.app import App
from perdure.service.node import Node
from perdure.wire import HEADER_WIRE, MSGPACK
from perdure.wire import records as wire
from tests.support.service.asking import Asker

S = SessionKey("default", "s")
PATHS = {wire.Load: wire.LOAD, wire.Read: wire.READ, wire.Scan: wire.SCAN, wire.Feed: wire.FEED, wire.FindKey: wire.FIND_KEY}
HUGE = [-(1 << 63), -1, 1 << 63, (1 << 64) - 1]
TEXTS = ["\0", "a\0b", "x" * 5_000, "😀", "٣", "1" * 30, "-1", "1:2", '[9223372036854775808, "default", "a"]', "[-1]"]
NUMBERS: list[wire.Message] = [
    message
    for number in HUGE
    for message in (
        wire.Load(S, number), wire.Read(S, number), wire.Read(S, 0, number), wire.Scan("default", status=number),
        wire.Scan("default", due_before=number, order="due"), wire.Feed(str(number)),
    )
]  # fmt: skip


@pytest.fixture(params=["memory:", "sqlite:"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory:" if request.param == "memory:" else f"sqlite:///{tmp_path}/s.db"


async def _statuses(url: str, messages: list[wire.Message]) -> dict[str, int]:
    async with perdure.open(url) as store:
        await store.append("s", Event("start"))
        ask, found = Asker(App(Node(store))), {}
        for message in messages:
            headers = [(HEADER_WIRE, "1")]
            answer = await ask("POST", PATHS[type(message)], wire.encode(message), headers=headers, media=MSGPACK)
            found[repr(message)] = answer.status
        return found


async def test_numbers_beyond_64_bits_are_refused(url: str) -> None:
    """Versions, times, statuses and cursors; negative ones too."""
    found = await _statuses(url, NUMBERS)
    assert {message: status for message, status in found.items() if status != 400} == {}


async def test_texts_are_texts_and_cursors_are_cursors(url: str) -> None:
    """Whatever a prefix, a tag, an id or a key has is looked for; a cursor that no page gave is 400."""
    messages: list[wire.Message] = []
    for text in TEXTS:
        key = SessionKey("default", text)
        messages += [wire.Load(key), wire.Read(key), wire.FindKey(S, text), wire.Scan("default", text), wire.Scan("default", cursor=text)]
        messages.append(wire.Scan("default", tags={text: text}))
    assert set((await _statuses(url, messages)).values()) == {200}
    cursors: list[wire.Message] = [wire.Feed(text) for text in TEXTS]
    cursors += [wire.Scan("default", cursor=text, order="due", due_before=5) for text in TEXTS]
    assert set((await _statuses(url, cursors)).values()) == {400}


async def test_times_at_the_ends_of_the_calendar_are_times(url: str) -> None:
    """Of listings: nothing is due before 1970, and all of it before the year 9999."""
    async with perdure.open(url) as store:
        await store.append("s", Event("start"))
        await store.configure("s", expire_after=60)
        ask = Asker(App(Node(store)))
        for time, sessions in (("0001-01-01T00:00:00Z", []), ("9999-12-31T23:59:59Z", ["s"])):
            answer: Any = await ask("GET", f"/v1/sessions?due={time}")
            assert (answer.status, [info["session"] for info in answer.json()["sessions"]]) == (200, sessions)
