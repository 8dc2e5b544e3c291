"""`adopt`: a lease that another process has taken is gone on with here."""

from __future__ import annotations

import re
from contextlib import aclosing

from perdure.engine.calls.claim import WOKEN, using_up_later
from perdure.engine.context import Context
from perdure.engine.leasing.lease import Lease
from perdure.engine.leasing.rules import Claim
from perdure.errors import Invalid, NotFound, Truncated
from perdure.model.commit import Commit
from perdure.model.epoch import grant_of, is_exclusive, is_held
from perdure.model.fence import Fence, lost
from perdure.model.ids import SessionKey

_NAME = re.compile(r"([1-9][0-9]{0,18})-([0-9a-f]{64})\Z")


async def adopt(context: Context, session: str, grant: str) -> Lease:
    """See `Store.adopt`."""
    core, target = context.opened(), context.key(session)
    found = _NAME.match(grant) if isinstance(grant, str) else None
    if found is None:
        raise Invalid(f"grant must be what `lease.grant` gave, a version and a hash, not {str(grant)[:80]!r}.")
    version, hash = int(found[1]), bytes.fromhex(found[2])
    with core.telemetry.span("adopt", *target):
        commit = await _commit(context, target, version)
        current = await core.reader.read_head(target)
        head = None if current is None else current.head
        token = 0 if commit is None or commit.hash != hash else grant_of(commit.epoch)
        if current is None or head is None or not token or not is_held(head.epoch) or grant_of(head.epoch) != token:
            raise lost(target, token, head)
        section = await core.reader.holder(target, current)
    if section is None or commit is None:
        raise lost(target, token, head)
    claim = Claim(section.id, section.owner, section.ttl, is_exclusive(head.epoch))
    lease = core.leases.hold(Fence(target, token), claim, None)
    lease._name = grant
    core.leases.hear(lease)
    if commit.events and commit.events[0].type == WOKEN and isinstance(commit.events[0].data, dict):
        lease._at_release = using_up_later(str(commit.events[0].data.get("due")), core.clock)
    return lease


async def _commit(context: Context, session: SessionKey, version: int) -> Commit | None:
    try:
        async with aclosing(context.core.reader.commits(session, after=version - 1, before=version + 1)) as commits:
            async for commit in commits:
                return commit
    except (NotFound, Truncated):
        pass
    return None
