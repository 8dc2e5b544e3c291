"""Calls to the API of Kubernetes, as a client library makes them: JSON over HTTPS, with the cluster's own answers and refusals."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

STRATEGIC, MERGE = "application/strategic-merge-patch+json", "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


class Refused(Exception):
    """What the API refused, with its status and its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """An API server, for one who may do anything."""

    def __init__(self, server: str, token: str, certificate: str) -> None:
        self.server, self._token, self._certificate = server, token, certificate

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json", **query: Any) -> Any:
        """One request and its answer. Raises `Refused`."""
        with self._open(method, path, body, kind, query) as answer:
            text = answer.read()
        return json.loads(text) if text.startswith(b"{") else text.decode()

    def watch(self, path: str, version: str, **query: Any) -> Iterator[Any]:
        """Changes after a version, for half a minute."""
        with self._open("GET", path, None, "", {**query, "watch": 1, "timeoutSeconds": 30, "resourceVersion": version}) as answer:
            yield from map(json.loads, answer)

    def _open(self, method: str, path: str, body: Any, kind: str, query: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        request = Request(f"{self.server}{path}?{urlencode(query)}", data, headers, method=method)
        try:
            return urlopen(request, timeout=60, context=ssl.create_default_context(cafile=self._certificate))
        except HTTPError as error:
            with error:
                raise Refused(error.code, json.loads(error.read() or b"{}").get("message", error.reason)) from None

    def apply(self, manifest: Any, namespace: str) -> Any:
        """Server-side apply, as `kubectl apply --server-side --validate=strict` does it. Raises `Refused`, for an unknown field too."""
        path = f"{place(manifest, namespace)}/{manifest['metadata']['name']}"
        return self.ask("PATCH", path, manifest, APPLY, fieldManager="test", fieldValidation="Strict")


class Namespaced:
    """The objects of a namespace that this makes."""

    def __init__(self, api: Api, name: str) -> None:
        self.api, self.name = api, name
        api.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    def path(self, kind: str, name: str = "") -> str:
        """The path of a kind, `Pod` or `apps/v1/Deployment`, and of one of them."""
        version, _, word = kind.rpartition("/")
        return f"{place({'apiVersion': version or 'v1', 'kind': word}, self.name)}/{name}".rstrip("/")

    def get(self, kind: str, name: str) -> Any:
        """One object. Raises `Refused`."""
        return self.api.ask("GET", self.path(kind, name))

    def list(self, kind: str) -> list[Any]:
        """All of a kind."""
        found: list[Any] = self.api.ask("GET", self.path(kind))["items"]
        return found

    def change(self, kind: str, name: str, change: Any, part: str = "") -> Any:
        """Change some of an object, or of a part such as `scale`. Raises `Refused`."""
        return self.api.ask("PATCH", f"{self.path(kind, name)}{part and f'/{part}'}", change, MERGE)

    def ready(self) -> list[Any]:
        """The pods that are ready and stay."""
        return [pod for pod in self.list("Pod") if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]


def is_ready(pod: Any) -> bool:
    """Whether a pod's condition says so."""
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))


def place(manifest: Any, namespace: str) -> str:
    """The path of an object's kind."""
    version, kind = manifest["apiVersion"], manifest["kind"].lower()
    return f"/{'apis' if '/' in version else 'api'}/{version}/namespaces/{namespace}/{kind}s"
