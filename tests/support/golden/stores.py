"""The layouts that stores can have: one row each, with the server that a place of it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.cassandra import Cassandra
from tests.servers.etcd import Etcd
from tests.servers.google import DatastoreEmulator, FirestoreEmulator
from tests.servers.ministack import MiniStack
from tests.servers.mongodb import MongoDB
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server
from tests.servers.seaweedfs import SeaweedFS
from tests.servers.valkey import Valkey
from tests.support.golden.cassandra import CassandraKeyspace
from tests.support.golden.dynamodb import DynamoDBTable
from tests.support.golden.etcd import EtcdKeys
from tests.support.golden.files import ObjectsBucket, ObjectsFolder, SQLiteFile
from tests.support.golden.google import DatastoreEntities, FirestoreDocuments
from tests.support.golden.mongodb import MongoDBCollections
from tests.support.golden.places import Place
from tests.support.golden.postgresql import PostgreSQLSchema
from tests.support.golden.redis import RedisKeys


@dataclass(frozen=True)
class Golden:
    """A golden store: the file of its dump, and where it can be loaded."""

    name: str
    place: Callable[[Any, Path], Place]
    """An empty place on a running server of the kind `server`, or in a folder."""
    server: type[Server] | None = None
    layout: str = ""
    """The dump's name, where another's is loaded."""

    def __repr__(self) -> str:
        return self.name

    def file(self, folder: Path) -> Path:
        """Where its dump is."""
        return folder / f"{self.layout or self.name}.json.xz"


GOLDEN = [
    Golden("sqlite", SQLiteFile),
    Golden("postgresql", PostgreSQLSchema, PostgreSQL),
    Golden("redis", RedisKeys, Valkey),
    Golden("mongodb", MongoDBCollections, MongoDB),
    Golden("dynamodb", DynamoDBTable, MiniStack),
    Golden("etcd", EtcdKeys, Etcd),
    Golden("cassandra", CassandraKeyspace, Cassandra),
    Golden("objects", ObjectsFolder),
    Golden("objects-s3", ObjectsBucket, SeaweedFS, layout="objects"),
    Golden("firestore", FirestoreDocuments, FirestoreEmulator),
    Golden("datastore", DatastoreEntities, DatastoreEmulator),
]
"""In the order of the documentation."""
