"""What the sessions of one writer begin with: a policy of its own, over that of their prefix."""

from __future__ import annotations

from datetime import timedelta

from msgspec import UNSET

from perdure.engine.calls.configure import Wanted, changed, require_able, require_archive, wanted
from perdure.engine.context import Context
from perdure.model.lifecycle import Begin, Policy


def beginning(context: Context, *, expire_after: timedelta | float | None, keep: int | timedelta | None, drop: bool) -> Begin | None:
    """For `Options.begin`: what `configure` with these arguments makes of the prefix's policy; `None` where they ask for nothing.

    Raises `Invalid` and `Unsupported` as `configure` does.
    """
    asked = wanted(
        UNSET if expire_after is None else expire_after,
        UNSET,
        UNSET,
        UNSET,
        UNSET,
        UNSET if keep is None else keep,
        UNSET if keep is None and drop is False else drop,
        UNSET,
    )
    if asked.is_empty:
        return None
    core = context.opened()
    require_able(core)
    require_archive(core, changed(Policy(), asked, core.clock.now()), asked)
    return Beginning(asked)


class Beginning:
    """Makes the policy of a session that begins now."""

    def __init__(self, asked: Wanted) -> None:
        self._wanted = asked

    def __call__(self, policy: Policy | None, now: int) -> Policy:
        return changed(policy or Policy(), self._wanted, now)
