"""Microsoft Agent Framework: `Agent(…, context_providers=[PerdureHistoryProvider(store)])`, `PerdureCheckpointStorage(store)` for
workflows, and `PerdureSessionStore(store)` for sessions.

Needs `pip install '.[agent-framework]'`.
"""

from typing import TYPE_CHECKING, Any

from perdure.adapters.common.versions import require

require("agent-framework-core", "1.20", "2", "agent-framework")

from perdure.adapters.agent_framework.checkpoints import PerdureCheckpointStorage
from perdure.adapters.agent_framework.history import PerdureHistoryProvider
from perdure.adapters.common.run_lease import RunLease

if TYPE_CHECKING:
    from perdure.adapters.agent_framework.sessions import PerdureSessionStore

__all__ = ["PerdureCheckpointStorage", "PerdureHistoryProvider", "PerdureSessionStore", "RunLease"]


def __getattr__(name: str) -> Any:
    """Import the session store when it is asked for: the framework calls its interface experimental, and warns at the import."""
    if name == "PerdureSessionStore":
        from perdure.adapters.agent_framework.sessions import PerdureSessionStore

        return PerdureSessionStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
