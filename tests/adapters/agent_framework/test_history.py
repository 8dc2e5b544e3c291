"""The history provider: what agents say, kept once, in order, on any engine; and an agent that goes on after its process died."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest
from agent_framework import Agent, AgentSession, BaseChatClient, ChatResponse, Content, Message

import perdure
from perdure.adapters.agent_framework import PerdureHistoryProvider

SESSION = "agent-framework/history/trip"


class Echo(BaseChatClient):
    """A model that says how many messages it was given, and repeats the last."""

    def _inner_get_response(self, *, messages: Sequence[Message], **options: Any) -> Awaitable[Any]:
        async def answer() -> ChatResponse:
            return ChatResponse(messages=[Message("assistant", [f"{len(messages)}: {messages[-1].text}"])])

        return answer()


def agent(store: Any, **options: Any) -> Agent:
    return Agent(client=Echo(), name="planner", context_providers=[PerdureHistoryProvider(store, **options)])


async def texts(store: Any, session: str | None = "trip", **options: Any) -> list[str]:
    return [message.text for message in await PerdureHistoryProvider(store, **options).get_messages(session)]


async def test_an_agent_goes_on_where_another_process_left_off(file_url: str) -> None:
    """Each turn is run by a new agent on a new store: the model is given all that was said before."""
    for number in range(3):
        async with perdure.open(file_url) as store:
            reply = await agent(store).run(f"turn {number}", session=AgentSession(session_id="trip"))
            assert reply.text == f"{2 * number + 1}: turn {number}"
    async with perdure.open(file_url) as store:
        assert await texts(store) == ["turn 0", "1: turn 0", "turn 1", "3: turn 1", "turn 2", "5: turn 2"]
        commits = [commit async for commit in store.history(SESSION)]
        assert [[(event.type, event.data["role"]) for event in commit.events] for commit in commits] == 3 * [
            [("message", "user"), ("message", "assistant")]
        ]
        assert (await store.verify(SESSION)).commits == 3


def test_both_kinds_of_store_and_two_loops(file_url: str) -> None:
    """A blocking store serves the provider too, in one loop after another."""
    with perdure.sync.open(file_url) as store:
        for number in range(2):
            asyncio.run(agent(store).run(f"turn {number}", session=AgentSession(session_id="trip")))
        assert asyncio.run(texts(store)) == ["turn 0", "1: turn 0", "turn 1", "3: turn 1"]


async def test_messages_come_back_exactly(url: str) -> None:
    """Calls, results, data, names and properties survive as the framework's own dictionaries keep them."""
    messages = [
        Message(
            "user", [Content.from_text("Bär 🐻"), Content.from_data(b"\x00\xff", "image/png")], additional_properties={"k": {"n": 1.5}}
        ),
        Message("assistant", [Content.from_function_call("c", "look", arguments={"at": [1, None]})], author_name="a", message_id="m"),
        Message("tool", [Content.from_function_result("c", result={"ok": True})]),
    ]
    async with perdure.open(url) as store:
        provider = PerdureHistoryProvider(store)
        await provider.save_messages("trip", messages)
        assert [found.to_dict() for found in await provider.get_messages("trip")] == [message.to_dict() for message in messages]
        await provider.save_messages("trip", [])
        assert await provider.get_messages("nobody") == []


async def test_a_run_that_is_stored_again_is_there_once(url: str) -> None:
    """Repetition, replay of the whole transcript, and a tail that overlaps add only what is new; an honest repetition is kept."""
    said = [
        Message("user", ["hi"], message_id="1"),
        Message("assistant", ["hello"], message_id="2"),
        Message("user", ["go on"], message_id="3"),
    ]
    async with perdure.open(url) as store:
        provider = PerdureHistoryProvider(store)
        for part in (said[:2], said[:2], said, said[1:], said[2:]):
            await provider.save_messages("trip", part)
        assert await texts(store) == ["hi", "hello", "go on"]
        for _ in range(2):
            await provider.save_messages("trip", [Message("user", ["again"])])
        assert await texts(store) == ["hi", "hello", "go on", "again", "again"]


async def test_runs_that_end_at_once_are_all_kept(file_url: str) -> None:
    """Six writers on two stores of one file: every run's messages are there, each run's together."""
    async with perdure.open(file_url) as one, perdure.open(file_url) as two:
        runs = [[Message("user", [f"q{n}"]), Message("assistant", [f"a{n}"])] for n in range(6)]
        providers = [PerdureHistoryProvider(store) for store in (one, two)]
        await asyncio.gather(*[providers[n % 2].save_messages("trip", run) for n, run in enumerate(runs)])
        found = await texts(one)
        assert sorted(found) == sorted(text for n in range(6) for text in (f"q{n}", f"a{n}"))
        assert all(found[found.index(f"q{n}") + 1] == f"a{n}" for n in range(6))


