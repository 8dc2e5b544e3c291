"""What writes to a session: appends, edits, the spool, forks and merges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.backends.spi import Durability
from perdure.engine.branch.fork import fork
from perdure.engine.branch.merge import merge
from perdure.engine.calls.append import append, find
from perdure.engine.calls.edit import Edit, edit, update
from perdure.engine.calls.enqueue import Queued, enqueue, flush, queued
from perdure.engine.leasing.lease import Lease
from perdure.engine.options import Options
from perdure.engine.store.bound import Bound
from perdure.engine.views import Receipt, Spooled
from perdure.engine.write.drafts import Draft
from perdure.model.events import Event
from perdure.model.policy import OnConflict


class Writing(Bound):
    """See `Store`."""

    async def append(
        self,
        session: str,
        *events: Event,
        expect: int | str | None = None,
        key: str | None = None,
        actor: str | None = None,
        on_conflict: OnConflict = "merge",
        durability: Durability | str | None = None,
        recreate: bool = False,
        create: bool = True,
        lease: Lease | None = None,
    ) -> Receipt:
        """Append one commit with these events; starts the session if there is none. One round trip.

        `expect`: `None` whatever the head is; `0` the session must not exist (`AlreadyExists`); `n` the version on which you
        decided: what others committed since is merged or refused, as `on_conflict` says. The `token` of a `View` stands for its version,
        and for its very commit: `Rewound` where that is not in the chain. `key`: an idempotency key; a second call with it gets the first
        one's receipt. `actor`: who did it, for the audit. `durability`: the least level the receipt may name. `recreate`: go on from the
        tombstone of a deleted session. `create=False` makes a missing session `NotFound`. `lease`: only while this lease holds the session,
        else `Fenced`; no further round trip.

        Atomic: all events or none. Raises `Conflict`, `Busy`, `Invalid`, `KeyReused`, `AlreadyExists`, `Deleted`, `Fenced`, `TooLarge`,
        `Rewound`, `Unknown`, `Unavailable`.
        """
        return await append(
            self._context, session, events, expect, key, actor, on_conflict, durability, recreate=recreate, create=create, lease=lease
        )

    async def enqueue(
        self, session: str, *events: Event, expect: int | None = None, key: str | None = None, actor: str | None = None
    ) -> Queued:
        """Append events later: they are stored in the spool now, synced to the local disk, and shipped in order. No round trip.

        For stores opened with `spool=`. What is queued for a session is shipped in the order in which it was enqueued, exactly once, also
        after restarts and by another process; a failed write parks the later ones of its session. It is meant for the life of the session
        that this store knows of, and fails in another. Operations are applied to whatever state there is then, and reads do not see them
        before; `expect` is refused, for nobody knows the version. `key`: an idempotency key, made where it is left out.

        Atomic: all events or none. Raises `QuotaExceeded` when the spool is full (`spool_bytes`), `Invalid`, `KeyReused`, `TooLarge`,
        `Unavailable`, `Unknown`.
        """
        return await enqueue(self._context, session, events, expect, key, actor)

    def queued(self, session: str, key: str) -> Queued:
        """A write that was enqueued with this key, here or by another process with the same spool: ask it for its `receipt`."""
        return queued(self._context, session, key)

    async def flush(self, *, timeout: float = 60.0) -> Spooled:
        """Wait until everything that is queued now was shipped, so many seconds at most; what the spool holds then."""
        return await flush(self._context, timeout)

    async def find(self, session: str, key: str, *, include_deleted: bool = False) -> Receipt | None:
        """The receipt of the commit that this idempotency key was applied by (`duplicate` is true), or `None`. One or two round trips.

        Keys end with the life of the session that used them; `include_deleted` finds those too.
        """
        return await find(self._context, session, key, include_deleted=include_deleted)

    def edit(
        self,
        session: str,
        *,
        expect: int | str | None = None,
        key: str | None = None,
        actor: str | None = None,
        on_conflict: OnConflict = "merge",
        durability: Durability | str | None = None,
        recreate: bool = False,
        create: bool = True,
        payload: Any = None,
        lease: Lease | None = None,
    ) -> Edit:
        """`async with store.edit(id) as draft`: change `draft.state` as dicts and lists; the block's end is one commit.

        By default writes are merged, not reads: your operations are carried over what others committed meanwhile, or
        `Conflict`. `draft.require(path)` or `on_conflict="raise"` makes it strict. An exception in the block writes nothing; an
        edit that changes nothing writes nothing. Options as in `append`. `payload`: a JSON value that stands for what is asked; a call that
        repeats `key` with another one is `KeyReused`. It is not stored.
        """
        options = Options(key=key, actor=actor, on_conflict=on_conflict, recreate=recreate, create=create)
        return edit(self._context, session, options, expect, payload, durability, lease)

    async def update(
        self,
        session: str,
        function: Callable[[Draft], Any],
        *,
        expect: int | str | None = None,
        key: str | None = None,
        actor: str | None = None,
        durability: Durability | str | None = None,
        recreate: bool = False,
        create: bool = True,
        attempts: int = 16,
        payload: Any = None,
        lease: Lease | None = None,
    ) -> tuple[Receipt | None, Any]:
        """Run `function(draft)` and commit on the very state it saw, again on the new state while others win: serializable.

        Returns the receipt (`None` when it changed nothing) and what the function returned (`None` when `key` was applied
        before: the function is not run). The function may be a coroutine function and may run several times: keep side effects
        out of it. From the second time on other writes of this process to the session wait for it, for a second. `payload` as in `edit`.
        Raises `Busy` after `attempts` lost races, and as `append`.
        """
        options = Options(key=key, actor=actor, on_conflict="raise", recreate=recreate, create=create)
        return await update(self._context, session, function, options, expect, payload, durability, attempts, lease)

    async def fork(
        self, session: str, *, at: int | None = None, id: str | None = None, key: str | None = None, actor: str | None = None
    ) -> str:
        """A new session that goes on from this one at a version (default: the head); its id. The cost does not grow with history.

        `key`: an idempotency key of this session; a second call with it gets the id of the first one's fork, and finishes it where that
        was cut off. Raises `NotFound`, `Deleted`, `KeyReused`, `AlreadyExists` when `id` is taken.
        """
        return await fork(self._context, session, at, id, key, actor)

    async def merge(
        self,
        session: str,
        *,
        into: str,
        on_conflict: OnConflict = "raise",
        key: str | None = None,
        actor: str | None = None,
        durability: Durability | str | None = None,
        lease: Lease | None = None,
    ) -> Receipt | None:
        """Carry what a fork did since it was made (or last merged) into its parent, as one commit; `None` if there is nothing.

        What both changed in ways that do not combine raises `Conflict` (with "raise" and with "merge"), or is decided by a
        callable. Histories stay apart: the merge commit names the fork's version and hash. `lease` is one of `into`. Raises `Invalid` if it
        is no fork of `into`, and `Fenced`.
        """
        return await merge(self._context, session, into, on_conflict, key, actor, durability, lease)
