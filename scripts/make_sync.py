"""Writes src/perdure/sync.py from the signatures and docstrings of engine/store. `--check` fails when the file is stale."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
STORE = ROOT / "src/perdure/engine/store"
OPENING = ROOT / "src/perdure/engine/opening.py"
TARGET = ROOT / "src/perdure/sync.py"

HEADER = '''"""The blocking API: `perdure.open` and `Store` without `await`, safe from many threads.

Made by scripts/make_sync.py from engine/store: change that, then run it. Do not edit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self, TypeVar, cast, overload

from msgspec import UNSET, UnsetType

from perdure.backends.spi import Capabilities, Durability
from perdure.clock import Clock
from perdure.codec.upcast import Upcaster
from perdure.concurrency.replies import run_blocking
from perdure.engine import opening as _opening
from perdure.engine import store as _async
from perdure.engine.calls.edit import Edit as _AsyncEdit
from perdure.engine.calls.enqueue import Queued as _AsyncQueued
from perdure.engine.leasing.lease import Lease as _AsyncLease
from perdure.engine.leasing.lease import Leasing as _AsyncLeasing
from perdure.engine.leasing.lease_end import LeaseEnd as _AsyncLeaseEnd
from perdure.engine.unentered import Blocking
from perdure.engine.views import Archived, CacheInfo, Change, Info, LeaseInfo, Policy, Receipt, Sizes, Spooled, Verified, View
from perdure.engine.write.drafts import Draft
from perdure.model.commit import Commit, Status
from perdure.model.events import Event
from perdure.model.policy import OnConflict

T = TypeVar("T")

__all__ = ["Edit", "Lease", "LeaseEnd", "Leasing", "Queued", "Store", "open"]


def _iterate(items: AsyncIterator[T]) -> Iterator[T]:
    try:
        while True:
            try:
                item: T = run_blocking(items.__anext__())  # type: ignore[arg-type]
            except StopAsyncIteration:
                return
            yield item
    finally:
        run_blocking(items.aclose())  # type: ignore[attr-defined]


class Edit(Blocking):
    """`with store.edit(...) as draft`: loads the session, commits at the end of the block, once."""

    _right = "with store.edit(...) as draft"

    def __init__(self, edit: _AsyncEdit) -> None:
        self._edit = edit

    def __enter__(self) -> Draft:
        return run_blocking(self._edit.__aenter__())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        run_blocking(self._edit.__aexit__(kind, error, trace))


class LeaseEnd:
    """See `perdure.LeaseEnd`."""

    def __init__(self, lost: _AsyncLeaseEnd) -> None:
        self._lost = lost

    def __repr__(self) -> str:
        return repr(self._lost)

    def is_set(self) -> bool:
        """Whether the lease has ended, as far as this process knows. Nothing is asked: see `Lease.confirm`."""
        return self._lost.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, `timeout` seconds at most (`None`: as long as it takes); whether it is."""
        return run_blocking(self._lost.wait(timeout))


class Lease:
    """A session that is held, blocking: see `perdure.Lease`. Safe from any thread."""

    def __init__(self, lease: _AsyncLease) -> None:
        self._lease = lease
        self.lost = LeaseEnd(lease.lost)

    def __repr__(self) -> str:
        return repr(self._lease)

    @property
    def session(self) -> str:
        """The session's id."""
        return self._lease.session

    @property
    def owner(self) -> str:
        """Who holds it, in the words of `store.lease`."""
        return self._lease.owner

    @property
    def ttl(self) -> float:
        """Seconds for which a challenge has to stand unanswered before somebody else may take the lease."""
        return self._lease.ttl

    @property
    def exclusive(self) -> bool:
        """Whether writes that are not made under the lease are `Fenced`."""
        return self._lease.exclusive

    @property
    def token(self) -> int:
        """The fencing token: see `perdure.Lease.token`."""
        return self._lease.token

    @property
    def grant(self) -> str:
        """By which another process goes on with it: see `perdure.Lease.grant`."""
        return self._lease.grant

    def confirm(self) -> None:
        """Ask the engine whether the lease still holds: see `perdure.Lease.confirm`."""
        run_blocking(self._lease.confirm())

    def release(self) -> None:
        """Let go, so that others need not wait: see `perdure.Lease.release`."""
        run_blocking(self._lease.release())


class Leasing(Blocking):
    """`with store.lease(...) as lease`: waits for the lease, and lets go of it at the end of the block."""

    _right = "with store.lease(...) as lease"

    def __init__(self, leasing: _AsyncLeasing) -> None:
        self._leasing = leasing

    def __enter__(self) -> Lease:
        return Lease(run_blocking(self._leasing.__aenter__()))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        run_blocking(self._leasing.__aexit__(kind, error, trace))


def _asynchronous(lease: Lease | None) -> Any:
    """The lease that the asynchronous store took; what is no lease is refused there."""
    return lease._lease if isinstance(lease, Lease) else lease


