"""The team of four processes on one session: killed by chance, or each right after what it did, the result is the one on the page."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import perdure
from examples.team.desk import Desk, Refused
from examples.team.processes import Team, nobody
from examples.team.roles import SESSION, TEAM
from examples.team.story import story
from perdure import Commit
from tests.servers.fixture import Servers
from tests.servers.postgresql import PostgreSQL
from tests.support.backends.engines import Engine
from tests.support.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "team.md"
ACTS = ("merged", "booking", "booked")
"""What is done by the one that has the lease, whoever that is."""


def without_name(lines: list[str]) -> list[str]:
    """The lines, with no name where it depends on who got the lease."""
    return ["one of them" + line[9:] if line[10:].startswith(ACTS) else line for line in lines]


def shown() -> list[str]:
    """What the page says that the program prints."""
    page = blocks(PAGE)
    number = next(n for n, block in enumerate(page) if block.language == "sh" and "examples.team" in block.text)
    return without_name(page[number + 1].text.splitlines())


def program(place: Path, *arguments: str) -> list[str]:
    """The lines that the command prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-W", "error", "-m", "examples.team", *arguments]
    done = subprocess.run(command, cwd=place, env=environment, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_page_shows_what_the_command_prints_and_a_second_run_adds_nothing(tmp_path: Path) -> None:
    """One command, in an empty folder; run again, it says what is there, and its desk has one booking."""
    first = program(tmp_path)
    assert without_name(first) == shown()
    assert program(tmp_path) == first


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_by_chance_the_result_is_the_same(tmp_path: Path, seed: int) -> None:
    """Up to six kills, by a seed: the same lines, and then the names of those that were killed."""
    *lines, killed = program(tmp_path, "--kill", "6", "--seed", str(seed))
    assert without_name(lines) == shown()
    names = killed.removeprefix("Killed: ").split(", ")
    assert set(names) <= set(TEAM) and 1 <= len(names) <= 6


async def result(url: str, place: Path, team: Team) -> list[str]:
    """What the command would print, after the team is done."""
    async with perdure.open(url) as store:
        lines = await story(store, SESSION)
        await store.verify(SESSION)
    return [*lines, "", *(f"The desk has booking {number}: {name}, {total} euros." for name, total, number in Desk(team.desk).booked())]


class KillTheActor:
    """Kills who did something new, each time that something is done for the first time: so each role dies right after each of its steps."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(self, commit: Commit) -> str | None:
        new = {event.type for event in commit.events} - self.seen
        self.seen |= new
        return commit.actor if new and commit.actor in TEAM else None


async def plays_to_the_end(url: str, place: Path) -> None:
    """Each worker is killed after each kind of step that it takes, the one with the lease too; then the whole again without kills."""
    team, choose = Team(url, str(place / "desk.db"), 0.02), KillTheActor()
    await team.run(choose)
    assert without_name(await result(url, place, team)) == shown()
    assert {"planned", "found", "voted", "decided", "booking", "booked"} <= choose.seen
    assert len(team.killed) >= 4
    before = await result(url, place, team)
    await team.run(nobody)
    assert await result(url, place, team) == before


async def test_killed_after_each_kind_of_step_the_result_is_the_same(tmp_path: Path) -> None:
    """On SQLite."""
    await plays_to_the_end(f"sqlite:///{tmp_path}/team.db", tmp_path)


async def test_the_same_on_postgresql(tmp_path: Path, servers: Servers[PostgreSQL]) -> None:
    """On PostgreSQL."""
    server = await asyncio.to_thread(servers, PostgreSQL)
    await plays_to_the_end(Engine("postgresql", PostgreSQL).url(server), tmp_path)


def test_the_desk_books_once_and_refuses_an_old_token(tmp_path: Path) -> None:
    """The world outside: asked twice it gives one number; a worker with a lower token than another one had is refused."""
    desk = Desk(str(tmp_path / "desk.db"))
    assert [desk.book("trip", 184, token) for token in (5, 5, 9)] == [1, 1, 1]
    with pytest.raises(Refused):
        desk.book("trip", 184, 5)
    assert desk.booked() == [("trip", 184, 1)]
