"""etcd: keys and values, in the order of the revisions that wrote them."""

from __future__ import annotations

import json
import urllib.request
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.servers.etcd import Etcd
from tests.support.golden.places import Dump, data, fresh, text

OPERATIONS, BYTES = 100, 1 << 20
"""What goes in one transaction: etcd takes 128 and 1.5 MiB."""


class EtcdKeys:
    """The keys that begin with `NAMESPACE/`."""

    def __init__(self, server: Etcd, _: Path) -> None:
        self._server = server
        self._namespace = fresh()
        self.url = f"{server.url}?namespace={self._namespace}"

    @property
    def _prefix(self) -> bytes:
        return f"{self._namespace}/".encode()

    def _ask(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(f"{self._server.client(self._server.names[0])}/v3/{path}", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def dump(self) -> Dump:
        """See `Place`. Revisions are counted from 1: the server's own go on for all its keys."""
        end = self._prefix[:-1] + b"0"
        found = self._ask("kv/range", {"key": text(self._prefix), "range_end": text(end)}).get("kvs", [])
        pairs = sorted((int(pair["mod_revision"]), data(pair["key"]), pair.get("value", "")) for pair in found)
        ranks = {revision: rank for rank, revision in enumerate(sorted({pair[0] for pair in pairs}), 1)}
        return {"pairs": [[ranks[revision], text(key.removeprefix(self._prefix)), value] for revision, key, value in pairs]}

    def load(self, dump: Dump) -> None:
        """See `Place`: what one revision wrote is written by one transaction."""
        for _, pairs in groupby(dump["pairs"], key=lambda pair: pair[0]):
            puts = [{"request_put": {"key": text(self._prefix + data(key)), "value": value}} for _, key, value in pairs]
            self._ask("kv/txn", {"success": puts})