async def test_one_run_that_two_processes_store_is_there_once(file_url: str) -> None:
    """The same messages, offered six times at once by two stores on one file, are kept once."""
    async with perdure.open(file_url) as one, perdure.open(file_url) as two:
        run = [Message("user", ["q"], message_id="1"), Message("assistant", ["a"], message_id="2")]
        await asyncio.gather(*[PerdureHistoryProvider((one, two)[n % 2]).save_messages("trip", run) for n in range(6)])
        assert await texts(one) == ["q", "a"]


async def test_providers_tenants_and_sessions_are_apart(url: str) -> None:
    """Another source id, another session, none, and another tenant have messages of their own."""
    async with perdure.open(url) as store:
        for provider, session in (
            (PerdureHistoryProvider(store), "trip"),
            (PerdureHistoryProvider(store, "audit"), "trip"),
            (PerdureHistoryProvider(store), "trip/audit"),
            (PerdureHistoryProvider(store), None),
            (PerdureHistoryProvider(store.for_tenant("other")), "trip"),
        ):
            await provider.save_messages(session, [Message("user", [f"{provider.source_id} {session}"])])
        assert await texts(store) == ["perdure trip"]
        assert await texts(store, source_id="audit") == ["audit trip"]
        assert await texts(store, "trip/audit") == ["perdure trip/audit"]
        assert await texts(store, None) == ["perdure None"]
        assert await texts(store.for_tenant("other")) == ["perdure trip"]


async def test_excluded_messages_are_left_out_if_asked(url: str) -> None:
    """What compaction marked is stored, and given only to a provider that does not skip it."""
    async with perdure.open(url) as store:
        messages = [Message("user", ["old"], additional_properties={"_excluded": True}), Message("user", ["new"])]
        await PerdureHistoryProvider(store).save_messages("trip", messages)
        assert await texts(store) == ["old", "new"]
        assert await texts(store, skip_excluded=True) == ["new"]


async def test_saving_reads_the_end_of_a_long_history_only(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 3,000 messages behind it, storing two looks at a handful of commits."""
    async with perdure.open(url) as store:
        provider = PerdureHistoryProvider(store)
        for start in range(0, 3000, 10):
            await provider.save_messages("trip", [Message("user", [f"m{start + n}"]) for n in range(10)])
        seen = 0
        whole = perdure.Store.history

        async def counted(self: Any, *args: Any, **options: Any) -> Any:
            nonlocal seen
            async for commit in whole(self, *args, **options):
                seen += 1
                yield commit

        monkeypatch.setattr(perdure.Store, "history", counted)
        await provider.save_messages("trip", [Message("user", ["last"]), Message("assistant", ["yes"])])
        assert seen == 1


async def test_bad_input_is_refused(url: str) -> None:
    """Foreign events, a newer framework's messages, ids that are too long, deleted sessions, big results, and closed stores."""
    async with perdure.open(url) as store:
        provider = PerdureHistoryProvider(store)
        await store.append("agent-framework/history/foreign", perdure.Event("message", "hi"))
        with pytest.raises(perdure.Invalid, match="foreign"):
            await provider.get_messages("foreign")
        await store.append("agent-framework/history/newer", perdure.Event("message", {"role": "user", "contents": [{"type": 7, "new": 1}]}))
        with pytest.raises(perdure.Unsupported, match="newer"):
            await provider.get_messages("newer")
        with pytest.raises(perdure.Invalid, match="at most 255"):
            await provider.save_messages("ä" * 200, [Message("user", ["x"])])
        with pytest.raises(perdure.TooLarge, match=r"20,000,.* the limit is 16,777,216"):  # the framework writes a result's text twice
            await provider.save_messages("big", [Message("tool", [Content.from_function_result("c", result="x" * 10_000_000)])])
        await provider.save_messages("big", [Message("user", [f"{number}" * 10_000_000]) for number in range(3)])
        assert [(len(message.text), message.text[0]) for message in await provider.get_messages("big")] == [
            (10_000_000, f"{number}") for number in range(3)
        ]
        await provider.save_messages("gone", [Message("user", ["x"])])
        await store.delete("agent-framework/history/gone")
        for call in (provider.get_messages("gone"), provider.save_messages("gone", [Message("user", ["y"])])):
            with pytest.raises(perdure.Deleted):
                await call
    with pytest.raises(perdure.Closed):
        await provider.get_messages("trip")
