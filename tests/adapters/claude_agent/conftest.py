"""The Claude Agent SDK's adapter on each engine that needs no server."""

from __future__ import annotations

import pytest

pytest.importorskip("claude_agent_sdk", reason="pip install '.[claude-agent]'")
