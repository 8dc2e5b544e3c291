"""Kubernetes, built from its source: its control plane, CoreDNS for cluster.local, and pods as processes of this machine."""

from __future__ import annotations

import json
import secrets
import signal
import sys
from pathlib import Path
from typing import ClassVar
from urllib.request import urlopen

from tests.servers.etcd import cached
from tests.servers.kube_api import Api
from tests.servers.kubelet import Kubelet
from tests.servers.process import HOST, Server
from tests.servers.tls import Authority

CONTROLLERS = "deployment replicaset endpointslice disruption serviceaccount horizontal-pod-autoscaler garbage-collector"
ZONES = {"a": 3, "b": 2, "c": 1}
IMAGES = {"perdure:latest": (sys.executable, "-m", "perdure", "serve")}
"""What runs in place of each image: the ENTRYPOINT of deploy/container/Containerfile, with the Perdure under test."""


class Kubernetes(Server):
    """A cluster with nodes in three zones. It is started in a `Namespace`, whose pods have addresses that are seen from there alone."""

    name: ClassVar[str] = "kubernetes"
    install: ClassVar[str] = "python3 scripts/fetch_servers.py kubernetes etcd-3.6 (with Go; a quarter of an hour of processor time)"
    obtainable: ClassVar[bool] = False
    ending: ClassVar[signal.Signals] = signal.SIGKILL  # The API server waits for those who watch.
    api: Api
    kubelet: Kubelet

    @classmethod
    def program(cls) -> str:
        cached(cls, "etcd-3.6/etcd")
        return cached(cls, "kubernetes/kubernetes")

    @property
    def url(self) -> str:
        """The nodes behind the headless service of the namespace `default`, as `perdure.open` takes them."""
        return self.url_in("default")

    def url_in(self, namespace: str) -> str:
        """The same of another namespace."""
        return f"http+srv://_perdure._tcp.perdure.{namespace}.svc.cluster.local?dns={HOST}:{self.port('dns')}"

    def start(self) -> None:
        token = secrets.token_hex(16)
        server, certificates = f"https://{HOST}:{self.port('api')}", self.folder / "certificates"
        self._write("tokens.csv", f"{token},admin,admin,system:masters\n")
        accounts = Authority(self.folder, "accounts").file("accounts")
        cluster = {"server": server, "certificate-authority": str(certificates / "apiserver.crt")}
        context = {"cluster": "test", "user": "admin"}
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "test", "contexts": [{"name": "test", "context": context}]}
        config |= {"clusters": [{"name": "test", "cluster": cluster}], "users": [{"name": "admin", "user": {"token": token}}]}
        self._write("kubeconfig", json.dumps(config))
        self._start_store()
        self._start_part(
            "kube-apiserver",
            f"--etcd-servers=http://{HOST}:{self.port('etcd')} --advertise-address={HOST} --endpoint-reconciler-type=none",
            f"--service-cluster-ip-range=10.96.0.0/16 --token-auth-file={self.folder}/tokens.csv --authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc --disable-admission-plugins=TaintNodesByCondition",
            f"--service-account-signing-key-file={accounts} --service-account-key-file={accounts}",
        )
        self.api = Api(server, token, str(certificates / "apiserver.crt"))
        self.wait("the API is ready", lambda: self.api.ask("GET", "/readyz") == "ok")
        own = f"--kubeconfig={self.folder}/kubeconfig --leader-elect=false"
        self._start_part(
            "kube-controller-manager",
            f"{own} --service-account-private-key-file={accounts}",
            f"--controllers={','.join(f'{name}-controller' for name in CONTROLLERS.split())}",
            "--horizontal-pod-autoscaler-sync-period=1s --horizontal-pod-autoscaler-initial-readiness-delay=0s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=0s",
        )
        self._start_part("kube-scheduler", own)
        self._start_dns()
        self.kubelet = Kubelet(self.api, self.folder, IMAGES)
        self.kubelet.start(ZONES)
        self.wait("accounts are made", lambda: self.api.ask("GET", "/api/v1/namespaces/default/serviceaccounts/default"))

    def stop(self) -> None:
        if hasattr(self, "kubelet"):
            self.kubelet.stop()
        super().stop()

    def _write(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.touch(0o600)
        file.write_text(text)
        return file

    def _start_store(self) -> None:
        client, peer = (f"http://{HOST}:{self.port(name)}" for name in ("etcd", "etcd peer"))
        flags = f"--name=etcd --data-dir={self.folder}/etcd --log-level=warn --unsafe-no-fsync"
        flags += f" --listen-client-urls={client} --advertise-client-urls={client}"
        flags += f" --listen-peer-urls={peer} --initial-advertise-peer-urls={peer} --initial-cluster=etcd={peer}"
        self.spawn("etcd", [cached(type(self), "etcd-3.6/etcd"), *flags.split()])
        self.wait("etcd is ready", lambda: urlopen(f"{client}/readyz", timeout=2).status == 200)

    def _start_part(self, part: str, *flags: str) -> None:
        port = self.port("api" if part == "kube-apiserver" else part)
        common = f"--bind-address={HOST} --secure-port={port} --cert-dir={self.folder}/certificates --profiling=false"
        self.spawn(part, [self.program(), part, *common.split(), *" ".join(flags).split()])

    def _start_dns(self) -> None:
        known = f"kubernetes cluster.local {{\n  kubeconfig {self.folder}/kubeconfig test\n  ttl 1\n }}"
        ready = f"{HOST}:{self.port('dns ready')}"
        file = self._write("Corefile", f"cluster.local:{self.port('dns')} {{\n bind {HOST}\n errors\n ready {ready}\n {known}\n}}\n")
        self.spawn("coredns", [self.program(), "coredns", "-conf", str(file)])
        self.wait("CoreDNS is ready", lambda: urlopen(f"http://{ready}/ready", timeout=2).status == 200)
