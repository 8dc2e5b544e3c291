"""What the cases are made of: a fresh engine, records opaque to it, and the registry of cases."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from perdure.backends.spi import Append, Appended, Backend, Durability, Head, Index, Outcome, Record
from perdure.errors import Error
from perdure.model.commit import Kind, Status
from perdure.model.ids import SessionKey

Fresh = Callable[[], AbstractAsyncContextManager[Backend]]
Another = Callable[[Backend], AbstractAsyncContextManager[Backend]]

S = SessionKey("acme", "s")
_START = 1_700_000_000_000_000_000


class Kit:
    """What a case works with: a fresh backend, and a second handle on its data where there is one."""

    def __init__(self, backend: Backend, other: Backend | None) -> None:
        self.backend = backend
        self.other = other or backend

    async def one(self, append: Append) -> Outcome | BaseException:
        """The outcome of a single append."""
        return (await self.backend.append([append]))[0]

    async def chain(self, session: SessionKey, count: int, **columns: object) -> list[Head]:
        """`count` commits, one after another; their heads."""
        heads = []
        for _ in range(count):
            outcome = await self.one(behind(session, **columns))  # type: ignore[arg-type]
            assert isinstance(outcome, Appended), outcome
            heads.append(outcome.head)
        return heads

    async def pass_min_writer(self) -> None:
        """Wait until every handle compares, or has read again, which writers the store takes."""
        await asyncio.sleep(self.backend.capabilities.min_writer_seconds)


def record(
    session: SessionKey,
    head: Head | None,
    *,
    key: str | None = None,
    request: bytes = b"",
    kind: int = Kind.data,
    status: int = Status.active,
    body: bytes = b"body",
    skip: int = 0,
    salt: bytes = b"",
) -> Record:
    """A finished record after `head`, opaque to the engine. `skip` leaves a gap; `salt` makes it differ from its twin."""
    version = (head.version if head else 0) + 1 + skip
    prev = head.hash if head else bytes(32)
    hash = hashlib.sha256(b"|".join((repr(session).encode(), prev, str(version).encode(), body[:64], salt, (key or "").encode()))).digest()
    data = version if kind == Kind.data else (head.data if head else 0)
    position = Head(version, hash, (head.at if head else _START) + 1_000, head.epoch if head else 0, int(status), data)
    return Record(position, hash[:16], int(kind), key, request, prev + b"meta", body)


def behind(session: SessionKey, *, index: Index | None = None, durability: Durability = Durability.memory, **columns: object) -> Append:
    """An append that accepts any head."""
    key = columns.get("key")
    return Append(session, lambda head: (record(session, head, **columns),), key, index, durability)  # type: ignore[arg-type]


def expecting(session: SessionKey, expected: Head | None, **columns: object) -> Append:
    """An append that accepts one head only."""

    def finish(head: Head | None) -> Sequence[Record] | None:
        return (record(session, head, **columns),) if head == expected else None  # type: ignore[arg-type]

    return Append(session, finish, columns.get("key"))  # type: ignore[arg-type]


class Case:
    """One claim about engines: its name is the function's, its sentence the docstring."""

    def __init__(self, check: Callable[[Kit], Awaitable[None]], *, needs_another: bool, needs_due: bool = False) -> None:
        self.name = check.__name__
        self.claim = check.__doc__ or ""
        self.needs_another = needs_another
        self.needs_due = needs_due
        """Whether it asks for schema 2. An engine that does not list in the order `due` is not asked."""
        self._check = check

    def __repr__(self) -> str:
        return self.name

    def run(self, fresh: Fresh, another: Another | None = None, *, timeout: float = 60.0) -> None:
        """Run the case in an event loop of its own. Raises `AssertionError`; `timeout` in seconds."""
        asyncio.run(asyncio.wait_for(self._run(fresh, another), timeout))

    async def _run(self, fresh: Fresh, another: Another | None) -> None:
        async with AsyncExitStack() as stack:
            backend = await stack.enter_async_context(fresh())
            if self.needs_due and "due" not in backend.capabilities.scan_orders:
                return
            other = await stack.enter_async_context(another(backend)) if another is not None else None
            try:
                await self._check(Kit(backend, other))
            except Error as error:
                raise AssertionError(f"{self.name}: {type(error).__name__}: {error}") from error


CASES: list[Case] = []
"""Every case, in the order of the specification."""


def case(check: Callable[[Kit], Awaitable[None]]) -> Callable[[Kit], Awaitable[None]]:
    """Register a case."""
    CASES.append(Case(check, needs_another=False))
    return check


def case_of_two(check: Callable[[Kit], Awaitable[None]]) -> Callable[[Kit], Awaitable[None]]:
    """Register a case that needs a second handle on the same data."""
    CASES.append(Case(check, needs_another=True))
    return check


def indexed(check: Callable[[Kit], Awaitable[None]]) -> Callable[[Kit], Awaitable[None]]:
    """Register a case of schema 2."""
    CASES.append(Case(check, needs_another=False, needs_due=True))
    return check


def indexed_of_two(check: Callable[[Kit], Awaitable[None]]) -> Callable[[Kit], Awaitable[None]]:
    """Register a case of schema 2 that needs a second handle on the same data."""
    CASES.append(Case(check, needs_another=True, needs_due=True))
    return check


async def refuses(kind: type[Error], call: Awaitable[object]) -> None:
    """Assert that a call raises this error."""
    try:
        result = await call
    except kind:
        return
    raise AssertionError(f"expected {kind.__name__}, got {result!r}")


async def versions(backend: Backend, session: SessionKey) -> list[int]:
    """All versions that can be read, a page at a time."""
    found: list[int] = []
    while page := await backend.read(session, after=found[-1] if found else 0):
        found += [item.head.version for item in page]
    return found
