"""LangGraph: a checkpointer and a store on Perdure."""

from perdure.adapters.common.versions import require

require("langgraph-checkpoint", "4.1", "5", "langgraph")

from perdure.adapters.langgraph.saver import PerdureSaver
from perdure.adapters.langgraph.store import PerdureStore

__all__ = ["PerdureSaver", "PerdureStore"]
