"""Opening a store: what kind of server it is, and its collections, made where they are missing."""

from __future__ import annotations

from types import NoneType

from perdure.backends.common.store_header import StoreHeader, open_header
from perdure.backends.mongodb.connections import Connections
from perdure.backends.mongodb.layout import COLLECTIONS, SESSION, STORE, Doc
from perdure.backends.spi import SCHEMA_VERSION
from perdure.clock import Clock
from perdure.errors import Unavailable, Unsupported
from perdure.model.commit import Status

VALIDATOR = {"$jsonSchema": {"required": ["created"]}}
"""Sessions are written by updates that may insert, so that each says of itself whether it found its head. One that found no session at
all must insert none: it brings no `created`, and the server refuses it."""
_INDEXES = [
    {"name": "tags", "key": {"tags": 1, "_id": 1}, "partialFilterExpression": {"tags": {"$exists": True}}},
    {"name": "status", "key": {"status": 1, "_id": 1}, "partialFilterExpression": {"status": {"$gt": int(Status.active)}}},
    {"name": "news", "key": {"news": 1}, "partialFilterExpression": {"news": True}},
]
DUE_INDEX = {"name": "due", "key": {"due_at": 1, "_id": 1}, "partialFilterExpression": {"due_at": {"$exists": True}}}
"""Came with schema 2."""
_WIRE_MIN = 17
"""MongoDB 6.0."""
_EXISTS = 48


async def open_store(connections: Connections, clock: Clock, *, create: bool) -> StoreHeader:
    """The store's header; its collections are made where there is none, with `create`. Several may do so at once."""

    async def read() -> Doc | None:
        return await read_store(connections)

    what = f"the collection {connections.collection(STORE)!r} of {connections.database.name!r}"
    return await open_header(
        read,
        lambda id: _make(connections, id),
        _header,
        place=connections.place,
        what=what,
        known=SCHEMA_VERSION,
        clock=clock,
        create=create,
    )


async def read_store(connections: Connections) -> Doc | None:
    """The document of the store."""
    return next(iter(await connections.find(STORE, {"_id": "store"}, certain=True)), None)


async def make_index(connections: Connections, *indexes: Doc) -> None:
    """Make indexes of the sessions; one that is there stays."""
    create = {"createIndexes": connections.collection(SESSION), "indexes": list(indexes), "writeConcern": connections.concern}
    await connections.run(create)


def _header(found: Doc) -> StoreHeader:
    schema, id, least = found["schema"], found["id"], found.get("min_writer")
    if type(schema) is not int or type(id) is not str or type(least) not in (int, NoneType):
        raise TypeError(f"{schema!r}, {id!r}, {least!r}")
    return StoreHeader(schema, id, least)


async def _make(connections: Connections, id: str) -> None:
    for collection in COLLECTIONS:
        rule = {"validator": VALIDATOR} if collection == SESSION else {}
        create = {"create": connections.collection(collection), **rule, "writeConcern": connections.concern}
        await connections.run(create, fine=(_EXISTS,))
    await make_index(connections, *_INDEXES, DUE_INDEX)
    await connections.insert(STORE, [{"_id": "store", "schema": SCHEMA_VERSION, "min_writer": SCHEMA_VERSION, "id": id}])


def check_server(place: str, hello: Doc) -> None:
    """Raise unless this is the primary of a replica set that is new enough."""
    needs = "Perdure needs a replica set (one node is enough): what a majority has on disk is all that a commit can rest on"
    if hello.get("msg") == "isdbgrid":
        raise Unsupported(f"{place!r} is the router of a sharded cluster. {needs}; name a replica set's members instead.")
    if hello.get("isreplicaset"):
        raise Unsupported(f"{place!r} belongs to a replica set that was not initiated: run rs.initiate() in mongosh.")
    if "setName" not in hello:
        raise Unsupported(f"{place!r} stands alone. {needs}: start mongod with --replSet rs0 and run rs.initiate() in mongosh.")
    if hello["maxWireVersion"] < _WIRE_MIN:
        raise Unsupported(f"{place!r} is older than MongoDB 6.0.")
    if hello.get("arbiterOnly"):
        raise Unsupported(f"{place!r} is an arbiter, which holds no data: name the set's other members.")
    if not hello.get("isWritablePrimary"):
        raise Unavailable(f"{place!r} takes no writes, it is no primary: name all members, and leave directConnection out.")
