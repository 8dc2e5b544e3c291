"""Leases that clients of a node hold. The header `Perdure-Lease` names the grant; every request that bears it says that the holder lives.

Nothing is kept that another node needs: one that does not know a grant looks it up, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from perdure.engine.leasing.lease import Lease
from perdure.engine.store import Store
from perdure.errors import Fenced, Invalid
from perdure.service.call import Call, ClientGoneError
from perdure.service.conditions import parse_version
from perdure.wire import HEADER_LEASE

T = TypeVar("T")


async def lease_of(call: Call, session: str) -> Lease | None:
    """The lease that a write is made under; `None`: none is named. Raises `Fenced`, `Invalid`.

    A write that was done while the lease held may be sent again when it is lost: then it finds its key.
    """
    name = call.once("perdure-lease")
    if name is None:
        return None
    try:
        return await confirmed(call, session, name, call.store)
    except Fenced:
        if (key := call.key) is None or await call.store.find(session, key) is None:
            raise
        return call.store._context.opened().leases.lost(call.store._context.key(session))


def named(call: Call) -> str:
    """The grant that a request names. Raises `Invalid`."""
    name = call.once("perdure-lease")
    if name is None:
        raise Invalid(f"Name the lease with {HEADER_LEASE}.", advice="")
    return name


async def confirmed(call: Call, session: str, name: str, store: Store) -> Lease:
    """The lease of a grant, whose holder has just spoken. `store`: whose session it is. Raises `Fenced`, `Invalid`."""
    key = store.tenant, session, str(parse_version(name, HEADER_LEASE))
    known = call.node.leases.get(key)
    if known is None or known._over:
        known = await store.adopt(session, key[2])
        call.node.leases[key] = known
    else:
        known._leases.hear(known)
    return known


async def is_released(session: str, name: str, key: str, store: Store) -> bool:
    """Whether the lease of a grant was released by a request with this key. Raises `KeyReused`, `Invalid`."""
    grant = str(parse_version(name, HEADER_LEASE))
    return await store._context.opened().leases.released(store._context.key(session), grant, key) is None


def remember(call: Call, lease: Lease, store: Store) -> None:
    """A lease that was taken here for a client."""
    lease._leases.hear(lease)
    call.node.leases[store.tenant, lease.session, lease.grant] = lease


async def unless_gone(call: Call, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives; it is cancelled where the client goes away. The body has to be read before."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(call.gone())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
