"""Small graphs with a model that needs no network, and what tests compare of them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages


class Chat(TypedDict):
    """The ordinary state of a chat."""

    messages: Annotated[list[AnyMessage], add_messages]
    notes: Annotated[list[str], operator.add]


Node = Callable[[Any], Any]


def answer(state: Chat) -> dict[str, Any]:
    """A model that says how many messages it has read."""
    count = len(state["messages"])
    return {"messages": [AIMessage(f"answer {count}", id=f"a{count}")], "notes": [f"note {count}"]}


def chat(saver: Any, node: Node = answer, **options: Any) -> Any:
    """A graph of one node, compiled with a checkpointer."""
    graph = StateGraph(Chat)
    graph.add_node("agent", node)
    graph.add_edge(START, "agent")
    graph.add_edge("agent", END)
    return graph.compile(checkpointer=saver, **options)


def config(thread: str = "trip-42", **more: Any) -> Any:
    """The config of a thread."""
    return {"configurable": {"thread_id": thread, **more}}


def say(text: str) -> dict[str, Any]:
    """An input with one message of the user; its id is its text."""
    return {"messages": [HumanMessage(text, id=text)]}


def comparable(history: list[Any]) -> list[Any]:
    """What two savers must agree on: of each snapshot all but ids and times."""
    return [(snapshot.values, snapshot.next, _plain(snapshot.metadata), list(map(_task, snapshot.tasks))) for snapshot in history]


def _task(task: Any) -> Any:
    return task.name, task.result, task.error, [interrupt.value for interrupt in task.interrupts]


def _plain(metadata: Any) -> Any:
    return {name: value for name, value in metadata.items() if name != "parents"} | {"depth": len(metadata.get("parents", {}))}
