"""The steps of the tour: each function is shown as it stands here, run, and its answer is held against what the tour claims."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import apsw

import perdure.sync
from perdure import Conflict, Corrupt, Event


def an_agents_session(url: str) -> Any:
    """An agent keeps its session: what was said, and a state of dicts and lists."""
    with perdure.sync.open(url) as store:
        store.append("trip-42", Event("message", {"role": "user", "content": "Two nights in Lisbon, under 300."}), actor="ana")
        with store.edit("trip-42", actor="planner") as draft:
            draft.state["status"] = "searching"
            draft.state.setdefault("offers", []).append({"hotel": "Alfama", "price": 240})
            draft.add("/tokens", 512)
        return draft.receipt, store.read("trip-42").state


WRITER = """
import sys, perdure.sync
with perdure.sync.open(sys.argv[1]) as store:
    while True:
        receipt = store.append("nightly", perdure.Event("step"))
        print(receipt.version, flush=True)      # said only after the commit was acknowledged
"""


def killed_in_mid_write(url: str) -> Any:
    """A child process appends as fast as it can, until kill -9."""
    child: Any = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    said = [child.stdout.readline() for _ in range(200)]
    child.kill()  # no handler runs, nothing is flushed
    said += child.communicate()[0].splitlines(keepends=True)
    return child.returncode, [int(line) for line in said if line.endswith("\n")]


def resumed(url: str) -> Any:
    """The session goes on where it was: the file is opened, that is all."""
    with perdure.sync.open(url) as store:
        found = [commit.version for commit in store.history("nightly")]
        receipt = store.append("nightly", Event("resumed"))
        return found, receipt.version, store.verify("nightly").commits


def sent_again(url: str) -> Any:
    """A payment is sent again, as after a lost answer: with the same key it is applied once."""
    with perdure.sync.open(url) as store:
        pay = Event("paid", {"euro": 50}, (perdure.op.add("/paid", 50),))
        first = store.append("trip-42", pay, key="payment-1")
        again = store.append("trip-42", pay, key="payment-1")
        return first, again, store.read("trip-42").state["paid"]


def two_writers(url: str) -> Any:
    """Two agents, each with its own connection, edit the session at once."""
    with perdure.sync.open(url) as one, perdure.sync.open(url) as two:
        with one.edit("trip-42", actor="hotels") as hotels, two.edit("trip-42", actor="flights") as flights:
            hotels.state["offers"].append({"hotel": "Baixa", "price": 180})
            hotels.add("/tokens", 100)
            flights.state["offers"].append({"flight": "TP 571", "price": 90})
            flights.add("/tokens", 40)
        return hotels.version, flights.version, hotels.receipt, flights.receipt, one.read("trip-42").state


def two_that_do_not_combine(url: str) -> Any:
    """Both decide the same thing differently: that nobody may merge."""
    with perdure.sync.open(url) as one, perdure.sync.open(url) as two:
        try:
            with one.edit("trip-42", actor="hotels") as hotels, two.edit("trip-42", actor="flights") as flights:
                hotels.state["status"] = "booked"
                flights.state["status"] = "cancelled"
        except Conflict as conflict:
            return conflict, one.read("trip-42").state["status"]


HOLDER = """
import sys, perdure.sync
with perdure.sync.open(sys.argv[1]) as store, store.lease("nightly", owner="first", ttl=3) as lease:
    print(lease.token, flush=True)
    sys.stdin.readline()                        # it is paused here
    try:
        store.append("nightly", perdure.Event("late"), lease=lease)
    except perdure.Fenced as fenced:
        print(fenced.code, flush=True)
"""


def taken_over(url: str) -> Any:
    """A worker that holds a session is paused. Another one takes over, and what the first one writes then is refused."""
    child: Any = subprocess.Popen([sys.executable, "-c", HOLDER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    token = int(child.stdout.readline())
    child.send_signal(signal.SIGSTOP)  # as if its machine slept
    with perdure.sync.open(url) as store, store.lease("nightly", owner="second", ttl=3, wait=60) as lease:
        receipt = store.append("nightly", Event("taken over"), lease=lease)
        child.send_signal(signal.SIGCONT)
        said = child.communicate("go on")[0]
        newest = next(iter(store.history("nightly", newest_first=True, limit=1)))
        return token, lease.token, said, newest.version == receipt.version


def back_in_time(url: str) -> Any:
    """Any version can be read, and who made it."""
    with perdure.sync.open(url) as store:
        history = [(commit.version, commit.actor, commit.events[0].type) for commit in store.history("trip-42")]
        return store.read("trip-42", at=2).state, history


def what_if(url: str) -> Any:
    """A fork tries something from an earlier version, and is merged back."""
    with perdure.sync.open(url) as store:
        fork = store.fork("trip-42", at=2)
        with store.edit(fork, actor="what-if") as draft:
            draft.state["insurance"] = True
        before = store.read("trip-42").state
        store.merge(fork, into="trip-42")
        return before, store.read("trip-42").state


def proved(url: str) -> Any:
    """Each commit carries the hash of the one before; verify reads and proves them all."""
    with perdure.sync.open(url) as store:
        return [store.verify(info.session) for info in store.list()]


def tampered(url: str) -> Any:
    """Somebody changes one byte in a copy of the file, with the database's own tools."""
    path = url.removeprefix("sqlite:///")
    copy = path + ".copy"
    apsw.Connection(path).execute("VACUUM INTO ?", (copy,))
    with apsw.Connection(copy) as database:
        pos, body = next(database.execute("SELECT pos, body FROM log WHERE version = 2"))
        database.execute("UPDATE log SET body = ? WHERE pos = ?", (body[:-9] + bytes([body[-9] ^ 1]) + body[-8:], pos))
    database.close()
    with perdure.sync.open(f"sqlite:///{copy}") as store:
        try:
            return [store.verify(info.session) for info in store.list()]
        except Corrupt as corrupt:
            return corrupt


def asleep(url: str, archive: str | None) -> Any:
    """A session sleeps in the archive: it is read there, and wakes when it is written to."""
    with perdure.sync.open(url, archive=archive) as store:
        for number in range(20):
            store.append("trip-7", Event("message", {"role": "user", "content": f"wish {number}"}))
        before = [commit.hash for commit in store.history("trip-7")]
        archived = store.archive("trip-7")
        sleeping = [commit.hash for commit in store.history("trip-7") if commit.version <= len(before)]
        receipt = store.append("trip-7", Event("woken"))
        return archived, sleeping == before, receipt.version, store.verify("trip-7").commits
