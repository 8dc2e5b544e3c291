"""OpenAI Agents SDK: `Runner.run(agent, "…", session=PerdureSession("trip-42", store))`. Needs `pip install '.[openai-agents]'`."""

from perdure.adapters.common.versions import require

require("openai-agents", "0.21", "0.25", "openai-agents")

from perdure.adapters.common.run_lease import RunLease
from perdure.adapters.openai_agents.session import PerdureSession

__all__ = ["PerdureSession", "RunLease"]
