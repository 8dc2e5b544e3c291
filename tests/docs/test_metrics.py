"""The table of metrics names each one that Perdure has, with its kind and unit, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import perdure.telemetry

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
OTHERS = [path for path in (Path(__file__).parents[2] / "docs").glob("*.md") if path.name != "reference.md"]

SERVER = ("http.server.", "perdure.server.")
"""Metrics of nodes: `tests/service/observe` compares them with their own page."""


class Meter:
    """Takes down what is made of it."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[str, str]] = {}

    def __getattr__(self, name: str) -> Any:
        kind = name.removeprefix("create_").replace("up_down_counter", "up-down counter")

        def create(name: str, unit: str, description: str) -> object:
            assert name not in self.made
            assert description.endswith(".")
            self.made[name] = (kind, unit)
            return object()

        return create


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
    """Kind and unit of each metric, by name."""
    meter = Meter()
    monkeypatch.setattr("opentelemetry.metrics.get_meter", lambda _: meter)
    perdure.telemetry._Instruments()
    return {name: about for name, about in meter.made.items() if not name.startswith(SERVER)}


def test_the_table_is_complete(made: dict[str, tuple[str, str]]) -> None:
    """Every metric stands in the table with its kind and unit; the table has no other."""
    rows = re.findall(r"^\| `(perdure\.[a-z_.]+)` \| ([a-z-]+(?: counter)?) \| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows})
    assert {name: (kind, unit) for name, kind, unit in rows} == made


def test_pages_name_no_metric_that_is_not_there(made: dict[str, tuple[str, str]]) -> None:
    """What other pages call a metric is one."""
    heads = {name.split(".")[1] for name in made}
    others = {"perdure.spool", "perdure.consumer", "perdure.tenant", "perdure.session", "perdure.engine.append"}  # Attributes, and a span.
    for page in OTHERS:
        for name in re.findall(r"`(perdure\.[a-z_]+(?:\.[a-z_]+)+)`", page.read_text()):
            if name.split(".")[1] in heads - {"state", "archive"}:
                assert name in made or name in others, f"{page.name}: {name}"
