"""The key that a store's values in a shared cache are sealed with: made once, kept in a session of the store's own."""

from __future__ import annotations

from contextlib import suppress

from perdure.backends.spi import Durability
from perdure.clock import secret_bytes
from perdure.engine.options import Options
from perdure.engine.read.reader import Reader
from perdure.engine.write.committer import Committer
from perdure.engine.write.request import Mode, WriteRequest
from perdure.errors import AlreadyExists, Corrupt, NotFound
from perdure.model.events import Event
from perdure.model.ids import SessionKey, system_tenant

PLACE = SessionKey(system_tenant(), "shared-cache")
EVENT = "shared_cache_key"
KEY_BYTES = 32


async def load_secret(reader: Reader, committer: Committer, durability: Durability, *, create: bool) -> bytes:
    """The store's key; made by the first who asks, unless `create` is false: then `NotFound`. It is in no message."""
    commit = await reader.commit(PLACE, 1)
    if commit is None and not create:
        raise NotFound("This store has no key for a shared cache yet: open it with shared_cache= and without create=False once.", advice="")
    if commit is None:
        event = Event(EVENT, {"key": secret_bytes(KEY_BYTES).hex()})
        request = WriteRequest(session=PLACE, events=(event,), options=Options(expect=0), durability=durability, mode=Mode.events)
        with suppress(AlreadyExists):  # Another process was first.
            await committer.commit(request)
        commit = await reader.commit(PLACE, 1)
    event = commit.events[0] if commit is not None and commit.events else Event("")
    text = event.data.get("key") if event.type == EVENT and isinstance(event.data, dict) else None
    try:
        key = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise Corrupt(f"The session {PLACE.id!r} of the store's own tenant {PLACE.tenant!r} holds no key for a shared cache.")
    return key
