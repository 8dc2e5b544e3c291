"""`perdure messages`: a session's transcript as a dialogue."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from rich.padding import Padding
from rich.text import Text

from perdure.cli.common import COMMON, Common, counts
from perdure.cli.output.describe import describe
from perdure.cli.output.rows import CommitRow, EventRow
from perdure.cli.output.shapes import put, said
from perdure.cli.output.speech import Part, Speech, answered, arguments, compact
from perdure.cli.output.terminal import Terminal
from perdure.cli.output.text import clean, one_line

WHO = {"user": "bold green", "assistant": "bold cyan", "tool": "yellow", "system": "magenta"}
TAKEN = frozenset({"popped", "cleared", "compacted"})
"""Events that take messages away."""


class CallRow(msgspec.Struct, frozen=True):
    """A tool that a message calls."""

    name: str
    """The tool."""
    arguments: Any
    """What it is called with, any JSON value."""
    id: str
    """The call's id; "" where it has none."""


class AnswerRow(msgspec.Struct, frozen=True):
    """What a tool answered."""

    name: str
    """The tool; "" where the answer names none."""
    content: Any
    """The answer, any JSON value."""
    id: str
    """The call's id; "" where it has none."""


class MessageRow(msgspec.Struct, frozen=True):
    """A message, or a note that messages were taken away."""

    version: int
    """The commit that it is in."""
    at: str
    """When it was committed, RFC 3339 in UTC."""
    who: str
    """user, assistant, tool, system, or an agent's name; "note" for a note."""
    text: str
    """What was said."""
    thoughts: str
    """What the model thought, where it is kept."""
    calls: list[CallRow]
    """The tools that it calls."""
    answers: list[AnswerRow]
    """What tools answered."""

    @classmethod
    def of(cls, row: CommitRow, message: Speech, names: dict[str, str]) -> MessageRow:
        """A message; `names` knows the tools by the ids of earlier calls, and learns those of this one."""
        parts = message.parts
        calls = [CallRow(part.name, part.value, part.id) for part in parts if part.kind == "call"]
        names.update({call.id: call.name for call in calls if call.id})
        answers = [AnswerRow(part.name or names.get(part.id, ""), part.value, part.id) for part in parts if part.kind == "answer"]
        return cls(row.version, row.at, message.who, _joined(parts, "text", "other"), _joined(parts, "thought"), calls, answers)


def messages(
    session: str, /, *, limit: int | None = None, thoughts: bool = False, include_deleted: bool = False, common: Common = COMMON
) -> None:
    """Show a session's transcript as a dialogue, oldest first: who said what, which tools were called, what they answered.

    Parameters
    ----------
    session
        Its id.
    limit
        Only the newest so many messages.
    thoughts
        Also what the model thought, where it is kept.
    include_deleted
        Also of a deleted session, and of its lives before: for audit.
    """
    terminal = common.terminal()
    counts(limit=limit)
    with common.open() as store:
        found: Iterable[MessageRow] = rows(map(CommitRow.of, store.history(session, include_deleted=include_deleted)))
        if limit is not None:
            found = deque(found, maxlen=limit)
        count = 0
        for row in found:
            count += 1
            if terminal.json:
                terminal.object(row)
            else:
                _show(terminal, row, thoughts=thoughts)
    if not count:
        terminal.note(f"There are no messages in {session}: `perdure log` shows its commits.")


def rows(commits: Iterable[CommitRow]) -> Iterator[MessageRow]:
    """The messages of these commits, each once, and notes of those that were taken away."""
    seen: set[str] = set()
    names: dict[str, str] = {}
    for row in commits:
        for event in row.events:
            if event.type in TAKEN:
                yield _note(row, describe(msgspec.structs.replace(row, events=[event]))[0])
                continue
            if removed := _removed(event):
                yield _note(row, f"{removed} message{'s' if removed > 1 else ''} removed")
                seen.clear()
            stored = list(put(event))
            for place, message in enumerate(said(event)):
                id = stored[place].get("id") if place < len(stored) else None
                if not isinstance(id, str) or id not in seen:
                    yield MessageRow.of(row, message, names)
                if isinstance(id, str):
                    seen.add(id)


def _removed(event: EventRow) -> int:
    """How many messages the event's operations took out of a list of messages without putting others there."""
    return sum(
        op.value[1]
        for op in event.ops
        if op.op == "splice" and op.path.endswith("/messages") and isinstance(op.value, (list, tuple)) and not op.value[2]
    )


def _note(row: CommitRow, what: Any) -> MessageRow:
    return MessageRow(row.version, row.at, "note", str(what), "", [], [])


def _joined(parts: tuple[Part, ...], *kinds: str) -> str:
    return "\n".join(part.text for part in parts if part.kind in kinds and part.text)


def _show(terminal: Terminal, row: MessageRow, *, thoughts: bool) -> None:
    if row.who == "note":
        terminal.print(Text(f"({one_line(row.text)}, in version {row.version})", "dim"))
        terminal.print("")
        return
    terminal.print(
        Text.assemble((one_line(row.who), WHO.get(row.who, "bold cyan")), (f"  version {row.version}, {terminal.when(row.at)}", "dim"))
    )
    if thoughts and row.thoughts:
        _indented(terminal, Text(clean(row.thoughts, "\n\t"), "dim"))
    if row.text:
        _indented(terminal, Text(clean(row.text, "\n\t")))
    for call in row.calls:
        _indented(terminal, Text(clean(f"→ {call.name}({arguments(call.arguments, 400)})"), "yellow"))
    for answer in row.answers:
        shown = answered(answer.content) or compact(answer.content)
        _indented(terminal, Text(clean(f"{answer.name}: {shown}" if answer.name else shown, "\n\t")))
    terminal.print("")


def _indented(terminal: Terminal, text: Text) -> None:
    terminal.console.print(Padding(text, (0, 0, 0, 2)))
