"""States in a shared cache: sealed under a key of the store, used only where the head has their hash.

Whatever the cache does costs time only. A value that was not sealed by this store for this session is no value; one of an older version
is none; a cache that is slow, full or away is left alone. Nobody waits for it longer than the time-out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Coroutine, Mapping
from hmac import compare_digest
from typing import Any, TypeVar

import msgspec

from perdure.backends.remote.loop import IoLoop
from perdure.backends.spi import Backend, Snapshot
from perdure.clock import Clock
from perdure.codec.codec import Codec
from perdure.engine.read.cache import CachedState
from perdure.engine.read.shared.breaker import Breaker
from perdure.engine.read.shared.client import UNDER_WAY_MAX, CacheClient
from perdure.engine.views import SharedCacheInfo
from perdure.errors import Closed, Corrupt, Error
from perdure.model.commit import Status
from perdure.model.ids import SessionKey
from perdure.model.state import FOLD_VERSION
from perdure.telemetry import CACHE_HITS, SHARED_CACHE, Telemetry

T = TypeVar("T")

TTL_SECONDS = 3_600
"""Seconds for which a cache is asked to keep a value."""
CLOSE_SECONDS = 1.0
"""Seconds for which closing waits for the client."""
_MAC_BYTES = 32


class _Value(msgspec.Struct, frozen=True, array_like=True):
    """What a value holds after its MAC. `body` is the state as a snapshot's body is: encoded, compressed, sealed to its place."""

    version: int
    hash: bytes
    body: bytes
    log_bytes: int
    snapshot_bytes: int
    size_bytes: int
    state_bytes: int
    tags: Mapping[str, str]
    created_at: int


