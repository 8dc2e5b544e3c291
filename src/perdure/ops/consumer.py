"""`consume`: every change of a tenant is handed to a function, at least once and in the order of its session, across restarts.

A consumer has a name. Its checkpoint is written after changes were handled, and never for changes that were only passed over. One run of a
name works at a time: it holds the lease of the checkpoint, and the others wait for it. A run that lost the lease waits too.

What a handler fails on is tried again, after pauses that grow. What fails `attempts` times is parked, and with it every later commit of its
session, so that the order holds; other sessions go on. `retry` hands over what is parked, `drop` gives it up.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import platform
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, suppress

import msgspec

from perdure.backends.spi import indexed
from perdure.clock import Clock
from perdure.concurrency.replies import Reply, is_blocking
from perdure.engine.calls.changes import make_follower, make_selection
from perdure.engine.calls.lease import WAIT_MAX, make_claim, seconds
from perdure.engine.live.changes import Follower, Selection
from perdure.engine.live.consumers import Parked, Registration
from perdure.engine.store import Store
from perdure.engine.views import Change
from perdure.errors import Closed, Deleted, Error, Fenced, Held, Invalid, NotFound, TooLarge, Truncated, Unavailable
from perdure.model.ids import check_name
from perdure.ops.checkpoint import Checkpoint, forgotten
from perdure.ops.either import Either
from perdure.ops.held import Holding, hold
from perdure.redaction import shown_value

Handler = Callable[[list[Change]], Awaitable[None] | None]
"""What a consumer calls with changes, oldest first: a coroutine function or a plain one. It has handled all of them when it returns."""

BATCH, BATCH_MAX = 100, 1_000
"""Changes in one call of a handler: at most by default, and at most at all."""
ATTEMPTS = 8
"""How often a commit is tried before it is parked: with the pauses below for about a minute."""
BACKOFF, BACKOFF_MAX = 0.5, 60.0
"""Seconds before a handler is called again after it failed, at first; each failure doubles them, up to the second. Of each pause a random
half is left out."""
TTL = 30.0
"""Seconds that a run may stand still, or be dead, before another one of its name takes over: see `Store.lease`."""
WAIT = 60.0
"""Seconds that a run with `follow=False` waits for another one of its name."""
CUT_AFTER, CUT_SECONDS = 50, 600.0
"""Checkpoints that were written, or seconds, after which a run looks whether the checkpoint's old commits are to go."""
PARKED_MAX = 256
"""Sessions of which something may be parked. A consumer that would park more stops: then its handler fails on everything."""
ERROR_CHARACTERS_MAX = 200
"""So much of a handler's error is kept with what is parked."""
LOOK_EVERY = 5.0
"""Seconds between two looks for what `retry` and `drop` have asked for, while something is parked."""

log = logging.getLogger("perdure.ops")


class Consumed(msgspec.Struct, frozen=True):
    """What a run of a consumer did."""

    handled: int
    """Changes that the handler has handled in this run."""
    parked: int
    """Sessions of which something is parked now."""


@Either
async def consume(
    store: Store,
    name: str,
    handler: Handler,
    *,
    batch: int = BATCH,
    types: Collection[str] | None = None,
    prefix: str = "",
    tags: Mapping[str, str] | None = None,
    control: bool = False,
    after: str | None = None,
    code: str | None = None,
    attempts: int = ATTEMPTS,
    follow: bool = True,
    ttl: float = TTL,
    wait: float | None = None,
) -> Consumed:
    """Hand every change of this tenant to the handler, for as long as it runs; with `follow=False` until there are no more.

    It goes on where the consumer of this name was, or begins at the start, or after the cursor `after`, if the name is new. `batch`: most
    changes in one call. `types`, `prefix`, `tags`, `control` as in `Store.changes`; they belong to the name. So does `code`, a name for
    what the handler does; without it, the name of the function.

    At least once: after a crash the handler gets changes again that it had handled since the last checkpoint. Write with
    `key=change.key(name)` to have the effect once. The commits of one session come in the order of their versions.

    A handler that raises is called again, with the same changes one by one. After `attempts` the commit is parked, and all later ones
    of its session after it: see `consumers`, `retry` and `drop`. An error of Perdure that is `retryable` parks nothing: the call is
    repeated until it succeeds. A handler that writes to the same tenant gets these commits too: choose by `prefix` or `types`.

    One run of a name works at a time, under a lease; another one waits until that one ends, or has not answered for its `ttl` (seconds, as
    in `Store.lease`). `wait`: seconds, at most, to wait for it, then `Held`; `None` is 60 with `follow=False`, else as long as it takes.

    Raises `Fenced` when the consumer was forgotten while it was at work, `Held`, `Invalid` for a name that was registered for something
    else, `TooLarge` when more than 256 sessions would be parked, and what `Store.changes` raises. In a store of schema 1, which has no
    leases, two runs may work at once: the one whose checkpoint was overtaken raises `Fenced`. Through a service nodes write the checkpoint
    and keep its lease: the credentials need the scopes `read` and `append`.
    """
    _check(batch, attempts, handler)
    selection = make_selection(types=types, prefix=prefix, tags=tags, control=control)
    if after is not None:
        make_follower(store._context, after, selection)
    if wait is not None:
        wait = seconds("wait", wait, 0.0, WAIT_MAX)
    elif not follow:
        wait = WAIT
    core = store._context.opened()
    if with_lease := indexed(core.backend) is not None:
        make_claim(core, "consumer", ttl, exclusive=False)
    registration = Registration.of(_name_of(handler) if code is None else check_name("code", code), selection)
    mark = await Checkpoint.register(store, name, registration, after)

    async def work(lease: Holding | None, handled: int) -> Consumed:
        checkpoint = await Checkpoint.open(store, name, registration, mark, lease)
        await checkpoint.cut()
        run = _Run(store, name, handler, checkpoint, selection, batch, attempts, lease, handled)
        try:
            return await run.work(make_follower(store._context, checkpoint.cursor, selection, batch), follow=follow)
        except Fenced as error:
            raise _LeaseLostError(run.handled) from error

    if not with_lease:
        try:
            return await work(None, 0)
        except _LeaseLostError as error:
            raise error.__cause__ or error from None
    return await _under_leases(store, name, ttl, wait, work)


