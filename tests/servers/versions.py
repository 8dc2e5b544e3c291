"""Other versions of servers than those that all suites run on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any

from tests.servers.etcd import CACHE, Etcd, cached
from tests.servers.postgresql import PostgreSQL
from tests.servers.valkey import Valkey


class PostgreSQL15(PostgreSQL):
    """The version of Debian 12, where it is installed."""

    name = "postgresql-15"
    install = "apt-get install postgresql-15"
    obtainable = False

    @classmethod
    def program(cls) -> str:
        return cached(cls, "/usr/lib/postgresql/15/bin/postgres")


class Redis7(Valkey):
    """Redis itself, of Debian 12: 7.0."""

    name = "redis-7"
    install = "python3 dev.py fetch"

    @classmethod
    def program(cls) -> str:
        return cached(cls, "redis/usr/bin/redis-server")

    def spawn(self, node: str, command: Sequence[str], **popen: Any) -> None:
        folders = [str(folder) for place in ("lib", "usr/lib") for folder in (CACHE / "redis" / place).glob("*-linux-*")]
        super().spawn(node, command, env=os.environ | {"LD_LIBRARY_PATH": ":".join(folders)}, **popen)


class Etcd36(Etcd):
    """Built from its source, where Go is."""

    name = "etcd-3.6"
    install = "python3 dev.py fetch (with Go)"
    obtainable = shutil.which("go") is not None

    @classmethod
    def program(cls) -> str:
        return cached(cls, "etcd-3.6/etcd")