class Queued:
    """A write that lies in the spool: see `perdure.Queued`."""

    def __init__(self, queued: _AsyncQueued) -> None:
        self._queued = queued

    def __repr__(self) -> str:
        return repr(self._queued)

    @property
    def session(self) -> str:
        """The session that it is a write to."""
        return self._queued.session

    @property
    def key(self) -> str:
        """Its idempotency key."""
        return self._queued.key

    @property
    def duplicate(self) -> bool:
        """Whether an earlier `enqueue` with this key had stored it."""
        return self._queued.duplicate

    def receipt(self, *, timeout: float | None = None) -> Receipt:
        """The receipt of its commit, once the store has it: see `perdure.Queued.receipt`."""
        return run_blocking(self._queued.receipt(timeout=timeout))


class Store:
    """Sessions of one tenant, blocking. Made by `perdure.sync.open`; safe from any thread."""

    def __init__(self, store: _async.Store) -> None:
        self._store = store

    def __repr__(self) -> str:
        return repr(self._store)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def asynchronous(self) -> _async.Store:
        """The same store with the asynchronous API; both may be used at once."""
        return self._store
'''


def main() -> int:
    """Write the file, or compare it."""
    opener = next(node for node in ast.parse(OPENING.read_text()).body if isinstance(node, ast.FunctionDef) and node.name == "open")
    parts = [HEADER]
    parts += [indent(method(node)) for node in methods()]
    parts.append(opening(opener))
    text = formatted("\n".join(parts))
    if "--check" in sys.argv:
        stale = not TARGET.exists() or TARGET.read_text() != text
        print("src/perdure/sync.py is stale: run scripts/make_sync.py" if stale else "src/perdure/sync.py is what engine/store gives")
        return int(stale)
    TARGET.write_text(text)
    return 0


def methods() -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The store's public methods: its own, then those of the parts that it is put together from."""
    nodes = [node for path in STORE.glob("*.py") for node in ast.parse(path.read_text()).body]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    store = classes["Store"]
    for part in (store, *(classes[ast.unparse(base)] for base in store.bases)):
        for node in part.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
                yield node


def method(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """One blocking method: same signature, same docstring, one line of body."""
    returns = ast.unparse(node.returns) if node.returns else "None"
    if any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list):
        return f"@overload\ndef {node.name}({ast.unparse(node.args)}) -> {returns.replace('AsyncIterator', 'Iterator')}: ...\n"
    call = f"self._store.{node.name}({arguments(node.args)})"
    if any(ast.unparse(decorator) == "property" for decorator in node.decorator_list):
        body = f"return self._store.{node.name}"
    elif returns.startswith("AsyncIterator"):
        returns = returns.replace("AsyncIterator", "Iterator")
        body = f"return map(Lease, _iterate({call}))" if returns == "Iterator[Lease]" else f"return _iterate({call})"
        if " | " in returns:  # The call fits none of the overloads, but all of them together.
            body = body.replace("self._store", 'cast("Any", self._store)')
    elif isinstance(node, ast.AsyncFunctionDef):
        call = f"run_blocking({call})"
        body = call if returns == "None" else f"return {returns}({call})" if returns in ("Lease", "Queued") else f"return {call}"
    else:
        body = f"return {returns}({call})" if returns in ("Edit", "Leasing", "Queued", "Store") else f"return {call}"
    decorators = "".join(f"@{ast.unparse(decorator)}\n" for decorator in node.decorator_list)
    return f'{decorators}def {node.name}({ast.unparse(node.args)}) -> {returns}:\n    """{docstring(node)}"""\n    {body}\n'


def opening(node: ast.FunctionDef) -> str:
    """The module's `open`, which opens at once."""
    doc = docstring(node).replace("async with perdure.open", "with perdure.sync.open")
    return (
        f'\n\ndef open({ast.unparse(node.args)}) -> Store:\n    """{doc}"""\n'
        f"    return Store(run_blocking(_opening.open({arguments(node.args)})._open()))\n"
    )


def arguments(args: ast.arguments) -> str:
    """The call that passes every parameter on."""
    passed = [arg.arg for arg in args.args if arg.arg != "self"]
    passed += [f"*{args.vararg.arg}"] if args.vararg else []
    passed += [f"{arg.arg}={f'_asynchronous({arg.arg})' if arg.arg == 'lease' else arg.arg}" for arg in args.kwonlyargs]
    passed += [f"**{args.kwarg.arg}"] if args.kwarg else []
    return ", ".join(passed)


def docstring(node: ast.AST) -> str:
    """The docstring as written, with blocking examples."""
    text = ast.get_docstring(node, clean=False) or ""  # type: ignore[arg-type]
    return text.replace("`async with store.", "`with store.").replace(
        "The function may be a coroutine function and may run", "The function may run"
    )


def indent(text: str) -> str:
    """Into a class body. Docstrings keep their own indentation."""
    lines = text.splitlines()
    return "\n" + "\n".join(f"    {line}" if line and not line.startswith("        ") else line for line in lines)


def formatted(text: str) -> str:
    """As the project's formatter writes it."""
    ruff = Path(sys.executable).with_name("ruff")
    done = subprocess.run(
        [ruff, "format", "--stdin-filename", TARGET, "-"], input=text, capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