class _LeaseLostError(Exception):
    """Another run has taken over, or the engine could not be reached for a ttl: what was handled before."""

    def __init__(self, handled: int) -> None:
        super().__init__(handled)
        self.handled = handled


async def _under_leases(
    store: Store, name: str, ttl: float, wait: float | None, work: Callable[[Holding | None, int], Awaitable[Consumed]]
) -> Consumed:
    """Do the work under the lease of the consumer's checkpoint; where that is lost, wait for it again."""
    owner, handled = f"{name} in process {os.getpid()} on {_shown_host()}", 0
    while True:
        try:
            async with hold(store, name, owner, ttl, WAIT_MAX if wait is None else wait) as lease:
                return await work(lease, handled)
        except (Deleted, NotFound):
            raise forgotten(name) from None
        except Held:
            if wait is not None:
                raise
        except _LeaseLostError as error:
            handled = error.handled
            log.warning("Consumer %r has lost its lease, and waits for it. %s", name, error.__cause__)


class _Run:
    """A consumer at work."""

    def __init__(
        self,
        store: Store,
        name: str,
        handler: Handler,
        checkpoint: Checkpoint,
        selection: Selection,
        batch: int,
        attempts: int,
        lease: Holding | None,
        handled: int,
    ) -> None:
        self._store, self._name, self._handler, self._checkpoint, self._selection = store, name, handler, checkpoint, selection
        self._batch, self._attempts, self._lease = batch, attempts, lease
        self._clock: Clock = store._core.clock
        self._looked = self._cut_at = self._clock.monotonic()
        self._saves = 0
        self.handled = handled
        """Changes that were handled since `consume` was called."""

    async def work(self, follower: Follower, *, follow: bool) -> Consumed:
        """Handle what the follower gives. Raises `Fenced` when the lease is lost."""
        async with aclosing(follower.pages(follow=follow)) as pages:
            async for page in pages:
                self._store._core.check_process()
                await self._attend_to_parked()
                for start in range(0, len(page), self._batch):
                    await self._handle(page[start : start + self._batch])
                if not page:
                    self._require_lease()
                    self._measure(0, 0.0)
                await self._cut()
        return Consumed(self.handled, len(self._checkpoint.parked))

    def _require_lease(self) -> None:
        """Raise `Fenced` if the lease is known to be lost."""
        if self._lease is not None and self._lease.lost.is_set():
            raise self._lease.ended_error()

    async def _cut(self) -> None:
        """See now and then that the checkpoint does not grow: also by the answers to those who wait for its lease."""
        now = self._clock.monotonic()
        if self._saves >= CUT_AFTER or now - self._cut_at >= CUT_SECONDS:
            self._saves, self._cut_at = 0, now
            await self._checkpoint.cut()

    async def _handle(self, changes: Sequence[Change]) -> None:
        """Hand over a batch, and write the checkpoint unless all of it was parked with what came before."""
        self._require_lease()
        before = len(self._checkpoint.parked)
        handled = await self._deliver([change for change in changes if not self._is_parked(change)])
        if handled or len(self._checkpoint.parked) > before:
            await self._save(changes[-1].cursor, handled[-1] if handled else None, len(handled))

    async def _save(self, cursor: str | None, newest: Change | None, handled: int) -> None:
        await self._checkpoint.save(cursor, newest, handled)
        self._saves += 1
        if newest is not None:
            self.handled += handled
            self._measure(handled, max(0.0, (self._clock.now() - newest.commit.at) / 1e9))

    def _measure(self, handled: int, lag: float) -> None:
        self._store._core.telemetry.consumed(self._store.tenant, self._name, handled, lag, len(self._checkpoint.parked))

    async def _deliver(self, changes: list[Change]) -> list[Change]:
        """Have the handler handle these, together or one by one; those that it has handled. The others are parked."""
        if not changes:
            return changes
        if len(changes) > 1:
            if await self._call(changes) is None:
                return changes
            await self._pause(0)
        return [change for change in changes if not self._is_parked(change) and await self._try(change)]

    async def _try(self, change: Change) -> bool:
        """Whether the handler has handled it, alone, after so many attempts at most; else it is parked."""
        for attempt in range(self._attempts):
            error = await self._call([change])
            if error is None:
                return True
            if attempt + 1 < self._attempts:
                await self._pause(attempt)
            else:
                self._park(change, error)
        return False

    async def _call(self, changes: list[Change]) -> Exception | None:
        """Call the handler, again and again where it may succeed by itself; what it has raised otherwise."""
        failures = 0
        while True:
            try:
                answer = self._handler(list(changes))
                if answer is not None:
                    await answer
            except Closed:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is its failure, and shown with what is parked
                if not isinstance(error, Error) or not error.retryable:
                    return error
            else:
                return None
            await self._pause(failures)
            failures += 1

    async def _pause(self, failures: int) -> None:
        """Wait after a failure that so many came before."""
        seconds = min(BACKOFF * 2 ** min(failures, 16), BACKOFF_MAX)
        await Reply[None]().within(seconds * (0.5 + self._clock.bits(16) / (1 << 17)))
        self._store._core.check_open()

    def _is_parked(self, change: Change) -> bool:
        """Whether something of its session is parked: then it is parked after that."""
        parked = self._checkpoint.parked.get(change.session)
        if parked is not None:
            parked.last = max(parked.last, change.commit.version)
        return parked is not None

    def _park(self, change: Change, error: Exception) -> None:
        parked, version = self._checkpoint.parked, change.commit.version
        known = parked.get(change.session)
        if known is None and len(parked) >= PARKED_MAX:
            raise TooLarge(
                f"Consumer {self._name!r} has something parked of {PARKED_MAX} sessions, and fails on session {change.session!r} too.",
                advice=f"Correct the handler, start it again, then run `perdure consumers --retry {self._name}`.",
            ) from error
        text = f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS_MAX].encode(errors="replace").decode()
        last = version if known is None else max(known.last, version)
        parked[change.session] = Parked(version, last, text, self._clock.now())
        kind = type(error).__name__
        log.warning(
            "Consumer %r has parked session %r from version %d on: its handler raised %s.", self._name, change.session, version, kind
        )

    async def _attend_to_parked(self) -> None:
        """Do what `retry` and `drop` have asked for."""
        parked = self._checkpoint.parked
        if parked and self._clock.monotonic() - self._looked >= LOOK_EVERY:
            self._looked = self._clock.monotonic()
            with suppress(Unavailable):
                await self._checkpoint.adopt()
        for session in [session for session, one in parked.items() if one.retry]:
            await self._retry(session)

    async def _retry(self, session: str) -> None:
        """Hand over what is parked of a session; what fails again stays parked, and what was purged meanwhile is gone."""
        parked = self._checkpoint.parked[session]
        first, last = parked.first, parked.last
        handled, newest = 0, None
        while first <= last:
            commits = self._store.history(session, after=first - 1, before=last + 1, include_deleted=True, control=True)
            try:
                async with aclosing(commits):  # type: ignore[type-var]
                    async for commit in commits:
                        first = commit.version + 1
                        chosen = self._selection.of(commit)
                        if chosen is None:
                            continue
                        change = Change(session, chosen, self._checkpoint.cursor or "")
                        if not await self._try(change):
                            return await self._save(self._checkpoint.cursor, newest, handled)
                        handled, newest = handled + 1, change
                break
            except Truncated as error:
                first = error.first
            except NotFound:
                break
        del self._checkpoint.parked[session]
        return await self._save(self._checkpoint.cursor, newest, handled)


