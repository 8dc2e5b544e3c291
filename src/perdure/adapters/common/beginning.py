"""`keep=` and `expire_after=` of every adapter: the policy that its sessions begin with."""

from __future__ import annotations

from datetime import timedelta

from perdure.engine.calls.beginning import beginning
from perdure.engine.store import Store


def with_policy(store: Store, *, keep: int | timedelta | None, expire_after: timedelta | float | None, drop: bool) -> Store:
    """The same store, whose sessions begin with this policy: those that it starts, by an append, a fork or a lease, also again after a
    deletion. The policy is in the append that starts the session, so none is there without it.

    What is `None` stays as the policy of the session's prefix says. A session that is there keeps the policy that it has.
    Raises `Invalid` for values that `Store.configure` does not take, and `Unsupported` where the store has no place for policies, or
    `keep` would move commits to an archive and the store was opened without one.
    """
    begin = beginning(store._context, expire_after=expire_after, keep=keep, drop=drop)
    return store if begin is None else Store(store._core, store.tenant, begin)
