"""`verify`: every link of a session's chain, and every snapshot against the fold."""

from __future__ import annotations

from perdure.backends.spi import Backend, Head, Proving, Snapshot
from perdure.codec.codec import Codec
from perdure.engine.context import Context
from perdure.engine.read.anchors import ANCHOR, ANCHORED
from perdure.engine.read.reader import FORKED, Reader, apply_events, check_standing, configured, is_forked
from perdure.engine.views import Verified
from perdure.errors import Corrupt, NotFound
from perdure.model.commit import GENESIS, DerivedStatus, Kind, Status, derive_status
from perdure.model.control import CONTROL
from perdure.model.ids import SessionKey
from perdure.model.state import Fold
from perdure.model.values import same


async def verify(context: Context, session: str) -> Verified:
    """See `Store.verify`."""
    core, target = context.opened(), context.key(session)
    with core.telemetry.span("verify", *target):
        return await _prove(core.backend, core.codec, core.reader, target)


async def _prove(backend: Backend, codec: Codec, reader: Reader, session: SessionKey) -> Verified:
    """Read the whole chain and fold it. Raises `Corrupt` at the first thing that is not as it was written, `NotFound`."""
    loaded = await backend.load(session)
    if loaded is None:
        raise NotFound(f"There is no session {session.id!r}.", session=session.id)
    head = loaded.row.head
    snapshots = {}
    snapshot = loaded.snapshot
    while snapshot is not None:
        snapshots[snapshot.version] = snapshot
        earlier = await backend.load(session, snapshot.version - 1) if snapshot.version > 1 else None
        snapshot = earlier.snapshot if earlier is not None else None
    fold: Fold | None = Fold({})
    tags: dict[str, str] | None = {}
    count, version, prev, at = 0, 0, GENESIS, 0
    gone, anchors = (0, GENESIS), dict[int, str]()
    first = await reader.root(session)
    commits = reader.commits(session, before=head.version + 1)
    if first is not None and first.kind is Kind.tombstone:  # What a purge left: the chain goes on from it.
        version, prev, at = first.version, first.hash, first.at
        commits = reader.commits(session, after=version, before=head.version + 1)
    elif (
        first is not None and first.version > 1
    ):  # What retention left: the state is known from the first snapshot on, tags from the anchor.
        version, prev, at = first.version - 1, first.prev, first.at - 1
        gone = (0, GENESIS) if is_forked(first) else (version, prev)
        fold, tags = _stands_for(codec, session, snapshots.get(version), prev), None
        commits = reader.commits(session, after=version, before=head.version + 1)
    async for commit in commits:
        if commit.version != version + 1 or commit.prev != prev or commit.at <= at:
            raise Corrupt(f"Version {commit.version} of session {session.id!r} does not follow version {version}.", session=session.id)
        count, version, prev, at = count + 1, commit.version, commit.hash, commit.at
        if commit.kind is Kind.data and fold is not None:
            apply_events(session, fold, commit)
        elif commit.kind is Kind.tombstone:
            fold, tags = Fold({}), {}
        elif commit.kind is Kind.configure:
            fork = any(event.type == FORKED for event in commit.events)  # It has none of its parent's tags.
            tags = configured(commit.events).get("tags", {} if fork else tags)
        elif commit.kind is Kind.anchor:
            for anchor in (event.data for event in commit.events if event.type == ANCHORED):
                anchors[anchor[CONTROL][ANCHOR]["version"]] = anchor[CONTROL][ANCHOR]["hash"]
                tags = anchor["tags"] if tags is None else tags
        found = snapshots.get(version)
        if found is not None:
            state = codec.decode_snapshot(session, found)
            if found.hash != commit.hash or (fold is not None and not same(state, fold.state)):
                raise Corrupt(
                    f"The snapshot of session {session.id!r} at version {version} is not what its commits give.", session=session.id
                )
            fold = fold or Fold(state)
    if gone[0] and (max(anchors, default=0) < gone[0] or anchors.get(gone[0], gone[1].hex()) != gone[1].hex()):
        raise Corrupt(
            f"The commits of session {session.id!r} up to version {gone[0]} are gone, and no anchor names them.", session=session.id
        )
    if isinstance(backend, Proving):
        await backend.copies(session)
    last = await _check_columns(backend, codec, session, head.version)
    if (version, prev) != (head.version, head.hash):
        raise Corrupt(f"Session {session.id!r} has version {version} where its head says {head.version}.", session=session.id)
    if last is not None and head != last:
        raise Corrupt(f"The index row of session {session.id!r} has another status or place than its commits give.", session=session.id)
    if tags is not None and dict(loaded.row.tags) != tags:
        raise Corrupt(f"The index row of session {session.id!r} has other tags than its commits give.", session=session.id)
    own = await reader.own_first(session)
    whole = own is not None and (own.version == 1 or is_forked(own))
    if own is not None and (loaded.row.created_at > own.at or (whole and loaded.row.created_at != own.at)):
        raise Corrupt(f"The index row of session {session.id!r} says another time of its first commit.", session=session.id)
    return Verified(session.id, version, prev, count, len(snapshots))


def _stands_for(codec: Codec, session: SessionKey, snapshot: Snapshot | None, hash: bytes) -> Fold | None:
    """The state that a snapshot stands for, right before the first commit that is left; `None` where there is none. Raises `Corrupt`."""
    if snapshot is None:
        return None
    if snapshot.hash != hash:
        raise Corrupt(f"The snapshot of session {session.id!r} at version {snapshot.version} is of another commit.", session=session.id)
    return Fold(codec.decode_snapshot(session, snapshot))


async def _check_columns(backend: Backend, codec: Codec, session: SessionKey, newest: int) -> Head | None:
    """The columns that no hash covers, because they follow from the commits before: a head's standing and its last data version.
    The head that the record of the version `newest` made, which the index row repeats."""
    stand: DerivedStatus | None = None
    last: Head | None = None
    version = 0
    while records := await backend.read(session, after=version):
        for record in records:
            head, first, version = record.head, not version, record.head.version
            if version == newest:
                last = head
            if first and not record.is_stub and (version == 1 or is_forked(codec.open_record(session, record, partial=True))):
                stand = int(Status.active), version - 1
            stand = check_standing(session, head, derive_status(record.kind, version, stand))
    return last
