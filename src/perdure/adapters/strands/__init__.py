"""Strands Agents: `RepositorySessionManager(session_id, PerdureSessionRepository(store))`, or `PerdureStorage(store)` for snapshots.

Needs `pip install '.[strands]'`.
"""

from perdure.adapters.common.versions import require

require("strands-agents", "1.54", "2", "strands")

from perdure.adapters.strands.repository import PerdureSessionRepository
from perdure.adapters.strands.storage import PerdureStorage

__all__ = ["PerdureSessionRepository", "PerdureStorage"]
