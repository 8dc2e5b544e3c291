"""The log: one line a request, nothing secret in it, and a reader that hangs stops nobody."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider

import perdure
from perdure.service.app import App
from perdure.service.auth.credentials import Credentials
from perdure.service.auth.records import create_token
from perdure.service.auth.tokens import Tokens
from perdure.service.node import Node
from perdure.service.observe.log import LINES_MAX, LineWriter, access_logger
from perdure.service.observe.metrics import Metrics
from perdure.service.observe.observer import NodeObserver
from perdure.service.observe.tracing import Tracing
from tests.support.service.asking import Asker

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@asynccontextmanager
async def observed(level: str = "info") -> AsyncIterator[tuple[Asker, list[str], str]]:
    """An application that asks for tokens, the lines that it writes, and a token of the tenant acme that may read and append."""
    lines: list[str] = []
    observer = NodeObserver(Metrics(MeterProvider()), Tracing(), access_logger(lines.append, level, json=True))
    async with perdure.open("memory:") as store:
        made = await create_token(store, tenant="acme", scopes=["read", "append"])
        node = Node(store, authenticator=Credentials(Tokens(store, store._core.clock)), observer=observer)
        yield Asker(App(node), [("authorization", f"Bearer {made.token}")]), lines, made.token


async def test_a_request_is_a_line() -> None:
    """Method, route, status, duration, tenant, credential, client and trace; of an error its code."""
    async with observed() as (ask, lines, token):
        traced = [("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")]
        await ask("POST", "/v1/sessions/trip-42/commits", {"events": [{"type": "note"}]}, headers=traced)
        await ask("GET", "/v1/sessions/nobody")
        await ask("DELETE", "/v1/sessions/trip-42")
        await ask("GET", "/healthz")
        stored, missing, forbidden = map(json.loads, lines)
        assert stored.pop("ms") >= 0 and stored.pop("timestamp").endswith("Z")
        assert stored == {
            "event": "request", "level": "info", "logger": "perdure.access", "method": "POST", "route": "/v1/sessions/{id}/commits",
            "status": 201, "tenant": "acme", "credential": f"token:{token.split('_')[1]}", "client": "127.0.0.1", "trace_id": TRACE,
        }  # fmt: skip
        assert (missing["status"], missing["code"]) == (404, "not_found")
        assert (forbidden["status"], forbidden["code"], forbidden["tenant"]) == (403, "forbidden", "acme")


async def test_no_line_has_a_secret_or_an_id() -> None:
    """Tokens, keys, ids of sessions, queries and bodies are in no line, whatever goes wrong, at any level."""
    secrets = ["trip-secret", "key-secret", "query-secret", "body-secret", "header-secret"]
    async with observed("debug") as (ask, lines, token):
        for bearer in (f"Bearer {token}", f"Bearer {token[:-2]}", "Bearer header-secret", "Basic header-secret"):
            client = Asker(ask.app, [("authorization", bearer), ("idempotency-key", "key-secret")])
            commits = "/v1/sessions/trip-secret/commits"
            for target in (commits, f"{commits}?query-secret=1", "/trip-secret", "/readyz"):
                for method in ("GET", "POST", "PATCH"):
                    await client(method, target, {"events": [{"type": "body-secret"}]})
        text = "\n".join(lines)
        assert len(lines) == 4 * 4 * 3
        for secret in (*secrets, token, token.split("_", 2)[2]):
            assert secret not in text, secret


async def test_a_defect_is_an_error_and_health_is_quiet() -> None:
    """5xx is at the level error; what the node answers to a monitor is at debug, unless it fails."""
    async with observed("info") as (ask, lines, _):
        await ask("GET", "/healthz")
        assert lines == []
        ask.app.node.draining.set()
        await ask("GET", "/readyz")
        assert (json.loads(lines[0])["level"], json.loads(lines[0])["status"]) == ("error", 503)


class Stuck(io.StringIO):
    """A stream that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def write(self, text: str) -> int:
        self.gate.wait(60)
        return super().write(text)


def test_a_reader_that_hangs_stops_nobody() -> None:
    """Lines wait up to a bound, then they are dropped and counted; what waited is written when the reader reads again."""
    stuck, dropped = Stuck(), []
    with LineWriter(stuck, dropped.append) as write:
        for number in range(LINES_MAX + 50):
            write(f"line {number}")
        assert 49 <= sum(dropped) <= 50
        stuck.gate.set()
        while "line 9999\n" not in stuck.getvalue():
            assert write._thread.is_alive()
    assert stuck.getvalue().startswith("line 0\nline 1\n")


def test_lines_that_come_together_are_written_together() -> None:
    """The thread is not woken for each of them. None is lost when the writer ends, and each is there once."""

    class Counted(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            return super().write(text)

    stream, lines = Counted(), [f"line {number}" for number in range(1_000)]
    with LineWriter(stream) as write:
        for line in lines:
            write(line)
    assert stream.getvalue().splitlines() == lines
    assert stream.writes <= 100


def test_a_reader_that_went_away_stops_nobody() -> None:
    """A closed stream: lines are dropped, and the writer lives."""
    closed, dropped = io.StringIO(), threading.Event()
    closed.close()
    with LineWriter(closed, lambda _: dropped.set()) as write:
        write("line")
        assert dropped.wait(60)


LIBRARIES = """
import logging, sys
from perdure.service.observe import log
with log.LineWriter(sys.stderr) as write:
    log.install(write, "info", json={json})
    logging.getLogger("some.library").warning("%s is slow", "it")
    logging.getLogger("some.library").debug("not this")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("perdure.service").exception("A request failed")
"""


@pytest.mark.parametrize("as_json", [True, False])
def test_the_log_of_libraries_goes_the_same_way(as_json: bool) -> None:
    """With its level and its logger, and with the traceback of an error."""
    ran = subprocess.run([sys.executable, "-c", LIBRARIES.replace("{json}", str(as_json))], capture_output=True, text=True, check=True)
    if as_json:
        first, second = map(json.loads, ran.stderr.splitlines())
        assert (first["event"], first["level"], first["logger"]) == ("it is slow", "warning", "some.library")
        assert "ValueError: broken" in second["exception"]
    else:
        assert "it is slow" in ran.stderr and "ValueError: broken" in ran.stderr and "not this" not in ran.stderr


def test_python_knows_the_levels() -> None:
    """Those of --log-level are those of logging."""
    levels: list[Any] = [logging.getLevelName(name.upper()) for name in ("critical", "error", "warning", "info", "debug")]
    assert levels == [50, 40, 30, 20, 10]
