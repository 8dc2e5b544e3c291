"""Which Perdure sessions and idempotency keys the harness's ids make."""

from __future__ import annotations

import hashlib

from perdure.adapters.common.session_ids import compose, is_name

ROOT = "pydantic-ai"


def run(id: str) -> str:
    """The session of a run. Raises `Invalid` for an id that is too long."""
    return compose("A Pydantic AI run", ROOT, "runs", id)


def conversation(id: str) -> str:
    """The session of a conversation. Raises `Invalid` for an id that is too long."""
    return compose("A Pydantic AI conversation", ROOT, "conversations", id)


def key(what: str, id: str) -> str:
    """An idempotency key; of one that would be too long, or has control characters, the digest."""
    made = f"{what}:{id}"
    return made if is_name(made) else f"{what}:{hashlib.sha256(made.encode(errors='surrogatepass')).hexdigest()}"
