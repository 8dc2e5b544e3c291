"""A complete agent in plain Python: a model, tools with effects, and a session that survives being killed at any line.

    python examples/agent_loop.py "Two nights in Rome, please."

Run it again with the same store and the conversation goes on. Kill it at any moment and run it without a question: it goes on from
the last thing that was done, and nothing is done twice. The model here is a few lines that need no key; put yours in its place.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import perdure

Message = dict[str, Any]
Model = Callable[[list[Message]], Awaitable[Message]]


def find_rooms(state: dict[str, Any], city: str) -> list[Message]:
    """A tool that only looks."""
    return [{"room": 7, "city": city, "price": 120}, {"room": 9, "city": city, "price": 95}]


def book(state: dict[str, Any], room: int, price: int) -> str:
    """A tool that changes the state: what it writes and the message with its result are one commit."""
    state.setdefault("bookings", []).append(room)
    state["spent"] = state.get("spent", 0) + price
    return f"room {room} is booked"


TOOLS: dict[str, Callable[..., Any]] = {"find_rooms": find_rooms, "book": book}


async def model(messages: list[Message]) -> Message:
    """Stands in for a language model: looks for rooms, books the cheapest, says so."""
    last, number = messages[-1], len(messages)
    if last["role"] == "user":
        return {"role": "assistant", "tool_calls": [{"id": f"call-{number}", "name": "find_rooms", "args": {"city": "Rome"}}]}
    if isinstance(last["content"], list):
        best = min(last["content"], key=lambda room: room["price"])
        call = {"id": f"call-{number}", "name": "book", "args": {"room": best["room"], "price": best["price"]}}
        return {"role": "assistant", "tool_calls": [call]}
    return {"role": "assistant", "content": f"Done: {last['content']}."}


async def read(store: perdure.Store, session: str) -> tuple[list[Message], int]:
    """What was said, and the version as of which it is all."""
    messages: list[Message] = []
    version = 0
    async for commit in store.history(session):
        messages += [event.data for event in commit.events if event.type == "message"]
        version = commit.version
    return messages, version


async def run(store: perdure.Store, session: str, ask: Model = model) -> str:
    """Go on from whatever was done last, until the agent has answered."""
    while True:
        messages, version = await read(store, session)
        answered = {message["tool_call_id"] for message in messages if message["role"] == "tool"}
        calls = [call for message in messages for call in message.get("tool_calls", []) if call["id"] not in answered]
        if calls:
            await act(store, session, calls[0])
        elif messages[-1]["role"] == "assistant":
            return str(messages[-1]["content"])
        else:
            reply = await ask(messages)
            try:  # If another worker answered meanwhile, its answer stands, and this one is dropped.
                await store.append(session, perdure.Event("message", reply), expect=version, on_conflict="raise", actor="model")
            except perdure.Conflict:
                continue


async def act(store: perdure.Store, session: str, call: Message) -> None:
    """Run a tool. The call's id is the commit's key: a second run, by this worker or another, finds the first one's receipt."""
    async with store.edit(session, key=call["id"], actor=call["name"]) as draft:
        if draft.receipt is None:
            result = TOOLS[call["name"]](draft.state, **call["args"])
            draft.event("message", {"role": "tool", "tool_call_id": call["id"], "content": result})


async def main() -> None:
    """Put the question, if there is one, and let the agent answer."""
    async with perdure.open() as store:
        for question in sys.argv[1:]:
            await store.append("trip-42", perdure.Event("message", {"role": "user", "content": question}), actor="user")
        print(await run(store, "trip-42"))
        print((await store.read("trip-42")).state)


if __name__ == "__main__":
    asyncio.run(main())
