"""`datastore://`: Firestore in Datastore mode. A commit is one `Commit` that fails whole when the version of an entity is another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError
from google.cloud.datastore_v1 import types
from google.cloud.datastore_v1.services.datastore import DatastoreAsyncClient
from google.cloud.datastore_v1.services.datastore.transports import DatastoreGrpcAsyncIOTransport

from perdure.backends.google import channel, open_service
from perdure.backends.google.entities import INDEXED, KNOWN, Absent, Entity, Path, Unread, Value, Version, Write
from perdure.backends.remote import Address, RemoteBackend
from perdure.clock import Clock
from perdure.errors import Unavailable

EMULATOR = "DATASTORE_EMULATOR_HOST"
_FILTER = types.PropertyFilter.Operator
_KEY = "__key__"


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:
    """Open `datastore://project/database?option=value`; without a database the default one. Raises as `open_service`."""
    return await open_service(url, clock, create=create, variable=EMULATOR, transport=DatastoreGrpcAsyncIOTransport, made=Datastore)


class Datastore:
    """See `Entities`. All entities lie in a Datastore namespace of the store's own; kinds are Datastore's kinds."""

    def __init__(self, transport: Any, address: Address, place: tuple[str, str], host: str) -> None:
        """`transport`: for this alone; `place`: project and database; `host`: an emulator's, or empty."""
        project, name = place[0], "" if place[1] == "(default)" else place[1]
        self._client: Any = DatastoreAsyncClient(transport=transport)
        self._place = address.place
        self._database = {"project_id": project, "database_id": name}
        self._partition = types.PartitionId(namespace_id=address.options["namespace"], **self._database)
        self._call: dict[str, Any] = {"retry": None, "timeout": address.options["timeout"]}
        if name:
            self._call["metadata"] = [("x-goog-request-params", f"project_id={project}&database_id={name}")]
        self.is_production = not host
        self.server = "Datastore's emulator (API v1)" if host else "Firestore in Datastore mode (API v1)"

    def _key(self, path: Path) -> Any:
        steps = [types.Key.PathElement(kind=kind, name=name) for kind, name in zip(path[::2], path[1::2], strict=True)]
        return types.Key(partition_id=self._partition, path=steps)

    def _entity(self, found: Any) -> Entity:
        path = tuple(part for step in found.entity.key.path for part in (step.kind, step.name))
        return Entity(path, {name: _plain(name, value) for name, value in found.entity.properties.items()}, found.version)

    async def get(self, paths: Sequence[Path]) -> Sequence[Entity | None]:
        """See `Entities`: one `Lookup`. One that was answered in part is made again whole, for all to be of one moment."""
        request = types.LookupRequest(keys=[self._key(path) for path in paths], **self._database)
        for _ in range(3):
            try:
                answer = await self._client.lookup(request, **self._call)
            except (GoogleAPICallError, GoogleAuthError) as error:
                raise channel.mapped(error, self._place, writing=False) from error
            if answer is None or len(answer.found) + len(answer.missing) + len(answer.deferred) != len(paths):
                raise channel.garbled(self._place, writing=False)
            if not answer.deferred:
                found = {entity.path: entity for entity in map(self._entity, answer.found)}
                return [found.get(path) for path in paths]
        raise Unavailable(f"{self._place} answers only in part: do it again.")

    async def query(
        self, above: Path, kind: str, low: str, high: str, limit: int, where: Sequence[tuple[str, str | int]] = ()
    ) -> Sequence[Entity]:
        """See `Entities`: in the order of keys, of which the service has an index."""
        filters = [_filter(name, _FILTER.EQUAL, _typed(value, indexed=True)) for name, value in where]
        if above:
            filters.append(_filter(_KEY, _FILTER.HAS_ANCESTOR, types.Value(key_value=self._key(above))))
        if low:
            filters.append(_filter(_KEY, _FILTER.GREATER_THAN_OR_EQUAL, types.Value(key_value=self._key((*above, kind, low)))))
        filters.append(_filter(_KEY, _FILTER.LESS_THAN, types.Value(key_value=self._key((*above, kind, high)))))
        return await self._query(kind, filters, _KEY, limit)

    async def ordered(self, kind: str, field: str, after: str, below: str, limit: int) -> Sequence[Entity]:
        """See `Entities`: by the index that the service makes of every property."""
        filters = [
            _filter(field, _FILTER.GREATER_THAN, _typed(after, indexed=True)),
            _filter(field, _FILTER.LESS_THAN, _typed(below, indexed=True)),
        ]
        return await self._query(kind, filters, field, limit)

    async def _query(self, kind: str, filters: Sequence[Any], order: str, limit: int) -> Sequence[Entity]:
        """A `RunQuery` for each part that the service gives: what fits all filters."""
        query = types.Query(
            kind=[types.KindExpression(name=kind)],
            filter=types.Filter(composite_filter=types.CompositeFilter(op=types.CompositeFilter.Operator.AND, filters=filters)),
            order=[types.PropertyOrder(property=types.PropertyReference(name=order))],
        )
        found: list[Entity] = []
        while True:
            query.limit = limit - len(found)
            request = types.RunQueryRequest(partition_id=self._partition, query=query, **self._database)
            try:
                answer = await self._client.run_query(request, **self._call)
            except (GoogleAPICallError, GoogleAuthError) as error:
                raise channel.mapped(error, self._place, writing=False) from error
            if answer is None or not answer.batch.more_results:
                raise channel.garbled(self._place, writing=False)
            batch = answer.batch
            found += map(self._entity, batch.entity_results)
            if batch.more_results != types.QueryResultBatch.MoreResultsType.NOT_FINISHED or len(found) >= limit:
                return found
            query.start_cursor = batch.end_cursor

    async def commit(self, writes: Sequence[Write]) -> Sequence[Version]:
        """See `Entities`: one `Commit` in a transaction of its own."""
        request = types.CommitRequest(
            mode=types.CommitRequest.Mode.TRANSACTIONAL,
            single_use_transaction=types.TransactionOptions(read_write=types.TransactionOptions.ReadWrite()),
            mutations=[self._mutation(write) for write in writes],
            **self._database,
        )
        try:
            answer = await self._client.commit(request, **self._call)
        except (GoogleAPICallError, GoogleAuthError) as error:
            raise channel.mapped(error, self._place, writing=True) from error
        if answer is None or len(answer.mutation_results) != len(writes):
            raise channel.garbled(self._place, writing=True)
        return [result.version for result in answer.mutation_results]

    def _mutation(self, write: Write) -> Any:
        if write.fields is None:
            return types.Mutation(delete=self._key(write.path))
        properties = {name: _typed(value, indexed=name in INDEXED) for name, value in write.fields.items()}
        entity = types.Entity(key=self._key(write.path), properties=properties)
        if isinstance(write.on, Absent):
            return types.Mutation(insert=entity)
        if write.on is None:
            return types.Mutation(upsert=entity)
        failing = types.Mutation.ConflictResolutionStrategy.FAIL  # The default keeps the entity as it is and applies all others.
        return types.Mutation(update=entity, base_version=write.on, conflict_resolution_strategy=failing)

    async def close(self) -> None:
        """See `Entities`."""
        await self._client.transport.close()


def _typed(value: Value | Unread, *, indexed: bool) -> Any:
    if isinstance(value, types.Value):
        return value
    left_out: dict[str, Any] = {"exclude_from_indexes": not indexed}
    if isinstance(value, bytes):
        return types.Value(blob_value=value, **left_out)
    if isinstance(value, str):
        return types.Value(string_value=value, **left_out)
    if isinstance(value, int):
        return types.Value(integer_value=value, **left_out)
    return types.Value(array_value=types.ArrayValue(values=[_typed(one, indexed=indexed) for one in value]))


def _plain(name: str, value: Any) -> Value | Unread:
    if name not in KNOWN:
        return value
    if "blob_value" in value:
        return bytes(value.blob_value)
    if "integer_value" in value:
        return int(value.integer_value)
    if "array_value" in value:
        return [str(one.string_value) for one in value.array_value.values]
    return str(value.string_value)


def _filter(name: str, operator: Any, value: Any) -> Any:
    """A list fits when one of its values does."""
    return types.Filter(property_filter=types.PropertyFilter(property=types.PropertyReference(name=name), op=operator, value=value))
