"""`firestore://`: Cloud Firestore in native mode. A commit is one `Commit` with a precondition on each document."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from typing import Any

from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError
from google.cloud.firestore_v1 import types
from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport

from perdure.backends.google import channel, open_service
from perdure.backends.google.entities import KNOWN, Absent, Entity, Fields, Path, Unread, Value, Version, Write
from perdure.backends.remote import Address, RemoteBackend
from perdure.clock import Clock

EMULATOR = "FIRESTORE_EMULATOR_HOST"
_FIELD = types.StructuredQuery.FieldFilter
_DOCUMENT = "__name__"


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:
    """Open `firestore://project/database?option=value`; without a database "(default)". Raises as `open_service`."""
    return await open_service(url, clock, create=create, variable=EMULATOR, transport=FirestoreGrpcAsyncIOTransport, made=Firestore)


class Firestore:
    """See `Entities`. All documents lie below the one of the namespace, in collections named after their kind."""

    def __init__(self, transport: Any, address: Address, place: tuple[str, str], host: str) -> None:
        """`transport`: for this alone; `place`: project and database; `host`: an emulator's, or empty."""
        project, name = place
        self._client: Any = FirestoreAsyncClient(transport=transport)
        self._place = address.place
        self._database = database = f"projects/{project}/databases/{name}"
        timeout, namespace = address.options["timeout"], address.options["namespace"]
        self._root = f"{database}/documents/perdure/{namespace}"
        login = [("authorization", "Bearer owner")] if host else []
        routing = ("google-cloud-resource-prefix", database)
        self._call: dict[str, Any] = {"retry": None, "timeout": timeout, "metadata": [routing, *login]}
        self.is_production = not host
        self.server = "Firestore's emulator (API v1)" if host else "Cloud Firestore (API v1)"

    def _name(self, path: Path) -> str:
        return "/".join((self._root, *path))

    def _entity(self, document: Any) -> Entity:
        path = tuple(document.name[len(self._root) + 1 :].split("/"))
        return Entity(path, {name: _plain(name, value) for name, value in document.fields.items()}, document.update_time)

    async def get(self, paths: Sequence[Path]) -> Sequence[Entity | None]:
        """See `Entities`: one `BatchGetDocuments`."""
        names = [self._name(path) for path in paths]
        request = types.BatchGetDocumentsRequest(database=self._database, documents=names)
        found: dict[str, Entity | None] = {}
        for answer in await self._answers(self._client.batch_get_documents, request):
            if "found" in answer:
                found[answer.found.name] = self._entity(answer.found)
            elif answer.missing:
                found[answer.missing] = None
        if not found.keys() >= {*names}:
            raise channel.garbled(self._place, writing=False)
        return [found.get(name) for name in names]

    async def query(
        self, above: Path, kind: str, low: str, high: str, limit: int, where: Sequence[tuple[str, str | int]] = ()
    ) -> Sequence[Entity]:
        """See `Entities`: one `RunQuery`, in the order of names, of which it has an index."""
        above_name = self._name(above) if above else self._root
        filters = [_equal(name, value) for name, value in where]
        if low:
            filters.append(
                _filter(_DOCUMENT, _FIELD.Operator.GREATER_THAN_OR_EQUAL, types.Value(reference_value=f"{above_name}/{kind}/{low}"))
            )
        filters.append(_filter(_DOCUMENT, _FIELD.Operator.LESS_THAN, types.Value(reference_value=f"{above_name}/{kind}/{high}")))
        return await self._query(above_name, kind, filters, _DOCUMENT, limit)

    async def ordered(self, kind: str, field: str, after: str, below: str, limit: int) -> Sequence[Entity]:
        """See `Entities`: by the index that Firestore makes of every field."""
        filters = [
            _filter(field, _FIELD.Operator.GREATER_THAN, types.Value(string_value=after)),
            _filter(field, _FIELD.Operator.LESS_THAN, types.Value(string_value=below)),
        ]
        return await self._query(self._root, kind, filters, field, limit)

    async def _query(self, parent: str, kind: str, filters: Sequence[Any], order: str, limit: int) -> Sequence[Entity]:
        """One `RunQuery`: what fits all filters."""
        all_of = types.StructuredQuery.CompositeFilter(op=types.StructuredQuery.CompositeFilter.Operator.AND, filters=filters)
        query = types.StructuredQuery(
            from_=[types.StructuredQuery.CollectionSelector(collection_id=kind)],
            where=types.StructuredQuery.Filter(composite_filter=all_of),
            order_by=[types.StructuredQuery.Order(field=_reference(order))],
            limit=limit,
        )
        request = types.RunQueryRequest(parent=parent, structured_query=query)
        answers = await self._answers(self._client.run_query, request)
        if not any(answer.read_time for answer in answers):
            raise channel.garbled(self._place, writing=False)
        return [self._entity(answer.document) for answer in answers if "document" in answer]

    async def _answers(self, call: Callable[..., Awaitable[AsyncIterable[Any]]], request: Any) -> Sequence[Any]:
        """All of a stream."""
        try:
            answers = [answer async for answer in await call(request, **self._call)]
        except (GoogleAPICallError, GoogleAuthError) as error:
            raise channel.mapped(error, self._place, writing=False) from error
        if None in answers:
            raise channel.garbled(self._place, writing=False)
        return answers

    async def commit(self, writes: Sequence[Write]) -> Sequence[Version]:
        """See `Entities`: one `Commit`, without a transaction, which applies all or nothing."""
        request = types.CommitRequest(database=self._database, writes=[self._write(write) for write in writes])
        try:
            answer = await self._client.commit(request, **self._call)
        except (GoogleAPICallError, GoogleAuthError) as error:
            raise channel.mapped(error, self._place, writing=True) from error
        if answer is None or len(answer.write_results) != len(writes):
            raise channel.garbled(self._place, writing=True)
        return [result.update_time for result in answer.write_results]

    def _write(self, write: Write) -> Any:
        name = self._name(write.path)
        what: dict[str, Any] = (
            {"delete": name} if write.fields is None else {"update": types.Document(name=name, fields=_fields(write.fields))}
        )
        if isinstance(write.on, Absent):
            what["current_document"] = types.Precondition(exists=False)
        elif write.on is not None:
            what["current_document"] = types.Precondition(update_time=write.on)
        return types.Write(**what)

    async def close(self) -> None:
        """See `Entities`."""
        await self._client.transport.close()


