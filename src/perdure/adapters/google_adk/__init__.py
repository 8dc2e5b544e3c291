"""Google ADK: `Runner(session_service=PerdureSessionService(store), …)`, with artifacts and memory in the same store.

Needs `pip install '.[google-adk]'`.
"""

from perdure.adapters.common.versions import require

require("google-adk", "2.10", "3", "google-adk")

from perdure.adapters.common.run_lease import RunLease
from perdure.adapters.google_adk.artifacts import PerdureArtifactService
from perdure.adapters.google_adk.memory import PerdureMemoryService
from perdure.adapters.google_adk.plugin import PerdureLeasePlugin
from perdure.adapters.google_adk.sessions import PerdureSessionService

__all__ = ["PerdureArtifactService", "PerdureLeasePlugin", "PerdureMemoryService", "PerdureSessionService", "RunLease"]
