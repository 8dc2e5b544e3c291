"""The OpenAI Agents SDK's adapter on each engine that needs no server."""

from __future__ import annotations

import pytest

pytest.importorskip("agents", reason="pip install '.[openai-agents]'")
