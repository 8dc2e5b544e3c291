"""Functions that take either store: with `perdure.Store` they are awaited, with `perdure.sync.Store` they block."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from perdure.concurrency.replies import run_blocking
from perdure.engine.store import Store
from perdure.errors import Invalid
from perdure.sync import Store as BlockingStore

P = ParamSpec("P")
T = TypeVar("T")


class Either(Generic[P, T]):
    """A coroutine function of a store, for both kinds of stores."""

    def __init__(self, function: Callable[Concatenate[Store, P], Coroutine[Any, Any, T]]) -> None:
        self._function = function
        functools.update_wrapper(self, function)

    @overload
    def __call__(self, store: Store, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...

    @overload
    def __call__(self, store: BlockingStore, /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    def __call__(self, store: Store | BlockingStore, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T] | T:
        """Call it. Raises `Invalid` for what is no open store."""
        if isinstance(store, BlockingStore):
            return run_blocking(self._function(store.asynchronous, *args, **kwargs))
        if not isinstance(store, Store):
            raise Invalid(f"Pass an open store, perdure.Store or perdure.sync.Store, not {type(store).__name__}.")
        return self._function(store, *args, **kwargs)
