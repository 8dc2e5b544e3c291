"""Jaeger, built from its source: it takes traces by OTLP over HTTP, keeps them in memory and answers queries."""

from __future__ import annotations

import json
from typing import Any, ClassVar
from urllib.request import Request, urlopen

from tests.servers.etcd import cached
from tests.servers.process import HOST, Server


class Jaeger(Server):
    """One, with nothing on disk."""

    name: ClassVar[str] = "jaeger"
    install: ClassVar[str] = "python3 scripts/fetch_servers.py jaeger (with Go; about six minutes of processor time)"
    obtainable: ClassVar[bool] = False

    @classmethod
    def program(cls) -> str:
        return cached(cls, "jaeger/jaeger")

    @property
    def url(self) -> str:
        """Where traces are sent: what OTEL_EXPORTER_OTLP_ENDPOINT takes."""
        return f"http://{HOST}:{self.port('otlp')}"

    @property
    def page(self) -> str:
        """Where traces are looked at."""
        return f"http://{HOST}:{self.port('query')}"

    def start(self) -> None:
        def listens(name: str) -> dict[str, str]:
            return {"endpoint": f"{HOST}:{self.port(name)}"}

        config = {
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "telemetry": {"logs": {"level": "warn"}, "metrics": {"level": "none"}},
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
            },
            "extensions": {
                "jaeger_storage": {"backends": {"kept": {"memory": {"max_traces": 1000}}}},
                "jaeger_query": {"storage": {"traces": "kept"}, "http": listens("query"), "grpc": listens("query grpc")},
            },
            "receivers": {"otlp": {"protocols": {"http": listens("otlp")}}},
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "kept"}},
        }
        file = self.folder / "jaeger.json"
        file.write_text(json.dumps(config))
        self.spawn("node", [self.program(), "--config", f"file:{file}"])
        self.wait("it answers queries", lambda: self.ask("services") is not None)
        nothing = Request(f"{self.url}/v1/traces", data=b"", headers={"content-type": "application/x-protobuf"})
        self.wait("it takes traces", lambda: urlopen(nothing, timeout=5).status == 200)

    def ask(self, path: str) -> Any:
        """What a query gives."""
        with urlopen(f"{self.page}/api/{path}", timeout=10) as answer:
            return json.load(answer)
