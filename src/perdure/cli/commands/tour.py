"""`perdure tour`: a session's life in two minutes, on real files; every claim is checked as it is made."""

from __future__ import annotations

import inspect
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, cast

import msgspec
from rich.syntax import Syntax
from rich.text import Text

from perdure.cli.commands import tour_steps as steps
from perdure.cli.commands.serve import ListeningRow
from perdure.cli.common import COMMON, Common
from perdure.cli.exits import OK, OTHER, UsageError
from perdure.cli.output.speech import compact
from perdure.cli.output.terminal import Terminal
from perdure.cli.output.text import clean
from perdure.errors import Conflict, Corrupt, Unsupported

Claims = Iterator[tuple[bool, str]]
"""Claims: whether each held, and what it says."""


class ClaimRow(msgspec.Struct, frozen=True):
    """Something that the tour claims."""

    text: str
    """What happened."""
    held: bool
    """Whether it was so."""


class StepRow(msgspec.Struct, frozen=True):
    """A step of the tour."""

    number: int
    """From 1."""
    title: str
    """What it is about."""
    code: str
    """The code that was run, as it stands in the library."""
    claims: list[ClaimRow]
    """What happened."""


class Refused(msgspec.Struct):
    """What `perdure serve --json` prints when it does not start."""

    message: str


class Places(msgspec.Struct, frozen=True):
    """Where the steps of a tour work."""

    file: str
    """The URL of the file."""
    url: str
    """What the steps open: the file, or the service that stands before it."""
    archive: str | None
    """What they open it with; a service has its own."""


def tour(folder: Path | None = None, /, *, service: bool = False, keep: bool = False, pause: float = 0.0, common: Common = COMMON) -> int:
    """Watch a session survive: a crash, a retry, two writers, a paused worker, time travel, a fork, tampering, the archive.

    Each step shows the code that it runs and what happened. Leaves with 0 only if every claim held. Text, unless --json is given.

    Parameters
    ----------
    folder
        Where to make the tour's own folder; without it, where temporary files go.
    service
        Start a node of `perdure serve` before the file, and do the same through its URL.
    keep
        Leave the files there, to look at them with the other commands.
    pause
        Seconds between two steps.
    """
    if folder is not None and not folder.is_dir():
        raise UsageError(f"The folder {str(folder)!r} does not exist.")
    terminal = Terminal(json=bool(common.json), quiet=common.quiet)
    place = Path(tempfile.mkdtemp(prefix="perdure-tour-", dir=folder)).absolute()
    file, archive = f"sqlite:///{place / 'agents.db'}", (place / "archive").as_uri()
    held = True
    memory: dict[str, Any] = {}
    try:
        with _serving(file, archive) if service else nullcontext(Places(file, file, archive)) as places:
            if service and not terminal.json:
                terminal.print(f"A node serves the file at {places.url}")
            for number, (step, check) in enumerate(STEPS, 1):
                if number > 1:
                    time.sleep(max(pause, 0))
                held &= _take(terminal, number, step, check, places, memory)
    finally:
        if not keep:
            shutil.rmtree(place)
    if not terminal.json:
        _end(terminal, file, held=held, keep=keep)
    return OK if held else OTHER


