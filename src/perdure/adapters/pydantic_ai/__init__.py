"""Pydantic AI: `StepPersistence(store=PerdureStepStore(store))` and `Memory(store=PerdureMemoryStore(store))` of its harness.

Needs `pip install '.[pydantic-ai]'`.
"""

from perdure.adapters.common.versions import require

require("pydantic-ai-harness", "0.60", "0.63", "pydantic-ai")

from perdure.adapters.pydantic_ai.memory import PerdureMemoryStore
from perdure.adapters.pydantic_ai.steps import PerdureStepStore

__all__ = ["PerdureMemoryStore", "PerdureStepStore"]
