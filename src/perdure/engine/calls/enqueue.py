"""`enqueue`, `queued`, `flush`: writes that are acknowledged from the local disk and shipped afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.engine.context import Context
from perdure.engine.core import Core
from perdure.engine.options import Options, check_events, check_options
from perdure.engine.views import Receipt, Spooled
from perdure.errors import Invalid
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.redaction import shown_value

if TYPE_CHECKING:
    from perdure.engine.spool.spool import Spool

TIMEOUT_MAX = 31_536_000.0
"""Longest time to wait, in seconds: a year."""


class Queued:
    """A write that lies in the spool. It survives the process and the machine's power, and is shipped exactly once.

    Made by `store.enqueue`, or from another process by `store.queued`. `key` is its idempotency key, made where the caller gave none.
    `duplicate`: the spool knew of an earlier `enqueue` with this key. Where only the store knows, the receipt says so.
    """

    def __init__(self, core: Core, target: SessionKey, key: str, n: int | None = None, *, duplicate: bool = False) -> None:
        self._core, self._target, self._n = core, target, n
        self.key, self.duplicate = key, duplicate

    @property
    def session(self) -> str:
        """The session that it is a write to."""
        return self._target.id

    def __repr__(self) -> str:
        return f"<Queued [{self._target.id}] key={self.key}>"

    async def receipt(self, *, timeout: float | None = None) -> Receipt:
        """The receipt of its commit, once the store has it; waits so many seconds, or as long as it takes.

        Raises what the store refused it with, such as `Conflict` or `Deleted`; `Busy` while it is parked after a failed write of its
        session; `NotFound` if it was dropped, or if neither the spool nor the store knows it; `Unavailable` after `timeout`, and then it is
        shipped all the same.
        """
        spool = spool_of(self._core)
        check_timeout(timeout)
        return await spool.receipt(self._target, self.key, self._n, timeout)


async def enqueue(
    context: Context, session: str, events: tuple[Event, ...], expect: int | None, key: str | None, actor: str | None
) -> Queued:
    """See `Store.enqueue`."""
    core, target = context.opened(), context.key(session)
    spool = spool_of(core)
    if expect is not None:
        raise Invalid(
            "enqueue takes no `expect`: nobody knows the version that the write will follow. Use append, or an operation `op.test`."
        )
    check_options(Options(key=key, actor=actor))
    with core.telemetry.span("enqueue", *target):
        n, key, duplicate = await spool.enqueue(target, check_events(events), key, actor)
    return Queued(core, target, key, n, duplicate=duplicate)


def queued(context: Context, session: str, key: str) -> Queued:
    """See `Store.queued`."""
    core, target = context.opened(), context.key(session)
    spool_of(core)
    if key is None:
        raise Invalid("queued needs the idempotency key of the write.")
    check_options(Options(key=key))
    return Queued(core, target, key)


async def flush(context: Context, timeout: float) -> Spooled:
    """See `Store.flush`."""
    spool = spool_of(context.opened())
    check_timeout(timeout)
    return await spool.flush(timeout)


def spool_of(core: Core) -> Spool:
    """The spool of a store. Raises `Invalid` where it was opened without one, and `Closed`."""
    core.check_open()
    if core.spool is None:
        raise Invalid('This store has no spool: open it with one, perdure.open(url, spool="sqlite:///spool.db").')
    return core.spool


def check_timeout(timeout: float | None) -> None:
    """Raise `Invalid` unless it is a time that can be waited for."""
    if timeout is None or (type(timeout) in (int, float) and 0 <= timeout <= TIMEOUT_MAX):
        return
    raise Invalid(f"timeout must be 0 to {TIMEOUT_MAX:,.0f} seconds, not {shown_value(timeout)}.")
