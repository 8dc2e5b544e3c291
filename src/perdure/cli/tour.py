"""`perdure tour`: two minutes on real files. Every step shows the code that runs, then what happened, and fails loudly if it did not."""

from __future__ import annotations

import inspect
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import apsw
from cyclopts import Parameter
from rich.console import Console
from rich.syntax import Syntax

import perdure
from perdure import op, sync
from perdure.errors import Conflict, Corrupt
from perdure.model.events import Event

Say = Callable[[str], None]


class TourFailed(perdure.Error):
    """What the tour claims did not hold on this machine. Run `perdure doctor`, and report what it printed."""

    code = "tour_failed"


def claim(holds: bool, what: str) -> None:
    """Stop the tour unless this holds."""
    if not holds:
        raise TourFailed(f"This did not hold: {what}.")


def an_agents_session(url: str, say: Say) -> None:
    """An agent keeps its session: state as dicts and lists, what happened as events."""
    with sync.open(url) as store:
        with store.edit("trip-42", actor="planner") as draft:
            draft.state["status"] = "searching"
            draft.state.setdefault("offers", []).append({"id": 7, "price": 320})
            draft.event("message", {"role": "user", "content": "A flight to Lisbon, please."})
        receipt = store.append("trip-42", Event("tool_called", {"name": "search_flights"}), actor="planner")
        say(f"version {receipt.version}, durability {receipt.durability.name}: synced to disk before the call returned")
        claim(store.read("trip-42").state == {"status": "searching", "offers": [{"id": 7, "price": 320}]}, "the state is what was written")


