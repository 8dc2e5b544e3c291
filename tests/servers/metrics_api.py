"""The metrics that an autoscaler of Kubernetes asks for: of requests, what each pod's own /metrics says, as an adapter for Prometheus
hands it on; of processor time, what the test says."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from tests.servers.kube_api import Api, Refused, is_ready
from tests.servers.process import HOST, free_port
from tests.servers.tls import Authority

CUSTOM, RESOURCES = "custom.metrics.k8s.io/v1beta2", "metrics.k8s.io/v1beta1"
REGISTRY, SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices", "/api/v1/namespaces/kube-system/services"
KINDS = {CUSTOM: "MetricValueList", RESOURCES: "PodMetricsList"}


class MetricsApi:
    """Serves `custom.metrics.k8s.io` and `metrics.k8s.io` behind a cluster's API server, which asks it from where it runs itself."""

    def __init__(self, api: Api, authority: Authority) -> None:
        self._api, self.cpu = api, "1m"
        """`cpu`: what each pod uses, as Kubernetes writes it; empty: nobody knows."""
        self._port = free_port()
        self._server = ThreadingHTTPServer((HOST, self._port), self._handler())
        self._server.socket = authority.certificate("localhost").wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def register(self) -> None:
        """Have the API server ask here."""
        port = {"port": self._port}
        service = {"metadata": {"name": "metrics"}, "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [port]}}
        self._api.ask("POST", SERVICES, service)
        for which in KINDS:
            group, _, version = which.partition("/")
            spec = {"group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100, "insecureSkipTLSVerify": True}
            spec["service"] = {"namespace": "kube-system", "name": "metrics", **port}
            self._api.ask("POST", REGISTRY, {"metadata": {"name": f"{version}.{group}"}, "spec": spec})

    def served(self) -> bool:
        """Whether the API server has found both."""
        return all(self._api.ask("GET", f"/apis/{which}")["resources"] for which in KINDS)

    def close(self) -> None:
        """End it; the API server asks here no longer."""
        for which in KINDS:
            group, _, version = which.partition("/")
            with suppress(Refused):
                self._api.ask("DELETE", f"{REGISTRY}/{version}.{group}")
        with suppress(Refused):
            self._api.ask("DELETE", f"{SERVICES}/metrics")
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: list[str], selector: str) -> Any:
        """What stands at `/apis/GROUP/VERSION/…`; `None`: nothing does."""
        which = "/".join(path[1:3])
        if path[0] != "apis" or which not in KINDS:
            return None
        if len(path) == 3:
            name = "pods" if which == RESOURCES else "pods/*"
            resource = {"name": name, "singularName": "", "namespaced": True, "kind": KINDS[which], "verbs": ["get", "list"]}
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": which, "resources": [resource]}
        pods = self._api.ask("GET", f"/api/v1/namespaces/{path[4]}/pods", labelSelector=selector)["items"]
        make = self._resources if which == RESOURCES else self._custom
        known = [pod for pod in pods if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]
        items = [make(pod, path[-1]) for pod in known if self.cpu or which == CUSTOM]
        return {"kind": KINDS[which], "apiVersion": which, "metadata": {}, "items": items}

    def _resources(self, pod: Any, _: str) -> Any:
        usage = [{"name": each["name"], "usage": {"cpu": self.cpu, "memory": "64Mi"}} for each in pod["spec"]["containers"]]
        about = {name: pod["metadata"][name] for name in ("name", "namespace", "labels")}
        return {"metadata": about, "timestamp": _now(), "window": "10s", "containers": usage}

    def _custom(self, pod: Any, metric: str) -> Any:
        about = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}
        return {"describedObject": about, "metric": {"name": metric}, "timestamp": _now(), "value": f"{scraped(pod, metric):g}"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                try:
                    found, status = answer(url.path.strip("/").split("/"), parse_qs(url.query).get("labelSelector", [""])[0]), 200
                except (OSError, LookupError) as error:
                    found, status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": repr(error), "code": 500}, 500
                if found is None:
                    found, status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}, 404
                body = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def scraped(pod: Any, metric: str) -> float:
    """The sum of a metric's samples where the pod's annotations say that its metrics are. Raises `KeyError` where it has none."""
    port = pod["metadata"]["annotations"]["prometheus.io/port"]
    with urlopen(f"http://{pod['status']['podIP']}:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    found = [sample.value for family in families for sample in family.samples if sample.name == metric]
    if not found:
        raise KeyError(metric)
    return sum(found)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
