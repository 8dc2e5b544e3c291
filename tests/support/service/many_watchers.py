"""Many event streams of one node from one process: `python -m tests.support.service.many_watchers PORT SESSIONS COUNT`.

Each follows one of the sessions `s0`, `s1` …, and comes back with its position when its stream ends, as a node lets it about every minute.
For each line that it is sent it says in JSON how many streams are open, the least version that a watcher has seen, and what was wrong.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any

from tests.servers.process import HOST

AT_ONCE = 100
"""Streams that are being opened at once."""
LATE = b"HTTP/1.1 408 "
"""The node's answer to a client that was not given the time to send its request."""
_POSITION = re.compile(rb"^id: ((\d+)-[0-9a-f]+)$", re.MULTILINE)


class Watcher(asyncio.Protocol):
    """One who follows, by one stream after another."""

    def __init__(self, watchers: Watchers, session: str) -> None:
        self.watchers, self.session, self.position, self.version = watchers, session, "", 0
        self.ready: asyncio.Future[None]

    def connection_made(self, transport: Any) -> None:
        self.ready, self._rest = asyncio.get_running_loop().create_future(), b""
        target = f"/v1/sessions/{self.session}/watch"
        more = f"Last-Event-ID: {self.position}\r\n" if self.position else ""
        transport.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode())

    def data_received(self, data: bytes) -> None:
        if not self.ready.done():
            self.ready.set_result(None)
            if data.startswith(LATE):
                self.watchers.late += 1
                return
            if not data.startswith(b"HTTP/1.1 200 "):
                self.watchers.wrong.append(data[:200].decode(errors="replace"))
            self.watchers.open.add(self)
        whole, _, self._rest = (self._rest + data).rpartition(b"\n")
        for position, version in _POSITION.findall(whole):
            if int(version) != self.version + 1:
                self.watchers.wrong.append(f"{self.session}: version {int(version)} after {self.version}")
            self.version, self.position = int(version), position.decode()

    def connection_lost(self, error: Exception | None) -> None:
        self.watchers.open.discard(self)
        if not self.ready.done():
            self.ready.set_result(None)
        self.watchers.start(self)


class Watchers:
    """All of this process."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.all: list[Watcher] = []
        self.open: set[Watcher] = set()
        self.wrong: list[str] = []
        self.late = 0
        """How often a stream came too late with its request, and came back."""
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, session: str) -> None:
        """One more, of this session."""
        self.all.append(Watcher(self, session))
        self.start(self.all[-1])

    def start(self, watcher: Watcher) -> None:
        """Open its stream, soon."""
        task = asyncio.get_running_loop().create_task(self._start(watcher))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, watcher: Watcher) -> None:
        async with self._turns:
            try:
                await asyncio.get_running_loop().create_connection(lambda: watcher, HOST, self.port)
            except OSError as error:
                self.wrong.append(repr(error))
                return
            await watcher.ready

    def said(self) -> dict[str, Any]:
        """How it stands."""
        least = min(each.version for each in self.all)
        return {"open": len(self.open), "least": least, "late": self.late, "wrong": self.wrong[:5]}


async def main(port: int, sessions: int, count: int) -> None:
    """Open them, and answer for as long as somebody asks."""
    watchers = Watchers(port)
    for number in range(count):
        watchers.add(f"s{number % sessions}")
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(watchers.said()), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