def killed_in_mid_write(url: str, say: Say) -> None:
    """A child process appends as fast as it can, and is killed with -9."""
    program = (
        "import sys, perdure.sync as p; from perdure import Event\n"
        "with p.open(sys.argv[1]) as store:\n"
        "    while True: print(store.append('crash', Event('step')).version, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE, text=True) as child:
        out = child.stdout
        first = out.readline() if out else ""
        time.sleep(0.4)
        child.send_signal(signal.SIGKILL)
        acknowledged = int([first, *[line for line in out or () if line.endswith("\n")]][-1])
    with sync.open(url) as store:
        kept = store.read("crash").version
        say(f"acknowledged {acknowledged} commits before it died; the file holds {kept}: none lost, at most one more")
        claim(acknowledged <= kept <= acknowledged + 1, "what was acknowledged is kept, and at most the next one besides")
        receipt = store.append("crash", Event("resumed"))
        say(f"the session goes on at version {receipt.version}")
        claim(receipt.version == kept + 1, "the session goes on")


def two_writers(url: str, say: Say) -> None:
    """Two agents change one session at once: what combines is merged, what does not is a Conflict."""
    with sync.open(url) as store:
        with store.edit("trip-42", actor="pricer") as mine:
            mine.state["offers"].append({"id": 8, "price": 290})
            with store.edit("trip-42", actor="searcher") as theirs:
                theirs.state["offers"].append({"id": 9, "price": 410})
                theirs.state["status"] = "comparing"
        ids = [offer["id"] for offer in store.read("trip-42").state["offers"]]
        say(f"both appended: offers {ids}; nobody's was lost")
        claim(ids == [7, 9, 8], "both offers are there, the first writer's first")
        try:
            with store.edit("trip-42", actor="pricer") as mine:
                mine.state["status"] = "priced"
                with store.edit("trip-42", actor="searcher") as theirs:
                    theirs.state["status"] = "cancelled"
        except Conflict as conflict:
            say(f"both set the status: Conflict on {conflict.paths[0]}, {len(conflict.commits)} commit unseen, nothing of mine written")
        claim(store.read("trip-42").state["status"] == "cancelled", "the second writer was refused")


def applied_once(url: str, say: Say) -> None:
    """A retry with the same idempotency key finds its first outcome."""
    with sync.open(url) as store:
        first = store.append("trip-42", Event("paid", ops=(op.add("/paid", 290),)), key="payment-1")
        again = store.append("trip-42", Event("paid", ops=(op.add("/paid", 290),)), key="payment-1")
        say(f"first: version {first.version}; again: version {again.version}, duplicate={again.duplicate}")
        claim(again.duplicate and again.hash == first.hash, "the retry was not applied")
        claim(store.read("trip-42").state["paid"] == 290, "the payment counts once")


def back_in_time(url: str, say: Say) -> None:
    """Any version can be read, forked and merged back."""
    with sync.open(url) as store:
        say(f"at version 1 the status was {store.read('trip-42', at=1).state['status']!r}")
        claim(store.read("trip-42", at=1).state["status"] == "searching", "the past is as it was")
        fork = store.fork("trip-42", id="what-if")
        with store.edit(fork) as draft:
            draft.state["seat"] = "12A"
        claim("seat" not in store.read("trip-42").state, "a fork leaves its parent alone")
        receipt = store.merge(fork, into="trip-42")
        say(f"a fork tried seat 12A; merged back as version {receipt.version if receipt else None}")
        claim(store.read("trip-42").state["seat"] == "12A", "the merge brought it over")
        for commit in store.history("trip-42", limit=3):
            say(f"  {commit.version}  {commit.actor}  {', '.join(event.type for event in commit.events)}")


def tampering_is_found(url: str, say: Say) -> None:
    """Each commit carries the hash of the one before: a changed byte is found."""
    with sync.open(url) as store:
        proof = store.verify("trip-42")
        say(f"trip-42: {proof.commits} commits hang together, head {proof.hash.hex()[:16]}…")
    copy = url.removeprefix("sqlite:///") + ".tampered"
    shutil.copy(url.removeprefix("sqlite:///"), copy)
    tampered = apsw.Connection(copy)
    tampered.execute("UPDATE log SET body = CAST(replace(CAST(body AS TEXT), '320', '020') AS BLOB) WHERE version = 1")
    tampered.close()
    with sync.open(f"sqlite:///{copy}") as store:
        try:
            store.verify("trip-42")
        except Corrupt as corrupt:
            say(f"in a copy, one price changed behind our back: {corrupt.detail}")
            return
    claim(False, "the changed byte was found")


STEPS = (an_agents_session, killed_in_mid_write, two_writers, applied_once, back_in_time, tampering_is_found)


def tour(
    folder: Path | None = None,
    /,
    *,
    keep: Annotated[bool, Parameter(help="Leave the files, to look at with the other commands.")] = False,
    pause: Annotated[float, Parameter(help="Seconds between steps.")] = 0.0,
) -> int:
    """Watch a session survive: a crash, two writers, a retry, time travel, tampering. Exit code 0 only if every claim held."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    place = Path(tempfile.mkdtemp(prefix="perdure-tour-", dir=folder))
    try:
        url = f"sqlite:///{place / 'agents.db'}"
        for number, step in enumerate(STEPS, 1):
            _tell(console, number, step)
            step(url, lambda text: console.print(f"  [green]→[/] {text}", highlight=False))
            time.sleep(pause)
        console.print("\nEvery claim held on this machine.", style="bold green")
        if keep:
            console.print(f"The files are in {place}. Try: perdure log trip-42 --url {url}", soft_wrap=True)
    finally:
        if not keep:
            shutil.rmtree(place)
    return 0


def _tell(console: Console, number: int, step: Callable[..., Any]) -> None:
    """The step's own source: what is shown is what runs."""
    lines = inspect.getsource(step).splitlines()
    body = "\n".join(line for line in lines[2:] if "claim(" not in line and "assert " not in line)
    console.print(f"\n[bold]{number}. {inspect.getdoc(step)}[/]\n")
    console.print(
        Syntax(textwrap.indent(textwrap.dedent(body), "  "), "python", theme="ansi_dark", background_color="default", word_wrap=True)
    )
    console.print()
