"""Firestore and Datastore, asked over REST: the entities of a store, by path."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from tests.servers.google import DatastoreEmulator, FirestoreEmulator
from tests.servers.process import HOST
from tests.support.golden.places import Dump, fresh

AT_ONCE = 40
BYTES_AT_ONCE = 4 << 20


class _Service:
    def __init__(self, server: FirestoreEmulator, _: Path) -> None:
        self._root = f"http://{HOST}:{server.port('emulator')}/v1/projects/test"
        self._namespace = fresh()
        self.url = f"{server.url}&namespace={self._namespace}"

    def _ask(self, path: str, body: Any) -> Any:
        headers = {"Authorization": "Bearer owner", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._root}{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())


class FirestoreDocuments(_Service):
    """All documents below the one of the namespace."""

    @property
    def _place(self) -> str:
        return f"projects/test/databases/(default)/documents/perdure/{self._namespace}"

    def dump(self) -> Dump:
        """See `Place`."""
        query = {"structuredQuery": {"from": [{"allDescendants": True}]}}
        answers = self._ask(f"/databases/(default)/documents/perdure/{self._namespace}:runQuery", query)
        found = [answer["document"] for answer in answers if "document" in answer]
        return {"documents": sorted([document["name"].removeprefix(f"{self._place}/"), document["fields"]] for document in found)}

    def load(self, dump: Dump) -> None:
        """See `Place`."""
        for part in _parts(dump["documents"]):
            writes = [{"update": {"name": f"{self._place}/{name}", "fields": fields}} for name, fields in part]
            self._ask("/databases/(default)/documents:commit", {"writes": writes})


class DatastoreEntities(_Service):
    """All entities of the namespace."""

    def __init__(self, server: DatastoreEmulator, folder: Path) -> None:
        super().__init__(server, folder)
        self._partition = {"projectId": "test", "namespaceId": self._namespace}

    def dump(self) -> Dump:
        """See `Place`."""
        found: list[Any] = []
        query: dict[str, Any] = {}
        while True:
            batch = self._ask(":runQuery", {"partitionId": self._partition, "query": query})["batch"]
            found += [result["entity"] for result in batch.get("entityResults", [])]
            if batch["moreResults"] == "NO_MORE_RESULTS" or not batch.get("entityResults"):
                break
            query = {"startCursor": batch["endCursor"]}
        return {"entities": sorted(([entity["key"]["path"], entity["properties"]] for entity in found), key=json.dumps)}

    def load(self, dump: Dump) -> None:
        """See `Place`."""
        for part in _parts(dump["entities"]):
            entities = [{"key": {"partitionId": self._partition, "path": path}, "properties": properties} for path, properties in part]
            mutations = [{"upsert": entity} for entity in entities]
            self._ask(":commit", {"mode": "NON_TRANSACTIONAL", "mutations": mutations})


def _parts(found: list[Any]) -> list[list[Any]]:
    """Entities for one commit each: so many, and so large."""
    parts: list[list[Any]] = [[]]
    size = 0
    for one in found:
        weight = len(json.dumps(one))
        if parts[-1] and (len(parts[-1]) == AT_ONCE or size + weight > BYTES_AT_ONCE):
            parts.append([])
            size = 0
        parts[-1].append(one)
        size += weight
    return parts
