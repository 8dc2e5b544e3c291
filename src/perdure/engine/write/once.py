"""Calls that write a control commit, under an idempotency key: done once, however often they are sent.

The commit keeps the key, and beside it a digest of what was asked, as a data commit does. So the same request again finds the first one's
receipt, and another one with its key is `KeyReused`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from perdure.backends.spi import Durability
from perdure.codec.records import request_digest
from perdure.engine.views import Receipt
from perdure.engine.write.keys import Keys, reused
from perdure.errors import Busy
from perdure.model.events import Event
from perdure.model.ids import SessionKey, check_name, life_key

ROUNDS = 16
"""How often a key is looked up again because another request with it was faster."""


class Keyed(msgspec.Struct, frozen=True):
    """The key of a control commit, as it is stored, and the digest of the request."""

    key: str
    request: bytes


class KeyAppliedError(Exception):
    """The key was applied, or used in an earlier life, since it was looked up. Nothing was written."""


async def once(
    keys: Keys,
    session: SessionKey,
    key: str | None,
    asked: Event,
    durability: Durability,
    write: Callable[[Keyed | None], Awaitable[Receipt]],
    *,
    ends: bool = False,
) -> Receipt:
    """What `write` gives, or the receipt of the first call with this key. `asked` is what the call asks for.

    `ends`: the commit ends the session's life. Its key stays known in the next one, so that a late retry does not end that too.
    Raises `KeyReused`, and what `write` raises.
    """
    if key is None:
        return await write(None)
    check_name("An idempotency key", key)
    for _ in range(ROUNDS):
        found = await look_up(keys, session, key, asked, durability, ends=ends)
        if isinstance(found, Receipt):
            return found
        try:
            return await write(found)
        except KeyAppliedError:
            continue
    raise Busy(f"The idempotency key {key!r} was used in session {session.id!r} by others again and again.", session=session.id)


async def look_up(
    keys: Keys, session: SessionKey, key: str, asked: Event, durability: Durability, *, ends: bool = False
) -> Receipt | Keyed:
    """The receipt of the first call with this key in the session's present life; where there was none, how to keep the key.

    `ends` as in `once`. Raises `KeyReused`.
    """
    request, found = request_digest((asked,)), await keys.find(session, key, include_deleted=True)
    if found is None:
        return Keyed(key, request)
    known, stored = found
    tombstone = await keys.began_after(session, known)
    if known.request == request and (ends or known.version > tombstone):
        return await keys.receipt(session, known, stored, durability)
    if known.version > tombstone:
        raise reused(session, key, known)
    return Keyed(life_key(key, tombstone), request)
