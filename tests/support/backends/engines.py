"""The engines that need a server: one row each, and every shared suite runs over all rows."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import perdure
import perdure.cli
import perdure.sync
from tests.servers.azurite import Azurite
from tests.servers.cassandra import Cassandra, CassandraCluster
from tests.servers.etcd import Etcd, EtcdCluster
from tests.servers.fake_gcs import FakeGCS
from tests.servers.google import DatastoreEmulator, FirestoreEmulator
from tests.servers.ministack import MiniStack
from tests.servers.mongodb import MongoDB, MongoDBSet
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgresql import PostgreSQL, PostgreSQLStandby
from tests.servers.process import Server
from tests.servers.seaweedfs import SeaweedFS
from tests.servers.valkey import Valkey, ValkeyCluster


@dataclass(frozen=True)
class Engine:
    """An engine on a real server. `option` is the part of the URL that gives a test data of its own on a shared server."""

    name: str
    server: type[Server]
    option: Callable[[str], str] = "namespace={}".format
    one_address: bool = True
    """Whether clients talk to the one address in the URL, so that a proxy can stand in between."""
    survives: bool = True
    """Whether the server's data outlive a kill -9; those of an emulator may not."""
    slow: str = ""
    """Why all tests on it are slow ones, if they are."""

    def __repr__(self) -> str:
        return self.name

    def url(self, server: Server, namespace: str | None = None) -> str:
        """A URL of this server for data that no other test sees."""
        mark = "&" if "?" in server.url else "?"
        return server.url + mark + self.option(namespace or f"t{uuid4().hex[:12]}")


ENGINES: list[Engine] = [
    Engine("postgresql", PostgreSQL),
    Engine("postgresql-standby", PostgreSQLStandby),
    Engine("pgbouncer", PgBouncer),
    Engine("valkey", Valkey),
    Engine("valkey-cluster", ValkeyCluster, one_address=False),
    Engine("mongodb", MongoDB),
    Engine("mongodb-set", MongoDBSet, one_address=False),
    Engine("dynamodb", MiniStack, survives=False),
    Engine("etcd", Etcd),
    Engine("etcd-cluster", EtcdCluster, one_address=False),
    Engine("cassandra", Cassandra),
    Engine("seaweedfs", SeaweedFS),
    Engine("fake-gcs", FakeGCS, survives=False),
    Engine("azurite", Azurite, survives=False),
    Engine("firestore", FirestoreEmulator, survives=False),
    Engine("datastore", DatastoreEmulator, survives=False),
    Engine("cassandra-buckets", Cassandra, "bucket=3&namespace={}".format, slow="many Paxos rounds"),
    Engine("cassandra-cluster", CassandraCluster, one_address=False, slow="three JVMs"),
]
"""All engines that need a server, in the order of the documentation."""


def diagnosis(url: str) -> dict[str, Any]:
    """What `perdure doctor` says of a store, with its exit code as `status`. The store is made where it can be: doctor makes nothing.

    In a thread of its own, for the command runs a loop and the test may have one.
    """
    with suppress(perdure.Error):
        perdure.sync.open(url).close()
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err), ThreadPoolExecutor(1) as thread:
        status = thread.submit(perdure.cli.run, ["doctor", "--json", "--url", url]).result(60)
    for stream in (out, err):
        stream.flush()
    assert not err.buffer.getvalue()  # type: ignore[attr-defined]
    return {**json.loads(out.buffer.getvalue()), "status": status}  # type: ignore[attr-defined]
