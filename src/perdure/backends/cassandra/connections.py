"""The driver's cluster: how it connects, whom it asks, and that it repeats nothing."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from cassandra import DriverException, ProtocolVersion
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, DefaultConnection, ExecutionProfile, NoHostAvailable, Session
from cassandra.connection import ConnectionShutdown
from cassandra.policies import ConstantReconnectionPolicy, DCAwareRoundRobinPolicy, FallthroughRetryPolicy, TokenAwarePolicy
from cassandra.query import tuple_factory

from perdure.backends.cassandra.client import RECONNECT_SECONDS, mapped
from perdure.backends.remote import Address

PORT = 9042
HEARTBEAT_SECONDS = (2, 4)
"""How often a connection that is silent is asked whether it lives, and how long it may take to say so."""


class Connection(DefaultConnection):  # type: ignore[misc]
    """A connection that is closed while it is being made fails at once; the driver's own waits for its whole time-out."""

    last_error: Exception | None

    def close(self) -> None:
        """See the driver."""
        super().close()
        if not self.connected_event.is_set():
            self.last_error = self.last_error or ConnectionShutdown(f"Connection to {self.endpoint} was closed", self.endpoint)
            self.connected_event.set()


class _AnotherNode(FallthroughRetryPolicy):  # type: ignore[misc]
    """A node that says it cannot reach enough replicas has done nothing, and another one may reach them: it is asked, once. For reads and
    unconditional writes; a conditional one may have gone further than its node says."""

    def on_unavailable(self, *_: object, retry_num: int, **__: object) -> tuple[int, int | None]:
        """See the client library."""
        return (self.RETHROW, None) if retry_num else (self.RETRY_NEXT_HOST, None)


def new_cluster(address: Address, points: Sequence[tuple[str, int]], security: ssl.SSLContext | None) -> Cluster:
    """A cluster that is not connected yet. `address` has the options of the URL."""
    options = address.options
    profile = ExecutionProfile(
        # Any replica: the first one may be cut off from the others, and a session that is always its own would stand still.
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(options["datacenter"]), shuffle_replicas=True),
        retry_policy=_AnotherNode(),
        row_factory=tuple_factory,
        request_timeout=options["timeout"],
    )
    cluster = Cluster(
        points,
        port=points[-1][1],
        auth_provider=None if address.user is None else PlainTextAuthProvider(address.user, address.password or ""),
        ssl_context=security,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        reconnection_policy=ConstantReconnectionPolicy(RECONNECT_SECONDS, max_attempts=None),
        connect_timeout=options["connect_timeout"],
        control_connection_timeout=options["connect_timeout"],
        idle_heartbeat_interval=HEARTBEAT_SECONDS[0],
        idle_heartbeat_timeout=HEARTBEAT_SECONDS[1],
        monitor_reporting_enabled=False,
        prepare_on_all_hosts=False,  # A node that does not know a statement says so, before it does anything.
        reprepare_on_up=False,
        protocol_version=ProtocolVersion.V4,  # Every Cassandra from 3.0 on speaks it; to find the newest would take three connections.
    )
    cluster.connection_class = Connection
    return cluster


def connected(cluster: Cluster, place: str) -> Session:
    """Connect; it blocks. Raises `Unauthorized`, `Unavailable`."""
    try:
        session = cluster.connect()
    except (DriverException, NoHostAvailable, OSError) as error:
        raise mapped(error, f"Cassandra at {place}", writes=False) from error
    session.default_fetch_size = None  # Every statement has a limit of its own.
    return session
