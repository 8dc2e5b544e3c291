"""A small kubelet: nodes in zones, and the pods that are scheduled to them as processes of this machine, each on a host of its own.

done        the only container's image (as a command), args, envFrom with secrets; startup and readiness probes by httpGet; at the end
            preStop by exec, SIGTERM, and SIGKILL at the end of the grace period
not done    images themselves, volumes, rights, limits, liveness; a process that ends unasked is not started again, it is an error
"""

from __future__ import annotations

import base64
import math
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.servers.kube_api import STRATEGIC, Api, Refused
from tests.servers.namespace import GATEWAY, Host

ZONE, HOSTNAME = "topology.kubernetes.io/zone", "kubernetes.io/hostname"


class Kubelet:
    """All nodes of a cluster. It is started within the network that its pods are to be in."""

    def __init__(self, api: Api, folder: Path, images: Mapping[str, Sequence[str]]) -> None:
        """`images`: what runs in place of each, as a command without the args of the manifest. Logs go to the folder."""
        self.api, self.folder, self.images = api, folder, images
        self.pods: dict[str, Pod] = {}
        """By their uid, those that are gone too."""
        self.may_begin = threading.Event()
        self.may_begin.set()
        self.over = threading.Event()
        self._follower = threading.Thread(target=self._follow, daemon=True)

    def start(self, zones: Mapping[str, int]) -> None:
        """Register so many nodes in each zone, and run from now on what is scheduled to them."""
        for zone, count in zones.items():
            for number in range(count):
                name = f"{zone}-{number}"
                room = {"cpu": "8", "memory": "16Gi", "pods": "110"}
                status = {"capacity": room, "allocatable": room, "conditions": [_condition("Ready", true=True)]}
                labels = {ZONE: zone, HOSTNAME: name}
                self.api.ask("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": labels}, "status": status})
        self._follower.start()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """No pod begins meanwhile, as where images take long to come."""
        self.may_begin.clear()
        try:
            yield
        finally:
            self.may_begin.set()

    def stop(self) -> None:
        """End every process at once."""
        self.over.set()
        self.may_begin.set()
        for pod in list(self.pods.values()):
            pod.join(30)

    def check(self) -> None:
        """Raises `AssertionError` for a pod that ended unasked, or was killed for its grace period was over."""
        wrong = {pod.name: f"{pod.wrong}\n{pod.log()}" for pod in self.pods.values() if pod.wrong}
        assert not wrong, "\n".join(f"{name}: {why}" for name, why in wrong.items())

    def _follow(self) -> None:
        which = {"fieldSelector": "spec.nodeName!="}
        while not self.over.is_set():
            with suppress(OSError, HTTPException, ValueError, Refused):  # Where an answer is cut off, it is asked again.
                listed = self.api.ask("GET", "/api/v1/pods", **which)
                for pod in listed["items"]:
                    self._see(pod)
                for event in self.api.watch("/api/v1/pods", listed["metadata"]["resourceVersion"], **which):
                    if event["type"] == "ERROR" or self.over.is_set():
                        break
                    self._see(event["object"])

    def _see(self, found: Any) -> None:
        uid, meta = found["metadata"]["uid"], found["metadata"]
        if uid not in self.pods:
            self.pods[uid] = Pod(self, found, len(self.pods) + 1)
            self.pods[uid].start()
        if "deletionTimestamp" in meta:
            self.pods[uid].grace = meta["deletionGracePeriodSeconds"]
            self.pods[uid].asked.set()


