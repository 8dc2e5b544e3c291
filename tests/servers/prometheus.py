"""Prometheus as Debian delivers it, with the rules of deploy/, scraping what it is given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.servers.etcd import CACHE
from tests.servers.process import HOST, Server
from tests.support.docs.pages import ROOT

RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"


class Prometheus(Server):
    """One, that scrapes each target every second."""

    name: ClassVar[str] = "prometheus"
    install: ClassVar[str] = "python3 dev.py fetch"

    def __init__(self, folder: Path, targets: tuple[str, ...] = ()) -> None:
        super().__init__(folder)
        self.targets = targets

    @classmethod
    def program(cls) -> str:
        cached = CACHE / "prometheus" / "usr" / "bin" / "prometheus"
        return str(cached) if cached.exists() else cls.found("", "prometheus")

    @classmethod
    def tool(cls) -> str:
        """promtool, which is in the same package."""
        return str(Path(cls.program()).with_name("promtool"))

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port('node')}"

    def start(self) -> None:
        shutil.copy(RULES, self.folder)
        scrape = {"job_name": "perdure", "scrape_interval": "1s", "static_configs": [{"targets": list(self.targets)}]}
        config = self.folder / "prometheus.yml"
        config.write_text(json.dumps({"global": {"evaluation_interval": "1s"}, "rule_files": [RULES.name], "scrape_configs": [scrape]}))
        place = ["--storage.tsdb.path", str(self.folder / "data"), "--web.listen-address", f"{HOST}:{self.port('node')}"]
        self.spawn("node", [self.program(), "--config.file", str(config), *place, "--log.level", "warn"])
        self.wait("it is ready", lambda: urlopen(f"{self.url}/-/ready", timeout=5).status == 200)

    def ask(self, query: str) -> list[Any]:
        """What a query gives now. A query that is none raises."""
        with urlopen(f"{self.url}/api/v1/query?{urlencode({'query': query})}", timeout=30) as answer:
            said = json.load(answer)
        assert said["status"] == "success", said
        return list(said["data"]["result"])
