"""Following a session: read the commits that are there, then wait for a notification. Nothing is skipped: only the chain says what is next.

Notifications come from this process's own writes, from an engine that sends them (`spi.Notifying`), and from polls. A poll reads the
heads of all watched sessions in one request: every `POLL_SELDOM` seconds where the engine notifies, every `watch_every` where it does not.
The watcher whose wait ends first polls for all. So watchers need no task and no thread of their own, and work in blocking code too.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager

from perdure.backends.spi import Attentive, Backend, Head, Hear, Notifying
from perdure.clock import Clock
from perdure.concurrency.critical_section import CriticalSection
from perdure.concurrency.replies import Reply
from perdure.config import Settings
from perdure.engine.live.signal import Signal
from perdure.engine.read.bodies import Need, everything
from perdure.engine.read.reader import Reader
from perdure.errors import Closed, Corrupt, Deleted, NotFound, Rewound, Truncated, Unavailable
from perdure.model.commit import Commit, Kind, Status
from perdure.model.ids import SessionKey

POLL_SELDOM = 5.0
"""Seconds between two polls where the engine notifies: a notification may be lost."""
HEADS_MAX = 256
"""Most heads in one request."""
RETRY_AFTER = 0.25
"""Seconds until an engine that was unavailable is asked again."""


class Watch(Signal):
    """One watcher of a session: `version` is the newest that it has seen, `hash` that commit's, if it is known."""

    def __init__(self, session: SessionKey, version: int) -> None:
        super().__init__()
        self.session, self.version = session, version
        self.hash: bytes | None = None

    def see(self, commit: Commit) -> None:
        """The next commit. Raises `Rewound` if it follows another one than the watch has seen."""
        if self.hash is not None and commit.prev != self.hash:
            raise Rewound(f"Version {self.version} of session {self.session.id!r} is not the one that was seen.", session=self.session.id)
        self.version, self.hash = commit.version, commit.hash


