"""The OpenAPI document, tried out: whatever it allows is answered as it says, and whatever it forbids is refused."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from perdure.service.hooks import Anonymous
from tests.support.service.listening import Listening, listening


def no_defect(context: Any, response: Any, case: Any) -> None:
    """501 says that the engine cannot do that; 500 would be a defect."""
    assert response.status_code not in (500, 502, 503, 504), response.text


def rejected(context: Any, response: Any, case: Any) -> Any:
    """What the document forbids is refused. A condition that does not hold may be named first: 412 (RFC 9110, section 13.2.1)."""
    return None if response.status_code == 412 else checks.negative_data_rejection(context, response, case)


KEPT = [
    no_defect,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    rejected,
]
"""What is held against each answer."""
SLOW = os.environ.get("PERDURE_SCHEMATHESIS_EXAMPLES")
EXAMPLES = int(SLOW) if SLOW else 12
"""Requests of each kind for each route; more where the environment says so."""


def soon(case: Any) -> None:
    """Have a request that may wait for something be answered at once."""
    if case.operation.path.endswith(("watch", "changes")):
        case.query = {**(case.query or {}), "live": "long-poll", "wait": 0}
    if isinstance(case.body, dict) and isinstance(wait := case.body.get("wait"), int | float) and 0 < wait <= 60:
        case.body = {**case.body, "wait": 0.01}


@pytest.fixture(scope="module")
def node() -> Iterator[Listening]:
    """A node on a loop of its own, for clients that block."""
    started, stop = threading.Event(), asyncio.Event()
    found: list[Any] = []

    async def run() -> None:
        async with listening(stream_seconds=0.2, heartbeat=0.1) as server:
            found.extend((server, asyncio.get_running_loop()))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert started.wait(60)
    yield found[0]
    found[1].call_soon_threadsafe(stop.set)
    thread.join(60)


@pytest.fixture(scope="module")
def schema(node: Listening) -> Any:
    """The document as the node gives it."""
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{node.port}/openapi.json")


@pytest.mark.long
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.name)
def test_the_node_keeps_to_its_document(schema: Any, mode: GenerationMode) -> None:
    """Generated requests, allowed ones and others: no 5xx, and only answers that the document names, of the shape it says."""
    failures: list[str] = []
    for result in schema.get_all_operations():
        operation = result.ok()
        said = operation.definition.raw
        if mode is GenerationMode.NEGATIVE and not (said.get("parameters") or said.get("requestBody")):
            continue  # There is nothing about it that could be wrong.

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            if "live" not in (case.query or {}):
                soon(case)
            case.call_and_validate(timeout=30, checks=KEPT)

        try:
            ask()
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - all operations are tried, then all failures shown
            failures.append(f"{operation.method} {operation.path}: {error!r} {getattr(error, '__notes__', '')}")
    assert not failures, "\n\n".join(failures)[:6000]


@pytest.mark.long
def test_requests_that_follow_one_another_keep_to_it_too(schema: Any, node: Listening) -> None:
    """Sequences of requests, each with what the ones before were answered. Each one has a tenant of its own: played again, it finds the
    same."""
    machine, numbers = schema.as_state_machine(), count()

    class Machine(machine):  # type: ignore[misc, valid-type]
        def setup(self) -> None:
            node.node.authenticator = Anonymous(f"run{next(numbers)}")

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            soon(case)
            return {"timeout": 30}

        def validate_response(self, response: Any, case: Any, **more: Any) -> None:
            case.validate_response(response, checks=KEPT)

    Machine.run(
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=8,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
    )
