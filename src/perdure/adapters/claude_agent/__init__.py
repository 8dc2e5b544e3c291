"""Claude Agent SDK: `ClaudeAgentOptions(session_store=PerdureSessionStore(store))`. Needs `pip install '.[claude-agent]'`."""

from perdure.adapters.common.versions import require

require("claude-agent-sdk", "0.1.71", "0.3", "claude-agent")

from perdure.adapters.claude_agent.store import PerdureSessionStore

__all__ = ["PerdureSessionStore"]
