"""The manifest of Kubernetes, applied to a cluster of the tests' own, and what they ask of its pods."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rdatatype
import pytest
import yaml

from tests.servers.fixture import started
from tests.servers.kube_api import Namespaced
from tests.servers.kubernetes import Kubernetes
from tests.servers.namespace import Namespace
from tests.servers.process import HOST
from tests.support.docs.pages import ROOT
from tests.support.needs import missing

PATIENCE = 240
"""Seconds for what pods that start and end have to do first, on a busy machine."""
HPA, PDB, DEPLOYMENT = "autoscaling/v2/HorizontalPodAutoscaler", "policy/v1/PodDisruptionBudget", "apps/v1/Deployment"
MANIFESTS: list[Any] = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "perdure.yaml").read_text()))


def manifest(kind: str) -> Any:
    """The only manifest of a kind."""
    (found,) = (each for each in MANIFESTS if each["kind"] == kind)
    return found


class Deployed(Namespaced):
    """A namespace with what the manifests make. `store`: the URL of the pods' store; `token`: lets its holder read and append there."""

    store: str
    token: str

    def names(self) -> set[str]:
        """The names in the DNS of the pods that are ready and stay."""
        suffix = f"perdure.{self.name}.svc.cluster.local"
        return {f"{pod['status']['podIP'].replace('.', '-')}.{suffix}" for pod in self.ready()}

    def average(self) -> float | None:
        """The requests in progress for each pod, as the autoscaler saw them last; `None`: it has not yet."""
        metrics = self.get(HPA, "perdure")["status"].get("currentMetrics") or []
        seen = next((each["pods"]["current"]["averageValue"] for each in metrics if each["type"] == "Pods"), None)
        return None if seen is None else int(seen.removesuffix("m")) / (1000 if seen.endswith("m") else 1)

    def knows_all_metrics(self) -> bool:
        """Whether the autoscaler got each of its metrics when it asked last."""
        conditions = {each["type"]: each["status"] for each in self.get(HPA, "perdure")["status"]["conditions"]}
        return conditions["ScalingActive"] == "True"

    def scale(self, count: int) -> None:
        """So many pods are wanted from now on."""
        self.change(DEPLOYMENT, "perdure", {"spec": {"replicas": count}}, "scale")


class Cluster:
    """A cluster, and the network that it is seen from."""

    def __init__(self, network: Namespace, kube: Kubernetes) -> None:
        self.network, self.kube = network, kube

    def wait(self, what: str, check: Callable[[], object]) -> None:
        """Until it is so; a pod that ended wrongly meanwhile is an error."""
        try:
            self.kube.wait(what, check, PATIENCE)
        finally:
            self.kube.kubelet.check()

    @contextmanager
    def deployed(self, name: str, folder: Path, without: Collection[str] = ()) -> Iterator[Deployed]:
        """All manifests but these kinds, in a namespace of their own; taken away in the end, when every pod has to end as it should."""
        place = Deployed(self.kube.api, name)
        place.store = f"sqlite:///{folder}/store.db"
        command = [sys.executable, "-m", "perdure", "tokens", "create", place.store, "--tenant", "default", "--scope", "read,append"]
        place.token = json.loads(subprocess.check_output(command))["token"]
        self.wait("its account is made", lambda: place.get("ServiceAccount", "default"))
        place.api.ask("POST", place.path("Secret"), {"metadata": {"name": "perdure"}, "stringData": {"PERDURE_URL": place.store}})
        for each in MANIFESTS:
            if f"{each['apiVersion']}/{each['kind']}" not in without:
                place.api.apply(each, name)
        try:
            yield place
        finally:
            for kind in {HPA, DEPLOYMENT} - set(without):
                place.api.ask("DELETE", place.path(kind, "perdure"), {"propagationPolicy": "Background"})
            self.wait("all pods are gone", lambda: not place.list("Pod"))

    def records(self, place: Deployed) -> set[str]:
        """What the SRV records of the headless service name."""
        name = f"_perdure._tcp.perdure.{place.name}.svc.cluster.local"
        query = dns.message.make_query(name, dns.rdatatype.SRV)
        answer = dns.query.udp(query, HOST, port=self.kube.port("dns"), timeout=2)
        return {record.target.to_text(omit_final_dot=True) for found in answer.answer for record in found}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster in a network of its own."""
    if reason := Namespace.missing():
        missing(reason)
    network, mine = Namespace(), list[Any]()
    try:
        yield Cluster(network, network.run(lambda: started(Kubernetes, tmp_path_factory, mine)))
    finally:
        for server in mine:
            network.run(server.stop)
        network.close()


def inside(test: Callable[..., Any]) -> Callable[..., None]:
    """A test that runs in the network of its fixture `cluster`."""

    @functools.wraps(test)
    def run(cluster: Cluster, **fixtures: Any) -> None:
        def work() -> None:
            done = test(cluster=cluster, **fixtures)
            if inspect.iscoroutine(done):
                asyncio.run(asyncio.wait_for(done, 600))

        cluster.network.run(work)

    return run


@contextmanager
def held(pod: Any, token: str, count: int) -> Iterator[None]:
    """So many requests in progress at a pod: their bodies never come."""
    head = f"POST /v1/sessions/held/commits HTTP/1.1\r\nHost: pod\r\nAuthorization: Bearer {token}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection((pod["status"]["podIP"], 8420), 60))
            connection.sendall(head.encode())
        yield
