"""A long LangGraph thread with ordinary channels: Perdure's saver against LangGraph's SqliteSaver, both on SQLite, both synced.

A turn is one `invoke` of a graph of one node: a user's message and an answer, 400 bytes each; LangGraph stores three checkpoints.
"""

from __future__ import annotations

import json
import operator
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

from _harness import alternate, folder, machine, small, table, turn
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

import perdure.sync
from perdure.adapters.langgraph import PerdureSaver

TURNS = 12 if small() else 1_000
FEW = 10
LAST = 3 if small() else 40
LISTED = 5 if small() else 50
THREADS = 20 if small() else 300


class Chat(TypedDict):
    """The ordinary state of a chat."""

    messages: Annotated[list[AnyMessage], add_messages]
    steps: Annotated[list[str], operator.add]


def answer(state: Chat) -> dict[str, Any]:
    """A model that needs no network."""
    number = len(state["messages"]) // 2
    return {"messages": [AIMessage(turn(number)[1]["content"], id=f"a{number}")], "steps": [f"step {number}"]}


def graph(saver: Any) -> Any:
    """A graph of one node."""
    built = StateGraph(Chat)
    built.add_node("agent", answer)
    built.add_edge(START, "agent")
    built.add_edge("agent", END)
    return built.compile(checkpointer=saver)


def config(thread: str) -> Any:
    """The config of a thread."""
    return {"configurable": {"thread_id": thread}}


def say(number: int) -> Any:
    """One input."""
    return {"messages": [HumanMessage(turn(number)[0]["content"], id=f"u{number}")]}


@contextmanager
def ours(place: Path) -> Iterator[Any]:
    """Perdure's saver."""
    with perdure.sync.open(f"sqlite:///{place}/perdure.db") as store:
        yield PerdureSaver(store)


@contextmanager
def theirs(place: Path) -> Iterator[Any]:
    """LangGraph's saver; synced as a store must be to survive a power cut."""
    with SqliteSaver.from_conn_string(f"{place}/langgraph.db") as saver:
        saver.setup()
        saver.conn.execute("PRAGMA synchronous = FULL")
        yield saver


SAVERS = {"Perdure": ours, "LangGraph SqliteSaver": theirs}


class Thread:
    """One long thread on one saver: its speed at the end, the time to list its newest checkpoints, its bytes once it is closed."""

    def __init__(self, name: str, place: Path) -> None:
        self._place, self._open = place, ExitStack()
        self._chat = graph(self._open.enter_context(SAVERS[name](place)))
        self._seconds = 0.0
        for number in range(TURNS - LAST):
            self._chat.invoke(say(number), config("trip-42"))

    def turn(self, number: int) -> None:
        """One of the last turns."""
        start = time.perf_counter()
        self._chat.invoke(say(number), config("trip-42"))
        self._seconds += time.perf_counter() - start

    def end(self) -> None:
        """List, and close."""
        self.last = LAST / self._seconds
        start = time.perf_counter()
        listed = list(self._chat.get_state_history(config("trip-42"), limit=LISTED))
        self.listing = time.perf_counter() - start
        assert len(listed) == LISTED
        assert len(listed[0].values["messages"]) == 2 * TURNS
        self._open.close()
        self.bytes = sum(path.stat().st_size for path in self._place.iterdir())


def long_threads() -> dict[str, Thread]:
    """A long thread on each saver. The last turns are taken in turn, so that both meet the same machine."""
    with ExitStack() as stack:
        threads = {name: Thread(name, stack.enter_context(folder())) for name in SAVERS}
        for number in range(TURNS - LAST, TURNS):
            for thread in threads.values():
                thread.turn(number)
        for thread in threads.values():
            thread.end()
        return threads


def first_turns(name: str) -> Any:
    """Turns a second of a young thread."""

    def measure(place: Path) -> float:
        with SAVERS[name](place) as saver:
            chat = graph(saver)
            chat.invoke(say(0), config("warm"))
            start = time.perf_counter()
            for number in range(FEW):
                chat.invoke(say(number), config("trip-42"))
            return FEW / (time.perf_counter() - start)

    return measure


def growth() -> float:
    """Bytes of memory that one more thread leaves in Perdure's saver, once its caches are full."""
    with folder() as place, perdure.sync.open(f"sqlite:///{place}/perdure.db", cache_bytes=1 << 20) as store:
        chat = graph(PerdureSaver(store))
        for number in range(THREADS):
            chat.invoke(say(0), config(f"warm {number}"))
        tracemalloc.start()
        chat.invoke(say(0), config("first"))
        before = tracemalloc.get_traced_memory()[0]
        for number in range(THREADS):
            chat.invoke(say(0), config(f"more {number}"))
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return (after - before) / THREADS


def main() -> None:
    """Print the table."""
    machine()
    young = alternate({name: first_turns(name) for name in SAVERS}, 1 if small() else 5)
    threads = long_threads()
    mine, other = threads["Perdure"], threads["LangGraph SqliteSaver"]
    spoken = sum(len(json.dumps(message)) for number in range(TURNS) for message in turn(number))
    a, b = young.values()
    table(
        f"LangGraph, one thread of {TURNS} turns",
        [
            ("", "Perdure", "SqliteSaver", "Perdure is"),
            (f"turns/s at turn {FEW}", f"{a:,.0f}", f"{b:,.0f}", f"{a / b:.2f} x"),
            (f"turns/s at turn {TURNS}", f"{mine.last:,.0f}", f"{other.last:,.0f}", f"{mine.last / other.last:.2f} x"),
            ("bytes on disk", f"{mine.bytes:,}", f"{other.bytes:,}", f"1/{other.bytes / mine.bytes:.0f}"),
            ("bytes to the JSON of the messages", f"{mine.bytes / spoken:.2f}", f"{other.bytes / spoken:.1f}", ""),
            (
                f"get_state_history of {LISTED}, ms",
                f"{mine.listing * 1e3:,.0f}",
                f"{other.listing * 1e3:,.0f}",
                f"{mine.listing / other.listing:.2f} x",
            ),
        ],
    )
    print(f"\nMemory that {THREADS} more threads leave in the saver: {growth():,.0f} bytes each.")


if __name__ == "__main__":
    sys.exit(main())