@contextmanager
def _serving(file: str, archive: str) -> Iterator[Places]:
    """A node before the file, on a free port of this machine. Raises `Unsupported` where it cannot be started."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_") and name != "PORT"}
    command = [sys.executable, "-m", "perdure", "serve", file, "--archive", archive, "--port", "0", "--drain-delay", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=settings) as node:
        said, log = cast(IO[bytes], node.stdout), cast(IO[bytes], node.stderr)
        try:
            first = said.readline()
            if not first:
                raise Unsupported(_why(log.read()), advice="")
            threading.Thread(target=log.read, daemon=True).start()
            (url,) = msgspec.json.decode(first, type=ListeningRow).listening
            yield Places(file, url, None)
        finally:
            node.terminate()


def _why(log: bytes) -> str:
    """The reason why a node did not start: the message of the error that it printed last, or all that it printed."""
    try:
        return clean(msgspec.json.decode(log.splitlines()[-1], type=Refused).message)
    except (msgspec.MsgspecError, IndexError):
        return clean(log.decode(errors="replace")).strip() or "The node did not start."


def _take(
    terminal: Terminal, number: int, step: Callable[..., Any], check: Callable[..., Claims], places: Places, memory: dict[str, Any]
) -> bool:
    """One step: its code, then what happened."""
    title, code = inspect.getdoc(step) or "", _code(step)
    if not terminal.json:
        terminal.print(Text(f"\n{number}. {title}\n", style="bold"))
        syntax = Syntax(textwrap.indent(code, "   "), "python", theme="ansi_dark", background_color="default")
        # Code is for reading and copying: where no terminal sets a width it is never folded.
        terminal.print(syntax) if terminal.console.is_terminal else print(textwrap.indent(code, "   "))
    answer = step(*[getattr(places, name) for name in WHERE.get(step, ("url",))])
    claims = [ClaimRow(clean(text), bool(held)) for held, text in check(answer, memory)]
    if terminal.json:
        terminal.object(StepRow(number, title, code, claims))
    else:
        print()
        for claim in claims:
            mark, style = ("→", "green") if claim.held else ("✗ this did not hold:", "bold red")
            terminal.print(Text.assemble("   ", (mark, style), " ", claim.text))
    return all(claim.held for claim in claims)


def _end(terminal: Terminal, url: str, *, held: bool, keep: bool) -> None:
    if held:
        terminal.print(Text("\nEvery claim held, on this machine, just now.", style="bold green"))
    else:
        terminal.print(Text("\nNot every claim held: please report this, with what `perdure doctor` says.", style="bold red"))
    if keep:
        terminal.print(f"The files stay. Look at them: perdure log trip-42 --url {url}")


def _code(step: Callable[..., Any]) -> str:
    """The body of the function, as it stands in its file, without its docstring; for the child's step, the child's program too."""
    body = textwrap.dedent(inspect.getsource(step).split('"""\n', 1)[1]).rstrip()
    for name in ("WRITER", "HOLDER"):
        if name in body:
            return f'{name} = """{getattr(steps, name)}"""\n{body}'
    return body


def _session(answer: Any, _: dict[str, Any]) -> Claims:
    receipt, state = answer
    yield (
        receipt.version == 2,
        f"{receipt.version} commits; the newest is durable to the level {receipt.durability.name!r}: synced before the call came back",
    )
    yield state == {"status": "searching", "offers": [{"hotel": "Alfama", "price": 240}], "tokens": 512}, f"state: {compact(state)}"


def _killed(answer: Any, memory: dict[str, Any]) -> Claims:
    status, memory["said"] = answer
    yield status != 0, f"the child is dead (exit status {status})"
    yield (
        len(memory["said"]) >= 200,
        f"it had acknowledged {len(memory['said'])} commits, the last as version {max(memory['said'], default=0)}",
    )


def _resumed(answer: Any, memory: dict[str, Any]) -> Claims:
    found, version, commits = answer
    lost, more = set(memory["said"]) - set(found), len(found) - len(memory["said"])
    yield not lost, f"acknowledged: {len(memory['said'])}; found: {len(found)}; lost: {len(lost)}"
    yield 0 <= more <= 1, f"written but not yet acknowledged when it died: {more} (it can be one at most)"
    yield found == list(range(1, len(found) + 1)), f"the versions are 1 to {len(found)} without a gap"
    yield version == commits == len(found) + 1, f"the session goes on at version {version}, and the chain of {commits} is proved"


def _sent_again(answer: Any, _: dict[str, Any]) -> Claims:
    first, again, paid = answer
    yield (
        again.duplicate and again.hash == first.hash,
        f"both answers are the receipt of version {first.version}; duplicate={again.duplicate}",
    )
    yield paid == 50, f"paid: {paid}"


