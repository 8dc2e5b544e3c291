"""Lines sent twice, by several writers, or with an answer that got lost: each is there once, and none is missing."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import fold_session_summary

import perdure
import perdure.sync
from perdure.adapters.claude_agent import PerdureSessionStore, seen, transcript
from tests.support.adapters.claude_transcripts import KEY, NAME, PROJECT, SUB, play, said, title, turn


def test_a_batch_sent_again_adds_nothing(url: str) -> None:
    """By the same object or another one, with lines that have no id among them; the time of the session does not change either."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        for batch in ([title("Rome"), *turn(1)], [*turn(2), title("Rome"), title("Rome")]):
            for writer in (sessions, sessions, PerdureSessionStore(store)):
                await writer.append(KEY, batch)
        assert await sessions.load(KEY) == [title("Rome"), *turn(1), *turn(2), title("Rome"), title("Rome")]
        assert (await store.read(NAME)).version == 2

    play(scenario, url)


def test_only_what_is_new_of_a_batch_is_added(url: str) -> None:
    """Batches with other bounds, or with one id twice, add the lines whose id is not there, in their order."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        first, second, third = turn(1), turn(2), turn(3)
        await sessions.append(KEY, [*first, *first[:2], *second[:2]])
        await PerdureSessionStore(store).append(KEY, [*first[2:], *second, *second, *third[:1]])
        await sessions.append(KEY, third)
        assert await sessions.load(KEY) == [*first, *second, *third]

    play(scenario, url)


def test_lines_without_an_id_are_added_each_time(url: str) -> None:
    """A title given twice is there twice: nothing says that it was the same."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        for writer in (sessions, sessions, PerdureSessionStore(store)):
            await writer.append(KEY, [title("Rome")])
        assert await sessions.load(KEY) == [title("Rome")] * 3

    play(scenario, url)


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("written", [False, True])
def test_a_lost_answer_is_no_lost_or_second_line(lost: int, monkeypatch: pytest.MonkeyPatch, *, written: bool) -> None:
    """However many answers get lost, written or not, the SDK's calling again leaves each batch there once: with ids or without."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        await sessions.append(KEY, turn(0))
        append, left = store.append, 0

        async def deaf(*arguments: Any, **options: Any) -> perdure.Receipt:
            nonlocal left
            left -= 1
            if left < 0:
                return await append(*arguments, **options)
            if written:
                await append(*arguments, **options)
            raise perdure.Unknown("The answer got lost.", session=NAME)

        monkeypatch.setattr(store, "append", deaf)
        for batch in (turn(1), [title("Rome")], [title("Rome"), *turn(2)]):
            left = lost
            for _ in range(4):
                try:
                    await sessions.append(KEY, batch)
                except perdure.Unknown:
                    continue
                break
            else:
                pytest.fail("it never came through")
        assert await PerdureSessionStore(store).load(KEY) == [*turn(0), *turn(1), title("Rome"), title("Rome"), *turn(2)]

    play(scenario)


def test_a_lost_answer_and_another_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that landed unseen, and behind which another process wrote, is not written again; the other's lines are not either."""

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        await sessions.append(KEY, turn(0))
        append, deaf = store.append, True

        async def lossy(*arguments: Any, **options: Any) -> perdure.Receipt:
            receipt = await append(*arguments, **options)
            if deaf:
                raise perdure.Unknown("The answer got lost.", session=NAME)
            return receipt

        monkeypatch.setattr(store, "append", lossy)
        for batch in ([*turn(1), title("one")], [title("two")]):
            deaf = True
            with pytest.raises(perdure.Unknown):
                await sessions.append(KEY, batch)
            deaf = False
            await PerdureSessionStore(store).append(KEY, [*turn(2), title("theirs")])
            await sessions.append(KEY, batch)
            await sessions.append(KEY, turn(2))
        assert await sessions.load(KEY) == [*turn(0), *turn(1), title("one"), *turn(2), title("theirs"), title("two")]
        (summary,) = await sessions.list_session_summaries(PROJECT)
        assert summary["data"]["custom_title"] == "two"

    play(scenario)


