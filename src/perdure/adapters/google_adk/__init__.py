"""Google ADK: `Runner(session_service=PerdureSessionService(store), …)`. Needs `pip install 'perdure[google-adk]'`."""

from perdure.adapters.versions import require

require("google-adk", "2.10", "3", "google-adk")

from perdure.adapters.google_adk.sessions import PerdureSessionService

__all__ = ["PerdureSessionService"]
