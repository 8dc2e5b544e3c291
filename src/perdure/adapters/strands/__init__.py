"""Strands Agents: `PerdureSessionManager(session_id, store)`, or `PerdureStorage(store)` for snapshots.

Needs `pip install '.[strands]'`.
"""

from perdure.adapters.common.versions import require

require("strands-agents", "1.54", "2", "strands")

from perdure.adapters.common.run_lease import RunLease
from perdure.adapters.strands.manager import PerdureSessionManager
from perdure.adapters.strands.repository import PerdureSessionRepository
from perdure.adapters.strands.storage import PerdureStorage

__all__ = ["PerdureSessionManager", "PerdureSessionRepository", "PerdureStorage", "RunLease"]
