"""Azurite (an npm package; needs Node): Azure's Blob Storage with its conditions. A kill -9 takes away its last seconds."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import os
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urlencode

from tests.servers.process import HOST, Missing, Server

CACHE = Path(os.environ.get("PERDURE_TEST_SERVERS") or Path.home() / ".cache" / "perdure-test-servers")
"""Where servers lie that come neither as a wheel nor on PATH."""
ACCOUNT, CONTAINER = "perdure", "test"
KEY = base64.b64encode(bytes(range(64))).decode()


class Azurite(Server):
    """One process; the container is there when it serves."""

    name = "azurite"
    install = "python3 dev.py fetch"

    @classmethod
    def program(cls) -> str:
        path = CACHE / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
        if not path.exists():
            raise Missing(f"{cls.name} is not installed: {cls.install}")
        return str(path)

    @property
    def endpoint(self) -> str:
        """Where the Blob API is spoken."""
        return f"http://{HOST}:{self.port('blob')}/{ACCOUNT}"

    @property
    def url(self) -> str:
        return f"az://{ACCOUNT}:{quote(KEY, safe='')}@{CONTAINER}/?endpoint={self.endpoint}"

    def start(self) -> None:
        flags = ["--blobHost", HOST, "--blobPort", str(self.port("blob")), "--location", str(self.folder / "data")]
        command = [self.found("", "node"), self.program(), *flags, "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
        self.spawn("blob", command, env=os.environ | {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}, cwd=self.folder)
        self.wait("the container", self.made)

    def token(self, rights: str) -> str:
        """A shared access signature that gives these rights on the container (`rl`: read and list), for a day."""
        ends = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        version, resource = "2021-08-06", f"/blob/{ACCOUNT}/{CONTAINER}"
        text = "\n".join([rights, "", ends, resource, "", "", "", version, "c", *[""] * 7])
        return urlencode({"sp": rights, "se": ends, "sv": version, "sr": "c", "sig": _signed(text)})

    def made(self) -> bool:
        """Make the container."""
        try:
            self.ask(f"/{CONTAINER}", {"restype": "container"})
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code == 409
        return True

    def ask(self, path: str, query: dict[str, str], body: bytes = b"") -> None:
        """A PUT of the account's owner, signed as Azure's documentation of Shared Key says."""
        headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        kind = "application/xml" if body else ""
        lines = ["PUT", "", "", str(len(body) or ""), "", kind, *[""] * 6]
        lines += [f"{name}:{value}" for name, value in headers.items()]
        lines += [f"/{ACCOUNT}/{ACCOUNT}{path}", *[f"{name}:{value}" for name, value in sorted(query.items())]]
        headers |= {"Authorization": f"SharedKey {ACCOUNT}:{_signed(chr(10).join(lines))}"} | ({"Content-Type": kind} if kind else {})
        url = f"{self.endpoint}{path}?{urlencode(query)}"
        urllib.request.urlopen(urllib.request.Request(url, body or None, headers, method="PUT"), timeout=5).close()


def _signed(text: str) -> str:
    return base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
