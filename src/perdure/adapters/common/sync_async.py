"""One body of code for a framework's asynchronous and blocking methods: coroutines, which blocking methods run by `wait`."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from perdure import sync
from perdure.concurrency.replies import run_blocking
from perdure.engine.store import Store
from perdure.errors import Invalid

T = TypeVar("T")

AnyStore = Store | sync.Store
"""What every adapter is constructed with."""


def asynchronous(store: AnyStore) -> Store:
    """The asynchronous API of an open store. It serves calls of any event loop, and of threads by `wait`. Raises `Invalid`."""
    if isinstance(store, sync.Store):
        return store.asynchronous
    if isinstance(store, Store):
        return store
    raise Invalid(f"An adapter takes an open store (perdure.open or perdure.sync.open), not {type(store).__name__}.")


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that awaits nothing but the store, in this thread. A loop that runs in this thread is blocked meanwhile."""
    return run_blocking(coroutine)
