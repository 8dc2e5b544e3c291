"""Which appends go in one write: all that are ready when a lane is free, and those that are about to come.

While all lanes are busy others wait and go with the next write. After a write of many the next one waits a moment until nearly as many are
ready: those who were answered are about to append again. Each server has lanes of its own, so that one that hangs holds up no other one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any

from perdure.backends.remote.pending import Pending
from perdure.model.ids import SessionKey

CROWD, PATIENCE = 0.8, 0.5
"""A write waits until so many are ready, as a share of those in the last one; or for so long, as a share of its time."""


class GroupCommit:
    """Starts writes to one server. Lives on one event loop."""

    def __init__(self, write: Write, *, lanes: int, batch_max: int) -> None:
        """`write` sends a batch; at most `lanes` of them run at once, each with at most `batch_max` appends."""
        self._write, self._lanes, self._batch_max = write, lanes, batch_max
        self._ready: deque[Pending] = deque()
        self._writes: set[asyncio.Task[None]] = set()
        self._last_batch, self._last_latency = 0, 0.0
        """How many went in the last write, and its seconds."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """The writes under way."""
        return {*self._writes}

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or ready."""
        return not self._writes and not self._ready

    def add(self, pending: Pending) -> None:
        """Have it sent with the next write that `pump` starts."""
        self._ready.append(pending)

    def sent(self, count: int, latency: float) -> None:
        """A write of so many was answered after so many seconds."""
        self._last_batch, self._last_latency = count, latency

    def pump(self) -> None:
        """Start writes while there is a lane and something to send, each in the context of its first append."""
        while self._ready and len(self._writes) < self._lanes:
            if len(self._ready) < CROWD * self._last_batch:
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(PATIENCE * self._last_latency, self.flush)
                return
            self._stop_waiting()
            batch = [self._ready.popleft() for _ in range(min(len(self._ready), self._batch_max))]
            task = asyncio.get_running_loop().create_task(self._write(self, batch), context=batch[0].context.copy())
            self._writes.add(task)
            task.add_done_callback(self._written)

    def flush(self) -> None:
        """Send what is ready, and wait for no more."""
        self._stop_waiting()
        self._last_batch = 0
        self.pump()

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        self.pump()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


Write = Callable[[GroupCommit, Sequence[Pending]], Coroutine[Any, Any, None]]


class GroupCommits:
    """One for each server that appends go to. Lives on one event loop."""

    def __init__(self, write: Write, server_of: Callable[[SessionKey], Hashable], *, lanes: int, batch_max: int) -> None:
        """`server_of` says which server takes the next append of a session. The rest is as in `GroupCommit`, for each server."""
        self._write, self._server_of, self._lanes, self._batch_max = write, server_of, lanes, batch_max
        self._groups: dict[Hashable, GroupCommit] = {}

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """The writes under way."""
        return {task for group in self._groups.values() for task in group.tasks}

    def add(self, pending: Pending) -> None:
        """Have it sent with the next write to its server."""
        server = self._server_of(pending.append.session)
        group = self._groups.get(server)
        if group is None:  # Servers come and go: those that are not in use are not remembered.
            self._groups = {other: each for other, each in self._groups.items() if not each.is_idle}
            group = self._groups[server] = GroupCommit(self._write, lanes=self._lanes, batch_max=self._batch_max)
        group.add(pending)

    def pump(self) -> None:
        """See `GroupCommit.pump`."""
        for group in list(self._groups.values()):
            group.pump()

    def flush(self) -> None:
        """See `GroupCommit.flush`."""
        for group in list(self._groups.values()):
            group.flush()
