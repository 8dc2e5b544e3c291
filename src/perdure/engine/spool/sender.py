"""One entry of the spool to a commit in the store: to a receipt, to a refusal for good, or to an error that is waited out.

An entry is meant for the life of its session that was known when it was enqueued. The life is compared before it is sent, and decided in
the append's own condition. Each entry has its idempotency key, so sending it again, also after a lost answer, applies it once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from perdure import errors
from perdure.backends.spi import Backend, Durability, Head
from perdure.codec.codec import Codec
from perdure.engine.options import Options
from perdure.engine.read.reader import Reader
from perdure.engine.spool import entries
from perdure.engine.spool.entries import DAMAGED, Entry, Failure
from perdure.engine.spool.file import SpoolFile
from perdure.engine.views import Receipt
from perdure.engine.write.committer import Committer
from perdure.engine.write.keys import Keys
from perdure.engine.write.request import Mode, WriteRequest, has_ops
from perdure.engine.write.resolve import RECREATED, Incarnation
from perdure.errors import Busy, Closed, Conflict, Deleted, Error, Fenced, QuotaExceeded, Unauthorized, Unsupported
from perdure.lru import LruMap
from perdure.model.commit import Status
from perdure.model.epoch import raised
from perdure.model.ids import SessionKey
from perdure.redaction import Secrets

LIVES_MAX = 16_384
"""Sessions of which the shipper remembers the present life."""
GRANTS_MAX = 16
"""How often an entry is sent again at once because the session's fencing token moved, though its life did not."""
_PASSING = (Closed, Fenced, QuotaExceeded, Unauthorized, Unsupported)
"""Errors that are not about the entry but about the store, or an exclusive lease: they are waited out, as those that may be tried again."""


class Refusal(NamedTuple):
    """The store refused an entry for good. `tombstone`: the tombstone of the life that it was meant for, if that life is over."""

    failure: Failure
    tombstone: int | None = None


class Sender:
    """Sends entries, in any order and from one loop."""

    def __init__(
        self,
        file: SpoolFile,
        backend: Backend,
        codec: Codec,
        reader: Reader,
        keys: Keys,
        committer: Committer,
        durability: Durability,
        secrets: Secrets,
    ) -> None:
        self._file, self._backend, self._codec, self._reader, self._keys = file, backend, codec, reader, keys
        self._committer, self._durability, self._secrets = committer, durability, secrets
        self._lives = LruMap[SessionKey, Incarnation](LIVES_MAX)

    async def send(self, entry: Entry) -> Receipt | Refusal:
        """Send an entry. Raises an `Error` that is waited out: the entry stays where it is."""
        if not entry.sound:
            return Refusal(DAMAGED)
        try:
            return await self._send(entry)
        except Error as error:
            if is_passing(error):
                raise
            return Refusal(self.failure(error))
        except Exception as error:  # noqa: BLE001 - nothing may stop the shipper; the entry says what it met
            return Refusal(self.failure(error))

    async def _send(self, entry: Entry) -> Receipt | Refusal:
        life = self._lives.get(entry.target)
        if life is None or entry.seen is None or _is_over(entry, life):
            life, head = await self._look(entry.target)
            if entry.seen is None:
                entry = await self._bind(entry, head)
            if _is_over(entry, life):
                return await self._after_its_life(entry, life, head)
        for _ in range(GRANTS_MAX):
            try:
                return await self._committer.commit(self._request(entry, life.grant))
            except Error as error:
                if is_passing(error):
                    raise
                sent_with = life.grant
                life, head = await self._look(entry.target)
                if _is_over(entry, life):
                    return await self._after_its_life(entry, life, head)
                if life.grant == sent_with:
                    raise
        raise Busy(f"The fencing token of session {entry.target.id!r} moved {GRANTS_MAX} times while an entry was sent.")

    async def _look(self, target: SessionKey) -> tuple[Incarnation, Head | None]:
        """The session's present life, and its head."""
        (head,) = await self._backend.heads([target])
        life = Incarnation(0, 0)
        if head is not None:
            life = Incarnation(await self._reader.incarnation_start(target, head), raised(head.epoch, 0))
        self._lives.put(target, life)
        return life, head

    async def _bind(self, entry: Entry, head: Head | None) -> Entry:
        """Decide which life is meant by an entry that knew nothing of its session, before it is first sent."""
        seen = 0 if head is None else head.version
        await self._file.write(lambda connection: entries.bind(connection, entry.target, seen))
        return msgspec.structs.replace(entry, seen=seen)

    def _request(self, entry: Entry, grant: int) -> WriteRequest:
        events = self._codec.decode_events(entry.body)
        return WriteRequest(
            session=entry.target,
            events=events,
            mode=Mode.any_state if has_ops(events) else Mode.events,
            options=Options(key=entry.key, actor=entry.actor),
            durability=self._durability,
            operation="enqueue",
            compare_request=True,
            trace=entry.trace,
            grant=grant,
        )

    async def _after_its_life(self, entry: Entry, life: Incarnation, head: Head | None) -> Receipt | Refusal:
        """The life that an entry was meant for is over. It was applied before, if an answer was lost; else it never is."""
        applied = await self._keys.find(entry.target, entry.key, include_deleted=True)
        if applied is not None and applied[0].request == entry.request and (entry.seen or 0) < applied[0].version <= life.tombstone:
            receipt = await self._keys.find_receipt(entry.target, entry.key, self._durability, include_deleted=True)
            if receipt is not None:
                return receipt
        id = entry.target.id
        if head is not None and head.status == Status.deleted:
            gone: Error = Deleted(f"Session {id!r} was deleted at version {head.version}, before this write was shipped.", session=id)
        else:
            actual = 0 if head is None else head.version
            gone = Conflict(f"{RECREATED}the write was meant for the earlier life of session {id!r}.", session=id, actual=actual, paths=())
        return Refusal(self.failure(gone), life.tombstone)

    def failure(self, error: Exception) -> Failure:
        """An error as the spool stores it: without secrets of the URL, and without what JSON cannot say."""
        if not isinstance(error, Error):
            return Failure("Error", Error.code, self._secrets.clean(f"{type(error).__name__}: {error}"))
        facts = {name: fact for name, fact in error.facts.items() if _is_plain(fact)}
        return Failure(type(error).__name__, error.code, self._secrets.clean(error.detail), facts)


def is_passing(error: Error) -> bool:
    """Whether an error is waited out: the same entry may be taken later."""
    return error.retryable or isinstance(error, _PASSING)


def _is_over(entry: Entry, life: Incarnation) -> bool:
    """Whether the life that an entry is meant for is over: a tombstone came after all that was known of it."""
    return entry.seen is not None and 0 < life.tombstone >= entry.seen


def _is_plain(fact: Any) -> bool:
    return fact is None or isinstance(fact, (str, int)) or (isinstance(fact, (tuple, list)) and all(isinstance(one, str) for one in fact))


def rebuilt(failure: Failure, advice: str) -> Error:
    """The error that an entry failed with. What JSON could not say of it is left out."""
    kind = getattr(errors, failure.kind, Error)
    facts = {name: tuple(fact) if isinstance(fact, list) else fact for name, fact in failure.facts.items()}
    if kind is Conflict:
        facts = {"expected": 0, "actual": 0, "paths": (), **facts, "commits": ()}
    made: Error = kind(failure.detail, **{**facts, "advice": advice})
    return made
