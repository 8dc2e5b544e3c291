"""`PerdureSaver`: LangGraph's checkpointer, asynchronous and blocking."""

from __future__ import annotations

import heapq
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from operator import itemgetter
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol

from perdure.adapters.common.beginning import with_policy
from perdure.adapters.common.holds import HoldOptions
from perdure.adapters.common.sync_async import AnyStore, asynchronous, wait
from perdure.adapters.langgraph import reading, thread_admin, writing
from perdure.adapters.langgraph.holds import ThreadHold, note_run
from perdure.adapters.langgraph.memory import KnownVersions, MessageCache, RecentCheckpoints
from perdure.adapters.langgraph.threads import PREFIX, place, thread_of
from perdure.adapters.langgraph.values import Codec, serialiser
from perdure.adapters.langgraph.write_batching import WriteBatcher
from perdure.adapters.langgraph.writing import OnRace, Put, Writer, Writes
from perdure.errors import Invalid


class PerdureSaver(BaseCheckpointSaver[Any]):
    """A checkpointer that keeps each thread as one session: `graph.compile(checkpointer=PerdureSaver(store))`.

    `store` is an open `perdure.Store` or `perdure.sync.Store`; the graph may be run by `invoke` and by `ainvoke`, from any thread and any
    event loop. Each step writes what it changed. Thread `trip-42` is the session `langgraph/trip-42`.

    `allow`: the classes of yours (pydantic models, dataclasses, enums and the like) that a state may contain; others are refused when they
    are written. Without it any data type that the program has imported is stored, under LANGGRAPH_STRICT_MSGPACK those of the graph's own
    schemas. `serde`: a serialiser of the framework in place of the default one; with an encrypted one the store holds its bytes.
    `on_race`: what happens to a checkpoint if another run has continued from its parent since this run loaded it: "refuse" (`Conflict`, the
    default) or "branch".

    `expire_after`, `keep` and `drop` are the policy that threads begin with, as in `Store.configure`: a thread that was not written to for
    so long (a `timedelta` or seconds) is deleted by a sweeper, and is then no thread to the graph; the next run begins it again. Of the
    others only so many commits, or those of a time, are kept; a step writes one or two. Older checkpoints go to the store's archive and
    are read as before, or with `drop` for good: then time travel, `get_state_history` and branches end at the oldest checkpoint that is
    left, and a delta channel whose stored value was dropped is `Truncated`. The newest checkpoint of the graph, and of each of its
    subgraphs, always stays. Threads that are there keep the policy that they have.
    """

    def __init__(
        self,
        store: AnyStore,
        *,
        serde: SerializerProtocol | None = None,
        allow: Sequence[type] | None = None,
        on_race: OnRace = "refuse",
        expire_after: timedelta | float | None = None,
        keep: int | timedelta | None = None,
        drop: bool = False,
    ) -> None:
        if on_race not in ("refuse", "branch"):
            raise Invalid(f"on_race must be 'refuse' or 'branch', not {on_race!r}.")
        if serde is None:
            serde = serialiser(allow)
        elif allow is not None:
            raise Invalid("allow belongs to the default serialiser: configure the classes on the one that you pass as serde.")
        super().__init__(serde=serde)
        self._store = with_policy(asynchronous(store), expire_after=expire_after, keep=keep, drop=drop)
        self._on_race: OnRace = on_race
        self._memory, self._recent, self._seen = MessageCache(), RecentCheckpoints(), KnownVersions()
        self._batcher: WriteBatcher[Put | Writes] = WriteBatcher()
        self._allow = allow
        self._coded: tuple[SerializerProtocol, Codec] = self.serde, Codec(self.serde, self._memory, self._allow)

    def __repr__(self) -> str:
        return f"<PerdureSaver on {self._store!r}>"

    @property
    def _codec(self) -> Codec:
        # The framework clones a saver and gives the clone another serialiser (`with_allowlist`).
        if self._coded[0] is not self.serde:
            self._coded = self.serde, Codec(self.serde, self._memory, self._allow)
        return self._coded[1]

    @property
    def _writer(self) -> Writer:
        return Writer(self._store, self._codec, self._recent, self._seen, self._batcher, self._on_race)

    def hold(self, thread_id: str, *, owner: str, ttl: float = 30, wait: float = 60, exclusive: bool = True) -> ThreadHold:
        """`async with saver.hold("trip-42", owner="worker-7") as lease`, or `with`: hold a thread while its runs are in the block.

        A second worker waits, or is refused with `Held`, before its model is called. What savers on this store object write to the thread
        in the block, with all its namespaces, is written under the lease: a worker that lost it is `Fenced`, and nothing is stored. "In
        the block" goes by the context (`contextvars`): tasks, `asyncio.to_thread` and the framework's threads take it along, a thread of
        yours does not, unless you copy it. Work that outlives the block is `Fenced`.

        `owner`, `ttl` and `wait` (seconds) as in `Store.lease`. `exclusive`: who does not hold the thread is refused too, with `Fenced`, in
        this process as in others. It is the default, because a hold that binds only those who use it keeps out no worker that forgot to.
        When its holder has died, an exclusive thread is closed to those until somebody holds it or `perdure lease break` is called.
        A thread that is not there is begun, without a checkpoint. Reading, copying and deleting are not refused; a delete ends the lease.

        Raises `Invalid` for bad options and, on entry, for a thread that this context holds already; and what `Store.lease` raises, but
        not `Deleted`: a thread that was deleted is begun again.
        """
        return ThreadHold(self._store, str(thread_id), HoldOptions(owner, ttl, wait, exclusive))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config names, or the newest of its namespace; `None` if there is none."""
        here = place(config)
        note_run(self._store, here.session, config)
        return await reading.get(self._store, self._codec, self._seen, here)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `aget_tuple`, blocking."""
        return wait(self.aget_tuple(config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, newest first: of the config's thread, or of all threads; of its namespace, if it names one.

        Checkpoints of one listing share the message objects that they have in common; lists and dicts are each one's own.
        """
        for found in await self._find(config, filter, before, limit):
            yield found

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """As `alist`, blocking."""
        yield from wait(self._find(config, filter, before, limit))

    async def _find(
        self, config: RunnableConfig | None, filter: dict[str, Any] | None, before: RunnableConfig | None, limit: int | None
    ) -> Iterator[CheckpointTuple]:
        wanted: dict[str, Any] = {"filter": filter, "before": before, "limit": limit}
        if config is not None:
            here = place(config)
            ns = here.ns if "checkpoint_ns" in config["configurable"] else None
            return iter(await reading.find(self._store, self._codec, self._seen, here.thread, ns=ns, id=here.id, **wanted))
        threads = [thread_of(info.session) async for info in self._store.list(prefix=PREFIX)]
        found = [await reading.find(self._store, self._codec, self._seen, thread, ns=None, id=None, **wanted) for thread in threads]
        places = [[(id, number, index) for index, id in enumerate(listing.ids)] for number, listing in enumerate(found)]
        newest_first = heapq.merge(*places, key=itemgetter(0), reverse=True)  # each thread in its own order
        return (found[number].make(index) for _, number, index in islice(newest_first, limit))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint: one commit that holds what changed. Sent again it changes nothing.

        Raises `Conflict` for a lost race, `NotFound` for a parent that is gone, `Deleted` when the thread was deleted during the run,
        `Invalid` for a value that could not be read back.
        """
        return await writing.put(self._writer, config, checkpoint, metadata)

    def put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> RunnableConfig:
        """As `aput`, blocking."""
        return wait(self.aput(config, checkpoint, metadata, new_versions))

    async def aput_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        """Store what a task wrote on a checkpoint. Sent again it changes nothing.

        What a running graph's task wrote waits up to 10 ms for the checkpoint that follows, and is stored with it, before this returns.
        """
        await writing.put_writes(self._writer, config, writes, task_id, task_path)

    def put_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        """As `aput_writes`, blocking."""
        wait(self.aput_writes(config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread with all namespaces; a new run may begin it again."""
        await thread_admin.delete(self._store, str(thread_id))

    def delete_thread(self, thread_id: str) -> None:
        """As `adelete_thread`, blocking."""
        wait(self.adelete_thread(thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints of these runs, in all threads."""
        await thread_admin.delete_for_runs(self._store, run_ids)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `adelete_for_runs`, blocking."""
        wait(self.adelete_for_runs(run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Make a new thread that begins with the present state of another: a fork, which copies nothing."""
        await thread_admin.copy(self._store, str(source_thread_id), str(target_thread_id))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `acopy_thread`, blocking."""
        wait(self.acopy_thread(source_thread_id, target_thread_id))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Leave each namespace its newest checkpoint (`keep_latest`), or delete the threads (`delete`)."""
        await thread_admin.prune(self._store, [str(thread) for thread in thread_ids], strategy)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `aprune`, blocking."""
        wait(self.aprune(thread_ids, strategy=strategy))

    async def aget_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, Any]:
        """For each channel its nearest stored value among the checkpoint's ancestors, and the writes since."""
        return await reading.delta_history(self._store, self._codec, place(config), channels)

    def get_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, Any]:
        """As `aget_delta_channel_history`, blocking."""
        return wait(self.aget_delta_channel_history(config=config, channels=channels))

    def get_next_version(self, current: Any, channel: None) -> Any:
        """Versions of channels are counted; where a thread was imported with versions that are strings, they stay strings."""
        if isinstance(current, str):
            return f"{int(current.partition('.')[0]) + 1:032}.{random.random():016}"
        return 1 if current is None else current + 1
