"""What the committer has to look up where a try did not simply succeed: a newer head, the try itself, the commits that came before it."""

from __future__ import annotations

from contextlib import aclosing, suppress

from perdure.backends.spi import Backend, Head
from perdure.engine.read.bodies import Bodies, nothing
from perdure.engine.read.cache import Cache, CachedState
from perdure.engine.read.reader import Reader
from perdure.engine.views import Receipt
from perdure.engine.write.request import WriteRequest
from perdure.engine.write.resolve import RECREATED, conflict, rewound
from perdure.engine.write.tries import Tries
from perdure.errors import Conflict, Error, Truncated, Unsupported
from perdure.model.commit import Commit
from perdure.model.ids import SessionKey

CONFLICT_COMMITS_MAX = 100
"""Most commits that a `Conflict` carries."""


class Lookups:
    """For the committer of one connection."""

    def __init__(self, backend: Backend, reader: Reader, cache: Cache, bodies: Bodies) -> None:
        self._backend, self._reader, self._cache, self._bodies = backend, reader, cache, bodies

    async def newer_head(self, session: SessionKey, head: Head | None) -> Head | None:
        """The head in the engine, if the head that was judged is older: only the newest state may refuse a request."""
        known = self._cache.get(session)
        newest = (await self._backend.heads([session]))[0]
        if newest is None or newest == head or (known is not None and known.head == newest):
            return None
        return newest

    async def require_seen(self, request: WriteRequest, seen: Head, current: CachedState | None) -> CachedState | None:
        """The newest state, at least as new as what the caller saw; the cached one may be older. Raises `Rewound`."""
        if current is not None and current.head.version < seen.version:
            current = await self._reader.read_head(request.session)
        if (
            current is None
            or current.head.version < seen.version
            or (current.head.version == seen.version and current.head.hash != seen.hash)
        ):
            raise rewound(request, seen)
        return current

    async def require_same_incarnation(self, request: WriteRequest, since: int, head: Head) -> None:
        """Raise `Conflict` if the session was deleted, and created again, after the version that the caller decided on."""
        if await self._reader.incarnation_start(request.session, head) > since:
            raise await self.explained(request, head, conflict(request, head, RECREATED))

    async def find(self, request: WriteRequest, tries: Tries) -> Receipt | None:
        """After a lost answer: is the commit in the chain, at the durability asked for? Only its id proves it."""
        with suppress(Error):
            async with aclosing(self._reader.commits(request.session, newest_first=True, need=nothing)) as commits:
                async for commit in commits:
                    if commit.id == tries.id:
                        level = self._backend.capabilities.proven(request.durability)
                        self._reader.saw(request.session, commit.version)
                        if level < request.durability:
                            return None
                        level = level if tries.body is None else min(level, self._bodies.durability)
                        return Receipt(commit.version, commit.id, commit.hash, commit.at, level)
                    if tries.seen is not None and commit.version <= tries.seen.head.version:
                        break
        return None

    async def explained(self, request: WriteRequest, head: Head | None, error: Conflict) -> Conflict:
        """The conflict, with the commits that the caller has not seen."""
        known = self._cache.get(request.session)
        if known is not None and head is not None and known.head.hash != head.hash:
            self._cache.drop(request.session)  # The cached state is old: a caller that tries again must not get the same conflict.
        seen = request.expected_version or 0
        if head is not None:
            seen = max(seen, await self._reader.incarnation_start(request.session, head) - 1)  # The tombstone itself counts.
        error.facts["commits"] = tuple(await self._newer(request.session, seen))
        return error

    async def _newer(self, session: SessionKey, seen: int) -> list[Commit]:
        """The commits after version `seen`, as far as they are left and within reach, and not too many."""
        found: list[Commit] = []
        try:
            async with aclosing(self._reader.commits(session, after=seen)) as commits:
                async for commit in commits:
                    found.append(commit)
                    if len(found) == CONFLICT_COMMITS_MAX:
                        break
        except Truncated as error:
            return await self._newer(session, error.first - 1) if error.first - 1 > seen else found
        except Unsupported:  # They are in an archive that this store was opened without.
            pass
        return found
