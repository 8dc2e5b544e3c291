"""What holds a session for one worker: leases, and sessions whose alarm is due."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from perdure.engine.calls.adopt import adopt
from perdure.engine.calls.claim import claim, take_due
from perdure.engine.calls.lease import break_lease, lease, leases
from perdure.engine.leasing.lease import Lease, Leasing
from perdure.engine.store.bound import Bound
from perdure.engine.views import LeaseInfo


class Holding(Bound):
    """See `Store`."""

    def lease(
        self, session: str, *, owner: str, ttl: float = 30, wait: float = 60, exclusive: bool = False, max_hold: float | None = None
    ) -> Leasing:
        """`async with store.lease(id, owner="worker-7") as lease`: hold the session while the block runs; pass `lease=` to what is written.

        A write under a lease that was lost is `Fenced`, on every engine, whatever the clocks say. `owner`: who holds it, for people. `ttl`:
        seconds (3, or 10 on an engine that does not notify, to a day) for which a holder may be silent before one that waits takes over;
        a thread of the store answers for the block, even where it blocks. `wait`: seconds to wait for another holder, then `Held`; 0
        writes nothing where the session is held. `exclusive`: what others write without the lease (data, merges, tags) is `Fenced` too.
        `max_hold`: seconds after which the lease is released, whatever the block does. A session that does not exist is started, with the
        take as its first commit. While nobody competes, nothing more is written.

        Raises, on entry, `Held`, `Deleted`, `Invalid`, `Unsupported`, `Busy`, `Unavailable`, `Unknown`.
        """
        return lease(self._context, session, owner, ttl, wait, max_hold, exclusive=exclusive)

    async def adopt(self, session: str, grant: str) -> Lease:
        """A lease that was taken elsewhere, by its `grant`: from now on writes here can be made under it, with `lease=`. Two round trips.

        For processes that serve a holder by turns, such as the nodes of the session service. Challenges of it are answered here for half a
        ttl, and again so long after each `adopt`: who calls this says that the holder is alive. It is released by `lease.release()`, here
        or elsewhere. Raises `Fenced` where it no longer holds the session, `Invalid`.
        """
        return await adopt(self._context, session, grant)

    def claim(
        self,
        *,
        owner: str,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        ttl: float = 30,
        limit: int | None = None,
        exclusive: bool = False,
    ) -> AsyncIterator[Lease]:
        """`async for lease in store.claim(owner="worker-7")`: sessions whose alarm is due, set with `wake="claim"`, each to one worker.

        Ends when nothing is due any more, or after `limit` sessions: call it again after a pause. Each session is held while the loop's
        body runs: pass `lease=` to what is written. The next turn of the loop releases it. With that its alarm is used up, and the next one
        of `wake_every` stands; an alarm that was set meanwhile stays. Where the body raises, or breaks before `lease.release()`, or the
        worker dies, the session stays due: so work is done at least once. A session that somebody else holds is passed over, and its holder
        is asked whether it is alive. Sessions by id prefix and tags (all must match); what was due first comes first, by this machine's
        clock.

        Raises `Invalid`, `Unsupported` on a store of schema 1, `Busy`, `Unavailable`, `Unknown`.
        """
        return claim(self._context, prefix, tags, owner, ttl, limit, exclusive=exclusive)

    def take_due(
        self,
        *,
        owner: str,
        prefix: str = "",
        tags: Mapping[str, str] | None = None,
        ttl: float = 30,
        limit: int | None = None,
        exclusive: bool = False,
    ) -> AsyncIterator[Lease]:
        """As `claim`, but each lease stays taken until the caller releases it, here or, with `adopt`, in another process: its session
        is due again where that does not happen. For processes that hand work to others. Raises as `claim`."""
        return take_due(self._context, prefix, tags, owner, ttl, limit, exclusive=exclusive)

    def leases(self, *, prefix: str = "") -> AsyncIterator[LeaseInfo]:
        """Who holds which of this tenant's sessions, ordered by session, from the index rows: all of them with this prefix are read."""
        return leases(self._context, prefix)

    async def break_lease(self, session: str, *, actor: str | None = None) -> LeaseInfo | None:
        """Take a lease from its holder by force: what it writes from now on is `Fenced`, and the session is free. Whose lease it was, or
        `None` where nobody held it. A commit says that `actor` did it. Raises `NotFound`, `Deleted`."""
        return await break_lease(self._context, session, actor)