def _name_of(handler: Handler) -> str:
    """What a function is called, wherever it was defined. Raises `Invalid` for one without a name of its own."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    name = str(getattr(handler, "__qualname__", type(handler).__qualname__)).rpartition("<locals>.")[2]
    if name == "<lambda>":
        raise Invalid("This handler has no name of its own: pass code=, a name for what it does.")
    return name


def _shown_host() -> str:
    """The name of this machine, as far as people need it."""
    return "".join(char for char in platform.node() if char.isprintable())[:20] or "an unnamed host"


def _check(batch: object, attempts: object, handler: object) -> None:
    """Raise `Invalid` for what cannot be."""
    if type(batch) is not int or not 1 <= batch <= BATCH_MAX:
        raise Invalid(f"batch must be a whole number from 1 to {BATCH_MAX:,}, not {shown_value(batch)}.")
    if type(attempts) is not int or attempts < 1:
        raise Invalid(f"attempts must be a whole number from 1, not {shown_value(attempts)}.")
    if not callable(handler):
        raise Invalid(f"A handler is a function that takes a list of changes, not {type(handler).__name__}.")
    if is_blocking() and inspect.iscoroutinefunction(handler):
        raise Invalid("With perdure.sync.Store the handler is a plain function; with perdure.Store it may be a coroutine function.")