def _fields(fields: Fields) -> dict[str, Any]:
    return {name: _typed(value) for name, value in fields.items()}


def _typed(value: Value | Unread) -> Any:
    if isinstance(value, types.Value):
        return value
    if isinstance(value, bytes):
        return types.Value(bytes_value=value)
    if isinstance(value, str):
        return types.Value(string_value=value)
    if isinstance(value, int):
        return types.Value(integer_value=value)
    return types.Value(array_value=types.ArrayValue(values=[types.Value(string_value=one) for one in value]))


def _plain(name: str, value: Any) -> Value | Unread:
    if name not in KNOWN:
        return value
    if "bytes_value" in value:
        return bytes(value.bytes_value)
    if "integer_value" in value:
        return int(value.integer_value)
    if "array_value" in value:
        return [str(one.string_value) for one in value.array_value.values]
    return str(value.string_value)


def _reference(field: str) -> Any:
    return types.StructuredQuery.FieldReference(field_path=field)


def _filter(field: str, operator: Any, value: Any) -> Any:
    return types.StructuredQuery.Filter(field_filter=_FIELD(field=_reference(field), op=operator, value=value))


def _equal(field: str, value: str | int) -> Any:
    """A string is looked for in a list, a number is the field itself."""
    operator = _FIELD.Operator.ARRAY_CONTAINS if isinstance(value, str) else _FIELD.Operator.EQUAL
    return _filter(field, operator, _typed(value))
