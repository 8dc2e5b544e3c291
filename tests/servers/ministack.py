"""MiniStack, an emulator of AWS: DynamoDB with its conditions, transactions and limits. It keeps its tables in memory alone."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

from tests.servers.process import HOST, Missing, Server

CACHE = Path(os.environ.get("PERDURE_TEST_SERVERS") or Path.home() / ".cache" / "perdure-test-servers")
"""Where servers lie that come neither as a wheel nor on PATH."""
TABLE = "perdure"


class MiniStack(Server):
    """One process, for any region and any keys."""

    name = "ministack"
    install = "python3 dev.py fetch"

    @classmethod
    def program(cls) -> str:
        path = CACHE / "ministack" / "bin" / "python"
        if not path.exists():
            raise Missing(f"{cls.name} is not installed: {cls.install}")
        return str(path)

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port('aws')}"

    @property
    def url(self) -> str:
        return f"dynamodb://key:secret@eu-west-1/{TABLE}?endpoint={self.endpoint}&create=true"

    def start(self) -> None:
        settings = {"GATEWAY_PORT": str(self.port("aws")), "BIND_HOST": HOST, "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0"}
        self.spawn("aws", [self.program(), "-m", "ministack"], env=os.environ | settings, cwd=self.folder)
        self.wait("its DynamoDB", self.serves)

    def serves(self) -> bool:
        """Whether tables can be listed. It looks for a signature and does not check it."""
        headers = {
            "X-Amz-Target": "DynamoDB_20120810.ListTables",
            "Content-Type": "application/x-amz-json-1.0",
            "Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/eu-west-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0",
        }
        with urllib.request.urlopen(urllib.request.Request(self.endpoint, b"{}", headers), timeout=2) as answer:
            return b"TableNames" in answer.read()