class SharedTier:
    """The shared cache of one connection. Safe from any thread and loop."""

    def __init__(
        self, client: CacheClient, backend: Backend, codec: Codec, secret: bytes, timeout: float, clock: Clock, telemetry: Telemetry
    ) -> None:
        """`secret`: the key of the MACs; `timeout`: seconds that a caller waits."""
        self._client, self._backend, self._codec, self._timeout = client, backend, codec, timeout
        self._secret, self._telemetry, self._now = secret, telemetry, clock.monotonic
        self._breaker = Breaker(clock.monotonic)
        self._io = IoLoop("perdure-shared-cache")
        self._under_way: set[object] = set()
        self._counts = dict.fromkeys(SharedCacheInfo.__struct_fields__, 0)

    def info(self) -> SharedCacheInfo:
        """The counts. Those of several threads at once may miss a few."""
        return SharedCacheInfo(**self._counts)

    def _count(self, outcome: str) -> None:
        self._counts[outcome] += 1
        self._telemetry.count(SHARED_CACHE, outcome=outcome)

    async def load(self, session: SessionKey) -> tuple[CachedState, float] | None:
        """The state at the head, if the cache has it, and the moment of the clock after which that was the head. The head is always looked
        at. `None`: load from the engine. Raises what the engine raises."""
        value = await self._get(session)
        if value is None:
            return None
        head_at = self._now()
        head = (await self._backend.heads((session,)))[0]
        if head is None or (head.version, head.hash) != (value.version, value.hash):
            self._count("stale")
            return None
        try:
            state = self._codec.decode_snapshot(session, Snapshot(value.version, value.hash, value.body))
        except Corrupt:
            self._count("forged")
            return None
        self._count("hits")
        self._telemetry.count(CACHE_HITS, tier="shared")
        made = CachedState(
            head,
            state,
            value.log_bytes,
            value.snapshot_bytes,
            value.tags,
            value.created_at,
            value.size_bytes,
            state_bytes=value.state_bytes,
            from_shared=True,
        )
        return made, head_at

    async def _get(self, session: SessionKey) -> _Value | None:
        """The value, if there is one that this store sealed for this session, within the time-out."""
        if len(self._under_way) >= UNDER_WAY_MAX or not self._breaker.allows():
            self._count("skipped")
            return None
        key = self._key(session)
        found: bytes | Exception | None
        try:
            reply = self._io.call(self._tracked(self._client.get(key)))
            found = await reply if await reply.within(self._timeout) else TimeoutError()
        except Closed:
            return None
        except Exception as error:  # noqa: BLE001 - whatever the client's library raises, the engine has the state
            found = error
        if isinstance(found, Exception):
            self._breaker.failed()
            self._count("failures")
            return None
        self._breaker.succeeded()
        if found is None:
            self._count("misses")
            return None
        value = self._opened(key, found)
        if value is None:
            self._count("forged")
        return value

    async def _tracked(self, request: Coroutine[Any, Any, T]) -> T:
        mark = object()
        self._under_way.add(mark)
        try:
            return await request
        finally:
            self._under_way.discard(mark)

    def offer(self, session: SessionKey, cached: CachedState) -> bool:
        """Store a state that was loaded from the engine, soon and without an answer; whether it will be read by another thread then."""
        if cached.head.status != Status.active:
            return False
        if len(self._under_way) >= UNDER_WAY_MAX or not self._breaker.closed:
            self._count("skipped")
            return False
        if cached.weight > self._client.bytes_max:
            self._count("too_large")
            return False
        self._post(self._put(session, cached))
        return True

    def forget(self, session: SessionKey) -> None:
        """Remove a session's value, as far as the cache can be reached. It expires by itself."""
        if self._breaker.closed:
            self._post(self._client.delete(self._key(session)))

    def _post(self, request: Coroutine[Any, Any, None]) -> None:
        async def quiet() -> None:
            try:
                await request
            except Exception:  # noqa: BLE001 - whatever the client's library raises, the value is not needed
                self._count("failures")

        try:
            self._io.call(self._tracked(quiet()))
        except Closed:
            request.close()

    async def _put(self, session: SessionKey, cached: CachedState) -> None:
        head = cached.head
        try:
            body = self._codec.encode_snapshot(session, head.version, head.hash, cached.state).body
        except Error:  # It is too large for a snapshot, too.
            self._count("too_large")
            return
        value = _Value(
            head.version,
            head.hash,
            body,
            cached.log_bytes,
            cached.snapshot_bytes,
            cached.size_bytes,
            cached.state_bytes,
            dict(cached.tags),
            cached.created_at,
        )
        payload, key = msgspec.msgpack.encode(value), self._key(session)
        if len(payload) + _MAC_BYTES > self._client.bytes_max:
            self._count("too_large")
            return
        await self._client.put(key, self._mac(key, payload) + payload, TTL_SECONDS)
        self._count("stored")

    def _key(self, session: SessionKey) -> bytes:
        """Where a session's value lies. No name of a tenant or session shows in it, and no other store has the same."""
        place = msgspec.msgpack.encode((FOLD_VERSION, self._backend.store_id, session.tenant, session.id))
        return b"perdure:" + hashlib.blake2b(place, key=self._secret, digest_size=24, person=b"perdure-key").hexdigest().encode()

    def _mac(self, key: bytes, payload: bytes) -> bytes:
        return hashlib.blake2b(key + payload, key=self._secret, digest_size=_MAC_BYTES, person=b"perdure-value").digest()

    def _opened(self, key: bytes, found: bytes) -> _Value | None:
        """The value, if this store sealed it for this key. Nothing else is decoded."""
        mac, payload = found[:_MAC_BYTES], found[_MAC_BYTES:]
        if not compare_digest(mac, self._mac(key, payload)):
            return None
        try:
            return msgspec.msgpack.decode(payload, type=_Value)
        except msgspec.DecodeError:
            return None

    async def close(self) -> None:
        """Let go of the client and its thread. What is under way is dropped."""
        try:
            await self._io.call(self._client.close()).within(CLOSE_SECONDS)
        except Closed:
            return
        finally:
            self._io.close()
