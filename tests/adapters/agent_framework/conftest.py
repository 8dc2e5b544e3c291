"""Agent Framework's adapter on each engine that needs no server."""

from __future__ import annotations

import pytest

pytest.importorskip("agent_framework", reason="pip install '.[agent-framework]'")
