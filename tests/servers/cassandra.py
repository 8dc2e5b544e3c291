"""Cassandra: one node, or three on loopback addresses of their own; a node that is killed comes back with its data."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tests.servers.process import Missing, Server, free_port

if TYPE_CHECKING:
    from cassandra.cluster import Cluster, Session

CACHE = Path(os.environ.get("PERDURE_TEST_SERVERS") or Path.home() / ".cache" / "perdure-test-servers")
SETTINGS = """\
cluster_name: perdure
num_tokens: 1
initial_token: "{token}"
auto_bootstrap: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
dynamic_snitch: false
listen_address: {host}
rpc_address: {host}
storage_port: {peers}
native_transport_port: {port}
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: "{seeds}"}}]
data_file_directories: [{folder}/data]
commitlog_directory: {folder}/commitlog
saved_caches_directory: {folder}/caches
hints_directory: {folder}/hints
cdc_raw_directory: {folder}/cdc
commitlog_segment_size: 8MiB
commitlog_total_space: 64MiB
memtable_heap_space: 48MiB
memtable_offheap_space: 48MiB
file_cache_size: 32MiB
concurrent_reads: 8
concurrent_writes: 16
concurrent_compactors: 1
auto_snapshot: false
paxos_variant: {paxos}
{commitlog}
{more}
"""
COMMITLOG = {
    "batch": "commitlog_sync: batch",
    "group": "commitlog_sync: group\ncommitlog_sync_group_window: 5ms",
    "periodic": "commitlog_sync: periodic\ncommitlog_sync_period: 1000ms",
}
JAVA = """\
-Xms192m -Xmx384m -Xss512k -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+PerfDisableSharedMem -XX:+ExitOnOutOfMemoryError
-Djava.net.preferIPv4Stack=true -Djava.awt.headless=true -Djdk.attach.allowAttachSelf=true -Dio.netty.tryReflectionSetAccessible=true
-Dcassandra-foreground=yes -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.ring_delay_ms=1000
-Dcassandra.shutdown_announce_in_ms=0 -Dcassandra.superuser_setup_delay_ms=0 -Dcassandra.consistent.rangemovement=false
"""
EXPORTED = "java.base/jdk.internal.misc java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry"
EXPORTED += " java.rmi/sun.rmi.server java.sql/java.sql java.base/java.lang.ref jdk.unsupported/sun.misc jdk.attach/sun.tools.attach"
OPENED = "java.base/java.lang.module java.base/jdk.internal.loader java.base/jdk.internal.ref java.base/jdk.internal.reflect"
OPENED += " java.base/jdk.internal.math java.base/jdk.internal.module java.base/jdk.internal.util.jar java.base/sun.nio.ch"
OPENED += " java.base/java.io java.base/java.lang.reflect java.base/java.lang java.base/java.util java.base/java.util.concurrent"
OPENED += " java.base/java.util.concurrent.atomic java.base/java.nio jdk.management/com.sun.management.internal"
LOGGING = """\
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %-5level %logger - %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="out"/></root>
</configuration>
"""


class Cassandra(Server):
    """One node that syncs its commit log before it answers, as tests of durability need; upstream's default is periodic."""

    name = "cassandra"
    install = "python3 dev.py fetch"
    members: ClassVar[int] = 1
    paxos: ClassVar[str] = "v1"
    """Upstream's default."""
    commitlog: ClassVar[str] = "batch"
    more: ClassVar[str] = ""
    """Further lines of cassandra.yaml."""

    login: ClassVar[tuple[str, str] | None] = None

    @classmethod
    def program(cls) -> str:
        jars = CACHE / "cassandra"
        if not jars.exists():
            raise Missing(f"{cls.name} is not installed: {cls.install}")
        return cls.found("", "java")

    @property
    def names(self) -> list[str]:
        return [f"n{number}" for number in range(1, self.members + 1)]

    @property
    def hosts(self) -> list[str]:
        return [self.host(node) for node in self.names]

    def host(self, node: str) -> str:
        return f"127.0.0.{node[1:]}" if self.network is None else super().host(node)

    @property
    def cql(self) -> int:
        """The port for clients, the same on all nodes."""
        return self.common(self.names[0])

    @property
    def url(self) -> str:
        return f"cassandra://{','.join(self.hosts)}:{self.cql}/perdure?replication={self.members}"

    def common(self, name: str) -> int:
        """The port of that name, free on the addresses of all nodes when it was first asked for."""
        while name not in self._ports:
            port = free_port()
            if self.network is not None or all(_free(address, port) for address in self.hosts):
                self._ports[name] = port
        return self._ports[name]

    def start(self) -> None:
        (self.folder / "logback.xml").write_text(LOGGING)
        for node in self.names:
            self.launch(node)
        self.wait("a cluster that agrees", self.healthy)

    def launch(self, node: str) -> None:
        """Start one node; it is not waited for."""
        folder = self.folder / node
        (folder / "triggers").mkdir(parents=True, exist_ok=True)
        peers = self.common("peers")
        token = -(2**63) + 1 + 2**64 // self.members * self.names.index(node)
        seeds = ",".join(f"{address}:{peers}" for address in self.hosts)
        settings = SETTINGS.format(
            token=token, host=self.host(node), peers=peers, port=self.cql, seeds=seeds, folder=folder, paxos=self.paxos,
            commitlog=COMMITLOG[self.commitlog], more=self.more,
        )  # fmt: skip
        (folder / "cassandra.yaml").write_text(settings)
        options = [*JAVA.split(), *(f"--add-exports={name}=ALL-UNNAMED" for name in EXPORTED.split())]
        options += [f"--add-opens={name}=ALL-UNNAMED" for name in OPENED.split()]
        options += [f"-Dlogback.configurationFile={self.folder}/logback.xml", f"-Dcassandra.config=file://{folder}/cassandra.yaml"]
        options += [f"-Dcassandra.storagedir={folder}", f"-Dcassandra.logdir={folder}", f"-Dcassandra.triggers_dir={folder}/triggers"]
        jars = ":".join(str(jar) for jar in sorted((CACHE / "cassandra").glob("*.jar")))
        self.spawn(node, [self.program(), *options, "-cp", jars, "org.apache.cassandra.service.CassandraDaemon"])

    def healthy(self) -> bool:
        """Whether every node serves, sees all others up and has their schema."""
        for node in self.names:
            with self.cluster(node) as cluster:
                session = cluster.connect()
                schemas = {row[0] for row in session.execute("SELECT schema_version FROM system.local")}
                peers = list(session.execute("SELECT schema_version, tokens FROM system.peers_v2"))
                if len(peers) != self.members - 1 or not all(tokens for _, tokens in peers):
                    return False
                if len(schemas | {schema for schema, _ in peers}) != 1:
                    return False
                if self.members > 1 and not self._reaches_all(session):
                    return False
        return True

    def _reaches_all(self, session: Session) -> bool:
        """Whether a read that needs every replica is answered: system_distributed has three."""
        from cassandra import ConsistencyLevel
        from cassandra.query import SimpleStatement

        text = "SELECT status FROM system_distributed.view_build_status WHERE keyspace_name = 'x' AND view_name = 'x'"
        session.execute(SimpleStatement(text, consistency_level=ConsistencyLevel.ALL))
        return True

    def cluster(self, node: str = "n1") -> Cluster:
        """A client of one node."""
        from cassandra.auth import PlainTextAuthProvider
        from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
        from cassandra.policies import ConstantReconnectionPolicy, WhiteListRoundRobinPolicy

        profile = ExecutionProfile(WhiteListRoundRobinPolicy([self.host(node)]), request_timeout=10, row_factory=lambda _, rows: rows)
        return Cluster(
            [self.host(node)],
            port=self.cql,
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            reconnection_policy=ConstantReconnectionPolicy(0.5, max_attempts=None),
            connect_timeout=2,
            auth_provider=PlainTextAuthProvider(*self.login) if self.login else None,
            protocol_version=4,
            schema_metadata_enabled=False,
        )

    def query(self, text: str, node: str = "n1") -> list[tuple[object, ...]]:
        """What a statement of another client gives."""
        with self.cluster(node) as cluster:
            return list(cluster.connect().execute(text) or [])


class CassandraCluster(Cassandra):
    """Three nodes, with the newer Paxos."""

    name = "cassandra-cluster"
    members = 3
    paxos = "v2"


def _free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
