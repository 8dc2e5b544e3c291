"""HAProxy and nginx as Debian delivers them, with the configuration of deploy/, in front of two nodes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import ClassVar
from urllib.request import urlopen

from tests.servers.etcd import CACHE
from tests.servers.process import HOST, Server
from tests.support.docs.pages import ROOT


class Proxy(Server):
    """One in front of the nodes at these ports, which stand where the example has 8421 and 8422."""

    name: ClassVar[str] = "proxy"
    install: ClassVar[str] = "python3 dev.py fetch"
    example: ClassVar[str]

    def __init__(self, folder: Path, ports: tuple[int, int]) -> None:
        super().__init__(folder)
        self.ports = ports

    @classmethod
    def program(cls) -> str:
        cached = CACHE / cls.name / "usr" / "sbin" / cls.name
        return str(cached) if cached.exists() else cls.found("", cls.name, f"/usr/sbin/{cls.name}")

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port('node')}"

    def config(self) -> str:
        """The example, with this test's ports."""
        text = (ROOT / "deploy" / self.example).read_text()
        for number, port in ((8080, self.port("node")), (8421, self.ports[0]), (8422, self.ports[1])):
            text, count = re.subn(rf"127\.0\.0\.1:{number}\b", f"{HOST}:{port}", text)
            assert count == 1, (self.example, number)
        return text

    def environment(self) -> dict[str, str]:
        """With the libraries that were fetched."""
        folders = [*(CACHE / self.name / "usr" / "lib").glob("*-linux-*"), *(CACHE / self.name / "lib").glob("*-linux-*")]
        return os.environ | ({"LD_LIBRARY_PATH": ":".join(map(str, folders))} if folders else {})


class HAProxy(Proxy):
    """It asks /readyz."""

    name: ClassVar[str] = "haproxy"
    example: ClassVar[str] = "haproxy/haproxy.cfg"

    def start(self) -> None:
        file = self.folder / "haproxy.cfg"
        file.write_text(self.config())
        self.spawn("node", [self.program(), "-db", "-f", str(file)], env=self.environment())
        self.wait("a way through", lambda: urlopen(f"{self.url}/readyz", timeout=5).status == 200)


class Nginx(Proxy):
    """It sees failed requests."""

    name: ClassVar[str] = "nginx"
    example: ClassVar[str] = "nginx/perdure.conf"

    def start(self) -> None:
        (self.folder / "cache").mkdir(exist_ok=True)
        (self.folder / "perdure.conf").write_text(self.config().replace("/var/cache/nginx/perdure", str(self.folder / "cache")))
        places = [f"{name}_temp_path {self.folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
        http = ["access_log off;", *places, f"include {self.folder}/perdure.conf;"]
        main = ["daemon off;", f"pid {self.folder}/pid;", "events {}", f"http {{ {' '.join(http)} }}"]
        if os.geteuid() == 0:
            main.insert(0, "user root;")
        file = self.folder / "nginx.conf"
        file.write_text("\n".join(main))
        self.spawn("node", [self.program(), "-p", str(self.folder), "-e", "stderr", "-c", str(file)], env=self.environment())
        self.wait("a way through", lambda: urlopen(f"{self.url}/readyz", timeout=5).status == 200)
