"""MongoDB: each collection with its options, indexes and documents, as extended JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bson import json_util
from pymongo import MongoClient
from pymongo.collection import Collection

from tests.servers.mongodb import MongoDB
from tests.support.golden.places import Dump, fresh

DATABASE = "perdure"
Doc = dict[str, Any]


class MongoDBCollections:
    """The collections whose names begin with `NAMESPACE.`."""

    def __init__(self, server: MongoDB, _: Path) -> None:
        self._namespace = fresh()
        self._server = server.url
        self.url = f"{server.url}&namespace={self._namespace}"

    def dump(self) -> Dump:
        """See `Place`."""
        prefix = f"{self._namespace}."
        with MongoClient[Doc](self._server) as client:
            database = client[DATABASE]
            found = sorted(database.list_collections(filter={"name": {"$regex": f"^{prefix}"}}), key=lambda about: about["name"])
            return {about["name"].removeprefix(prefix): _collection(database[about["name"]], about) for about in found}

    def load(self, dump: Dump) -> None:
        """See `Place`."""
        with MongoClient[Doc](self._server) as client:
            database = client[DATABASE]
            for name, about in dump.items():
                whole = f"{self._namespace}.{name}"
                database.command({"create": whole, **_plain(about["options"])})
                if indexes := _plain(about["indexes"]):
                    database.command({"createIndexes": whole, "indexes": indexes})
                if documents := _plain(about["documents"]):
                    database[whole].insert_many(documents)


def _collection(collection: Collection[Doc], about: Doc) -> Dump:
    indexes = [dict(index) for index in collection.list_indexes() if index["name"] != "_id_"]
    documents = list(collection.find(sort=[("_id", 1)]))
    return {"options": _json(about["options"]), "indexes": _json(indexes), "documents": _json(documents)}


def _json(value: Any) -> str:
    return json_util.dumps(value, json_options=json_util.CANONICAL_JSON_OPTIONS)


def _plain(value: str) -> Any:
    return json_util.loads(value, json_options=json_util.CANONICAL_JSON_OPTIONS)