def _merged(answer: Any, _: dict[str, Any]) -> Claims:
    base, other, hotels, flights, state = answer
    yield base == other, f"both started from version {base}"
    yield (
        {hotels.version, flights.version} == {base + 1, base + 2},
        f"flights became version {flights.version}, hotels was carried over it: {hotels.version}",
    )
    yield len(state["offers"]) == 3, f"offers: {compact(state['offers'])}: nobody's was lost"
    yield state["tokens"] == 512 + 100 + 40, f"tokens: 512 + 40 + 100 = {state['tokens']}"


def _refused(answer: Any, _: dict[str, Any]) -> Claims:
    if answer is None:
        yield False, "the second edit was refused"
        return
    conflict, status = answer
    yield isinstance(conflict, Conflict) and conflict.paths == ("/status",), f"Conflict on {', '.join(conflict.paths)}"
    unseen = [(commit.version, commit.actor) for commit in conflict.commits]
    yield [actor for _, actor in unseen] == ["flights"], f"it names what was not seen: version {unseen[0][0]} by {unseen[0][1]}"
    yield status == "cancelled", f"status: {status!r}; nothing of the refused edit was written"


def _taken_over(answer: Any, _: dict[str, Any]) -> Claims:
    first, second, said, newest = answer
    yield second > first, f"the fencing token rose from {first} to {second}; no clock was compared"
    yield said.strip() == "fenced", f"the first one's late write: {said.strip()}"
    yield newest, "nothing of it is in the session"


def _asleep(answer: Any, _: dict[str, Any]) -> Claims:
    archived, same, version, commits = answer
    yield archived.commits > 0, f"{archived.commits} commits went to the archive: {archived.segment_bytes:,} bytes"
    yield same, "its history reads the same, hash by hash"
    yield commits == version, f"it woke at version {version}, and the chain of {commits} is proved, through the archive"


def _past(answer: Any, memory: dict[str, Any]) -> Claims:
    state, history = answer
    memory["past"] = state
    yield "paid" not in state and len(state["offers"]) == 1, f"at version 2: {compact(state)}"
    for version, actor, type in history:
        yield True, f"version {version}: {type}{f' by {actor}' if actor else ''}"


def _forked(answer: Any, _: dict[str, Any]) -> Claims:
    before, after = answer
    yield "insurance" not in before, "while the fork tried it, the session itself did not change"
    yield after == {**before, "insurance": True}, "merged, the session has both: its own later commits, and the fork's insurance"


def _proved(answer: Any, _: dict[str, Any]) -> Claims:
    for proof in answer:
        yield True, f"{proof.session}: {proof.commits} commits hang together, up to {proof.hash.hex()[:16]}…"
    yield len(answer) == 3, f"{len(answer)} sessions proved"


def _found(answer: Any, _: dict[str, Any]) -> Claims:
    yield isinstance(answer, Corrupt), f"{answer.code}: {answer.detail}" if isinstance(answer, Corrupt) else "the changed byte was found"


STEPS: tuple[tuple[Callable[..., Any], Callable[..., Claims]], ...] = (
    (steps.an_agents_session, _session),
    (steps.killed_in_mid_write, _killed),
    (steps.resumed, _resumed),
    (steps.sent_again, _sent_again),
    (steps.two_writers, _merged),
    (steps.two_that_do_not_combine, _refused),
    *([(steps.taken_over, _taken_over)] if hasattr(signal, "SIGSTOP") else []),
    (steps.back_in_time, _past),
    (steps.what_if, _forked),
    (steps.proved, _proved),
    (steps.tampered, _found),
    (steps.asleep, _asleep),
)
"""What is run and shown, and what is claimed of its answer."""

WHERE = {steps.tampered: ("file",), steps.asleep: ("url", "archive")}
"""Which of the `Places` a step gets, where it is more than the URL."""
