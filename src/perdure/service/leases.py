"""Leases that clients of a node hold."""

from __future__ import annotations

from perdure.engine.leasing.lease import Lease
from perdure.errors import Unsupported
from perdure.service.call import Call


async def lease_of(call: Call, session: str) -> Lease | None:
    """The lease that a write is made under, by `Perdure-Lease`; `None`: none is named."""
    return await confirm(call, session)


async def confirm(call: Call, session: str) -> Lease | None:  # noqa: ARG001
    """Note that the holder of the lease that the request bears is alive."""
    if "perdure-lease" in call.headers:
        raise Unsupported("Leases are not served yet.", advice="")
    return None
