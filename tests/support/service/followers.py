"""Who follows commits of a service, in every way that there is, and writes down what each has got.

watch, changes    through `perdure.open`, which finds another node by itself
sse, sse changes  event streams, one after another, each at the next node; a client comes back with `Last-Event-ID`
poll              long polls, with the position of the last answer
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from itertools import count
from typing import Any

import aiohttp
import msgspec

import perdure
from perdure.backends.remote import cancel_and_wait
from perdure.wire.sse import MessageReader

SILENCE = 4.0
"""Seconds without a byte after which a stream of a session that is written all the time is given up."""
PAUSE = 0.1
AWAY = {408, 429, 503, 504}
"""What a client comes back after."""


class Follower:
    """What one has got: the versions of each session, in the order in which they came."""

    def __init__(self, name: str, sessions: Sequence[str], *, repeats: bool) -> None:
        """`repeats`: a commit may come again."""
        self.name, self.sessions, self.repeats = name, sessions, repeats
        self.got: dict[str, list[int]] = defaultdict(list)
        self.newest: dict[str, int] = defaultdict(int)
        self.begun = 0
        """How often it has begun to listen."""

    def take(self, session: str, version: int) -> None:
        """A commit came."""
        self.got[session].append(version)
        self.newest[session] = max(self.newest[session], version)

    def has(self, heads: Mapping[str, int]) -> bool:
        """Whether it has got all of its sessions to these versions."""
        return all(self.newest[session] >= heads.get(session, 0) for session in self.sessions)

    def repeated(self) -> int:
        """How many commits came again."""
        return sum(len(versions) - len(set(versions)) for versions in self.got.values())

    def check(self, heads: Mapping[str, int]) -> None:
        """Raise `AssertionError` unless every commit came, in order, and once where that is said."""
        for session in self.sessions:
            versions, newest = self.got[session], 0
            for version in versions:
                assert version <= newest + 1, f"{self.name}: {version} of {session} after {newest}"
                newest = max(newest, version)
            assert newest == heads[session], f"{self.name} has {session} to {newest} of {heads[session]}"
            assert self.repeats or len(versions) == newest, f"{self.name} has got commits of {session} again: {versions}"


class Followers:
    """All of them, at work until `stop`."""

    def __init__(self, store: perdure.Store, urls: Sequence[str], sessions: Sequence[str], watched: Sequence[str]) -> None:
        """`sessions`: all that there are; `watched`: those that are watched one by one. They have to be there."""
        self.wrong: list[BaseException] = []
        self.all: list[Follower] = []
        self._store, self._urls, self._turns = store, urls, count()
        self._tasks: list[asyncio.Task[None]] = []
        self._moved = asyncio.Event()
        for session in watched:
            self._follow(Follower(f"watch {session}", [session], repeats=False), self._watch)
            self._follow(Follower(f"sse {session}", [session], repeats=False), self._streams)
            self._follow(Follower(f"poll {session}", [session], repeats=False), self._polls)
        self._follow(Follower("changes", sessions, repeats=False), self._changes)
        self._follow(Follower("sse changes", sessions, repeats=True), self._streams)

    def _follow(self, follower: Follower, way: Callable[[Follower], Awaitable[None]]) -> None:
        async def follow() -> None:
            try:
                await way(follower)
            except Exception as error:  # noqa: BLE001 - nobody who follows is told of any
                error.add_note(follower.name)
                self.wrong.append(error)
                self._moved.set()

        self.all.append(follower)
        self._tasks.append(asyncio.create_task(follow()))

    async def until(self, heads: Mapping[str, int], seconds: float = 90) -> None:
        """Until everyone has got the sessions to these versions."""
        try:
            async with asyncio.timeout(seconds):
                while not all(follower.has(heads) for follower in self.all):
                    self._moved.clear()
                    await self._moved.wait()
                    if self.wrong:
                        raise self.wrong[0]
        except TimeoutError:
            late = {follower.name: dict(follower.newest) for follower in self.all if not follower.has(heads)}
            raise AssertionError(f"there is {dict(heads)}, and these have {late}") from None

    async def stop(self) -> None:
        """End them."""
        await cancel_and_wait(*self._tasks)

    def _took(self, follower: Follower, session: str, version: int) -> None:
        follower.take(session, version)
        self._moved.set()

    async def _watch(self, follower: Follower) -> None:
        (session,) = follower.sessions
        follower.begun += 1
        async with aclosing(self._store.watch(session)) as commits:  # type: ignore[type-var]
            async for commit in commits:
                self._took(follower, session, commit.version)

    async def _changes(self, follower: Follower) -> None:
        follower.begun += 1
        async with aclosing(self._store.changes()) as changes:  # type: ignore[type-var]
            async for change in changes:
                self._took(follower, change.session, change.commit.version)

    async def _streams(self, follower: Follower) -> None:
        position: str | None = None
        only = follower.sessions[0] if len(follower.sessions) == 1 else None
        path = "/v1/changes" if only is None else f"/v1/sessions/{only}/watch"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, connect=2, sock_read=SILENCE)) as http:
            while True:
                follower.begun += 1
                headers = {} if position is None else {"Last-Event-ID": position}
                try:
                    async with http.get(self._url(path), headers=headers) as answer:
                        if answer.status not in AWAY:
                            assert answer.status == 200, await answer.text()
                            async for event, id, data in _messages(answer):
                                if event == "error":
                                    assert data["status"] in AWAY, data
                                    break
                                position = position if id is None else id
                                if data is not None:
                                    self._took(follower, only or data["session"], data["version"])
                except (aiohttp.ClientError, TimeoutError, OSError):
                    pass
                await asyncio.sleep(PAUSE)

    async def _polls(self, follower: Follower) -> None:
        position: str | None = None
        (session,) = follower.sessions
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SILENCE, connect=2)) as http:
            while True:
                follower.begun += 1
                asked = {"live": "long-poll", "wait": "2"} | ({} if position is None else {"after": position})
                try:
                    async with http.get(self._url(f"/v1/sessions/{session}/watch"), params=asked) as answer:
                        if answer.status in AWAY:
                            await asyncio.sleep(PAUSE)
                            continue
                        assert answer.status == 200, await answer.text()
                        found = await answer.json()
                except (aiohttp.ClientError, TimeoutError, OSError):
                    await asyncio.sleep(PAUSE)
                    continue
                position = found["position"]
                for commit in found["commits"]:
                    self._took(follower, session, commit["version"])

    def _url(self, path: str) -> str:
        return self._urls[next(self._turns) % len(self._urls)] + path


async def _messages(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, str | None, Any]]:
    reader = MessageReader()
    async for piece in answer.content.iter_any():
        for each in reader.feed(piece):
            yield each.event, each.id, msgspec.json.decode(each.data) if each.data else None