class Pod(threading.Thread):
    """One pod: from the moment that it is scheduled to its end."""

    def __init__(self, kubelet: Kubelet, found: Any, number: int) -> None:
        super().__init__(daemon=True)
        self._kubelet, self._number, meta = kubelet, number, found["metadata"]
        self.name, self.uid, self.grace = meta["name"], meta["uid"], 0
        self.namespace = meta["namespace"]
        self._path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        (self._container,) = found["spec"]["containers"]
        self.asked = threading.Event()
        """Whether it is to end."""
        self.wrong, self.ready = "", False
        self._began = _now()

    @property
    def _file(self) -> Path:
        return self._kubelet.folder / f"{self.name}.log"

    def log(self) -> str:
        """The last lines of what it said."""
        return "\n".join(self._file.read_text(errors="replace").splitlines()[-30:]) if self._file.exists() else ""

    def run(self) -> None:
        try:
            while not (self._kubelet.may_begin.wait(0.05) or self.asked.is_set()):
                pass
            if not self.asked.is_set():
                self._live()
            if not self._kubelet.over.is_set():
                gone = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
                self._kubelet.api.ask("DELETE", self._path, gone)
        except Exception as error:  # noqa: BLE001 - the thread's only way to tell
            self.wrong = self.wrong or repr(error)

    def _live(self) -> None:
        command = [*self._kubelet.images[self._container["image"]], *self._container.get("args", ())]
        with self._file.open("ab") as log:
            self._host = Host(self._number, command, env=self._environment(), stdout=log, stderr=log, start_new_session=True)
        try:
            self._host.begin()
            self._report()
            started = False
            while not self._pause(self._container["readinessProbe"]["periodSeconds"] if self.ready else 0.1):
                if self._host.process.poll() is not None:
                    self.wrong = f"it ended unasked, with {self._host.process.returncode}"
                    self.ready = False
                    self._report()
                    self._pause(math.inf)
                    return
                passes = self._passes(self._container["readinessProbe" if started else "startupProbe"])
                if not started:
                    started = passes
                elif passes != self.ready:
                    self.ready = passes
                    self._report()
            self._end()
        finally:
            if self._host.process.poll() is None:
                self._host.process.kill()
            self._host.process.wait()

    def _pause(self, seconds: float) -> bool:
        """Whether it is to end, now or within these seconds."""
        end = time.monotonic() + seconds
        while not (over := self.asked.is_set() or self._kubelet.over.is_set()) and time.monotonic() < end:
            self.asked.wait(0.05)
        return over

    def _environment(self) -> dict[str, str]:
        found = {"PATH": os.environ["PATH"], "HOSTNAME": self.name}
        for source in self._container.get("envFrom", ()):
            secret = self._kubelet.api.ask("GET", f"/api/v1/namespaces/{self.namespace}/secrets/{source['secretRef']['name']}")
            found |= {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
        return found

    def _passes(self, probe: Any) -> bool:
        get = probe["httpGet"]
        port = next(each["containerPort"] for each in self._container["ports"] if each["name"] == get["port"])
        try:
            with urlopen(f"http://{self._host.address}:{port}{get['path']}", timeout=probe.get("timeoutSeconds", 1)) as answer:
                return bool(answer.status < 400)
        except OSError:
            return False

    def _report(self) -> None:
        conditions = [_condition(kind, true=self.ready) for kind in ("Ready", "ContainersReady")]
        container = {"name": self._container["name"], "image": self._container["image"], "imageID": "", "restartCount": 0}
        container |= {"ready": self.ready, "started": self.ready, "state": {"running": {"startedAt": self._began}}}
        status = {"phase": "Running", "startTime": self._began, "hostIP": GATEWAY, "hostIPs": [{"ip": GATEWAY}]}
        status |= {"podIP": self._host.address, "podIPs": [{"ip": self._host.address}]}
        status |= {"conditions": [*conditions, _condition("Initialized", true=True)], "containerStatuses": [container]}
        with suppress(Refused):  # It may be gone already.
            self._kubelet.api.ask("PATCH", f"{self._path}/status", {"status": status}, STRATEGIC)

    def _end(self) -> None:
        if self._kubelet.over.is_set():
            return
        end = time.monotonic() + self.grace
        hook = self._container["lifecycle"]["preStop"]["exec"]["command"]
        try:
            subprocess.run(self._host.inside(hook), check=True, timeout=self.grace)
            self._host.process.terminate()
            code = self._host.process.wait(max(end - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            self.wrong = f"it was killed, for its grace period of {self.grace} s was over"
        else:
            self.wrong = f"it ended with {code}" if code and self.ready else ""  # One that still starts may not know the signal yet.


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(kind: str, *, true: bool) -> dict[str, str]:
    return {"type": kind, "status": str(true), "lastTransitionTime": _now()}