def test_writers_of_one_session_lose_nothing(url: str) -> None:
    """Eight mirrors of one session, two of which send the same lines: each line is there once, each mirror's in its order."""

    async def scenario(store: perdure.Store, _sessions: PerdureSessionStore) -> None:
        async def write(number: int) -> None:
            sessions = PerdureSessionStore(store)
            who = min(number, 6)
            for step in range(10):
                await sessions.append(KEY, [said(f"{who}-{step}-{half}", f"{who} {step} {half}") for half in "ab"])

        await asyncio.gather(*map(write, range(8)))
        lines: Any = await PerdureSessionStore(store).load(KEY)
        assert len(lines) == len({line["uuid"] for line in lines}) == 140
        for who in range(7):
            assert [line["uuid"] for line in lines if line["uuid"].startswith(f"{who}-")] == [
                f"{who}-{step}-{half}" for step in range(10) for half in "ab"
            ]
        (summary,) = await PerdureSessionStore(store).list_session_summaries(PROJECT)
        assert summary["data"] == fold_session_summary(None, KEY, lines)["data"]

    play(scenario, url)


def test_threads_and_loops_share_a_store(tmp_path: Path) -> None:
    """One object on a blocking store serves four threads, each with an event loop of its own, on two transcripts."""
    with perdure.sync.open(f"sqlite:///{tmp_path}/store.db") as store:
        sessions = PerdureSessionStore(store)

        def work(number: int) -> None:
            async def turns() -> None:
                for step in range(10):
                    await sessions.append(KEY, turn(number * 100 + step))
                    await sessions.append(SUB, turn(number * 100 + step))
                    await sessions.load(KEY)

            asyncio.run(turns())

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for key in (KEY, SUB):
            lines: Any = asyncio.run(sessions.load(key))
            assert len({line["uuid"] for line in lines}) == len(lines) == 160


def test_trio_is_served_too(tmp_path: Path) -> None:
    """The SDK runs on trio as well, and so does the store: appends, loads, and an error that comes through."""
    trio = pytest.importorskip("trio", reason="trio is not installed: pip install trio")
    with perdure.sync.open(f"sqlite:///{tmp_path}/store.db") as store:
        sessions = PerdureSessionStore(store)

        async def scenario() -> None:
            await sessions.append(KEY, turn(1))
            assert await sessions.load(KEY) == turn(1)
            await sessions.delete(KEY)
            with pytest.raises(perdure.Deleted):
                await sessions.append(KEY, turn(2))

        trio.run(scenario)


def test_what_was_forgotten_is_looked_up(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """With room for a few ids only, over many transcripts, repeated lines are still found; what is remembered stays bounded."""
    monkeypatch.setattr(seen, "IDS_MAX", 20)
    monkeypatch.setattr(seen, "TRANSCRIPTS_MAX", 3)
    chance = random.Random(7)

    async def scenario(_store: perdure.Store, sessions: PerdureSessionStore) -> None:
        sent: dict[str, int] = {}

        async def mirror(id: str) -> None:
            for _ in range(25):
                number = chance.randrange(sent.get(id, 0) + 1)  # one that was sent, or the next
                await sessions.append(KEY | {"session_id": id}, turn(number))
                sent[id] = max(sent.get(id, 0), number + 1)
                assert len(sessions._seen._transcripts) <= 3
                assert sessions._seen._count == sum(len(known.ids) for known in sessions._seen._transcripts.values())

        await asyncio.gather(*[mirror(f"s{number}") for number in range(8)])
        for id, count in sent.items():
            assert await sessions.load(KEY | {"session_id": id}) == [line for number in range(count) for line in turn(number)]

    play(scenario, url)


def test_a_batch_too_large_for_a_commit_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into commits by lines and by bytes, the first of which are there already: sent again, the rest comes, and nothing twice."""
    monkeypatch.setattr(transcript, "COMMIT_LINES", 3)
    monkeypatch.setattr(transcript, "COMMIT_BYTES", 2_000)
    lines = [title("a"), *turn(1), title("b"), said("long", "x" * 1_900), *turn(2), title("c"), title("c")]

    async def scenario(store: perdure.Store, sessions: PerdureSessionStore) -> None:
        append, left = store.append, 2

        async def failing(*arguments: Any, **options: Any) -> perdure.Receipt:
            nonlocal left
            left -= 1
            if left == -1:
                raise perdure.Unavailable("The disk is full.")
            return await append(*arguments, **options)

        monkeypatch.setattr(store, "append", failing)
        with pytest.raises(perdure.Unavailable):
            await sessions.append(KEY, lines)
        assert len(await sessions.load(KEY) or ()) == 6
        await sessions.append(KEY, lines)
        assert await sessions.load(KEY) == lines
        assert (await store.read(NAME)).version == 5

    play(scenario)