class Watchers:
    """All watchers of one connection. Safe from any thread and loop."""

    def __init__(self, backend: Backend, reader: Reader, clock: Clock, settings: Settings) -> None:
        self._backend, self._reader, self._clock, self._settings = backend, reader, clock, settings
        self._watches: dict[SessionKey, set[Watch]] = {}
        self._followers: dict[str, set[Signal]] = {}
        """Those who follow the changes of a tenant."""
        self._taps: tuple[Hear, ...] = ()
        self._section = CriticalSection()
        self._polling: float | None = None
        """When the running poll began. It may never end: its loop may have stopped."""
        self._polls = 0
        self._listening = False
        self._closed = False

    @contextmanager
    def _following(self, watch: Watch) -> Iterator[None]:
        """Inside, the watch is notified."""
        self.add(watch)
        try:
            yield
        finally:
            self.remove(watch)

    def add(self, watch: Watch) -> None:
        """From now on the watch is notified."""
        with self._section:
            watches = self._watches.setdefault(watch.session, set())
            watches.add(watch)
            if len(watches) == 1:
                self._attend(watch.session, watched=True)

    def remove(self, watch: Watch) -> None:
        """The watch is notified no more. Doing it twice is doing it once."""
        with self._section:
            watches = self._watches.get(watch.session, set())
            watches.discard(watch)
            if not watches and self._watches.pop(watch.session, None) is not None:
                self._attend(watch.session, watched=False)

    def _attend(self, what: SessionKey | str, *, watched: bool) -> None:
        """Have an engine whose notifications cost something know what is watched. Called in the order of what is watched."""
        if isinstance(self._backend, Attentive):
            self._backend.attend(what, watched=watched)

    @contextmanager
    def waiting(self, session: SessionKey) -> Iterator[Watch]:
        """A watch for `moved`, armed."""
        watch = Watch(session, 0)
        watch.arm()
        with self._following(watch):
            yield watch

    async def moved(self, watch: Watch, head: Head | None, seconds: float) -> None:
        """Return soon after the session is at another head than this one, after `seconds` at the latest, and armed again. It may return for
        nothing. Raises what the engine raises, and `Closed`."""
        watch.version, watch.hash = (0, None) if head is None else (head.version, head.hash)
        await self._wait(watch, self._clock.monotonic() + seconds)
        watch.arm()

    @contextmanager
    def following_tenant(self, tenant: str) -> Iterator[Signal]:
        """Inside, the signal is notified of every commit of the tenant that somebody hears of."""
        signal = Signal()
        with self._section:
            signals = self._followers.setdefault(tenant, set())
            signals.add(signal)
            if len(signals) == 1:
                self._attend(tenant, watched=True)
        try:
            yield signal
        finally:
            with self._section:
                signals = self._followers[tenant]
                signals.discard(signal)
                if not signals:
                    del self._followers[tenant]
                    self._attend(tenant, watched=False)

    def tap(self, hear: Hear) -> None:
        """Have `hear` called with everything that is notified from now on. See `spi.Hear`; `listen` has the engine notify."""
        with self._section:
            self._taps = (*self._taps, hear)

    def notify(self, session: SessionKey | None, version: int) -> None:
        """A record of this version is there; of `None`, anything may have happened anywhere."""
        for hear in self._taps:
            hear(session, version)
        if self._followers:
            with self._section:
                tenants = list(self._followers) if session is None else [session.tenant]
                signals = [signal for tenant in tenants for signal in self._followers.get(tenant, ())]
            for signal in signals:
                signal.notify()
        if not self._watches:
            return
        for watch in self._of(self._watched() if session is None else [session]):
            if session is None or watch.version < version:
                watch.notify()

    def _watched(self) -> list[SessionKey]:
        with self._section:
            return list(self._watches)

    def _of(self, sessions: Sequence[SessionKey]) -> list[Watch]:
        with self._section:
            return [watch for session in sessions for watch in self._watches.get(session, ())]

    async def follow(
        self, session: SessionKey, after: int, *, include_deleted: bool = False, need: Need = everything
    ) -> AsyncGenerator[Commit, None]:
        """The session's commits after version `after`, and those to come, each checked against the one before it.

        They are those of the life that it has at the first read, up to the tombstone; with `include_deleted` of every life. One whose
        body lies elsewhere and is not needed comes without events.

        Goes on for `watch_outage` while the engine is `Unavailable`. Raises `NotFound`, `Deleted`, `Truncated`, `Rewound`, `Closed`.
        """
        watch = Watch(session, after)
        away: float | None = None
        begun = False
        with self._following(watch):
            while True:
                watch.arm()
                try:
                    if not begun:
                        await self.listen()
                        head = await self._check(watch, alive=not include_deleted)
                        if not include_deleted:
                            watch.version = max(watch.version, await self._reader.incarnation_start(session, head))
                        begun = True
                    before = watch.version
                    async with aclosing(self._reader.commits(session, after=before, need=need)) as commits:
                        async for commit in commits:
                            watch.see(commit)
                            self._reader.saw(session, commit.version)
                            yield commit
                            if commit.kind is Kind.tombstone and not include_deleted:
                                return
                    away = None
                    if watch.version == before and (await self._check(watch)).version > before:
                        continue
                    await self._wait(watch)
                except Unavailable:
                    now = self._clock.monotonic()
                    away = now if away is None else away
                    if now - away >= self._settings.watch_outage:
                        raise
                    await Reply[None]().within(RETRY_AFTER)
                except (Corrupt, Truncated):
                    await self._check(watch, alive=not include_deleted)  # What a purge left of the session cannot be read.
                    raise

    async def _check(self, watch: Watch, *, alive: bool = False) -> Head:
        """Raise unless the session is there, holds what the watch has seen of it, and is `alive` if it has to be; its head.

        A tombstone that came after the watch had read is a commit that is still to be read.
        """
        (head,) = await self._backend.heads([watch.session])
        id = watch.session.id
        if head is None:
            raise NotFound(f"There is no session {id!r} in tenant {watch.session.tenant!r}.", session=id)
        if alive and head.status == Status.deleted and head.version >= watch.version:
            raise Deleted(f"Session {id!r} was deleted at version {head.version}.", session=id)
        if head.version < watch.version or (head.version == watch.version and watch.hash not in (None, head.hash)):
            raise Rewound(f"Session {id!r} is at version {head.version}, not at the version {watch.version} that was seen.", session=id)
        if head.version == watch.version:
            watch.hash = head.hash
        return head

    async def listen(self) -> None:
        """Have the engine notify, if it can; else, or while it cannot, polls do."""
        with self._section:
            start, self._listening = not self._listening and self._backend.capabilities.notification, True
        if start and isinstance(self._backend, Notifying):
            try:
                await self._backend.listen(self.notify)
            except BaseException:
                self._listening = False
                raise
            self.notify(None, 0)  # Other watchers have read before the engine listened, and may be waiting.

    async def _wait(self, watch: Watch, until: float = math.inf) -> None:
        """Wait until the session may have moved on from what the watch has seen, or the clock says `until`. Raises what the engine raises,
        and `Closed`."""
        polls = self._polls
        while not await watch.notified(max(0.0, min(self.patience(), until - self._clock.monotonic()))):
            now = self._clock.monotonic()
            if now >= until:
                break
            if self._polling is None or now - self._polling > POLL_SELDOM:
                self._polling = now
                try:
                    if polls == self._polls:  # Else another watcher has polled for it.
                        self._polls += 1
                        await self._poll()
                    polls = self._polls
                finally:
                    self._polling = None
        self.check_open()

    def check_open(self) -> None:
        """Raise `Closed` after `close`."""
        if self._closed:
            raise Closed

    def patience(self) -> float:
        """Seconds between two polls, as the engine notifies now or does not."""
        hears = isinstance(self._backend, Notifying) and self._listening and self._backend.hears
        return POLL_SELDOM if hears else self._settings.watch_every

    async def _poll(self) -> None:
        """Notify all watchers whose session is not at the version that they have seen."""
        sessions = self._watched()
        for start in range(0, len(sessions), HEADS_MAX):
            part = sessions[start : start + HEADS_MAX]
            for session, head in zip(part, await self._backend.heads(part), strict=True):
                for watch in self._of([session]):
                    if head is None or head.version != watch.version or (watch.hash is not None and head.hash != watch.hash):
                        watch.notify()

    def close(self) -> None:
        """Wake all watchers; they raise `Closed`."""
        self._closed = True
        self.notify(None, 0)
