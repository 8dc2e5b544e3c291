"""Strands' adapter on each engine that needs no server."""

from __future__ import annotations

import pytest

pytest.importorskip("strands", reason="pip install '.[strands]'")
