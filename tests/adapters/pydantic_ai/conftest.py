"""Pydantic AI's adapter on each engine that needs no server."""

from __future__ import annotations

import pytest

pytest.importorskip("pydantic_ai_harness", reason="pip install '.[pydantic-ai]'")
