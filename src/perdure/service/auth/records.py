"""Tokens as a store keeps them: each a session of the system tenant `~` that has the token's SHA-256, and never the token.

A token is `perdure_`, its id, `_`, and 256 random bits in base64url. The id finds the session; it is no secret.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from contextlib import aclosing
from datetime import datetime
from typing import Any

import msgspec

from perdure.backends.spi import served
from perdure.clock import secret_bytes
from perdure.engine.store import Store, global_store
from perdure.engine.write.drafts import Draft
from perdure.errors import Deleted, Invalid, NotFound, Unsupported
from perdure.model import ops as op
from perdure.model.events import Event
from perdure.model.ids import check_name, check_tenant
from perdure.model.timestamps import moment, to_datetime, to_nanoseconds
from perdure.ops.either import Either
from perdure.service.auth.bearer import digest
from perdure.service.hooks import Scope

PREFIX = "token/"
"""What the ids of the sessions begin with; the token's id follows."""
MARK = "perdure_"
"""What each token begins with: so leaked ones are found by scanners."""
ID_BYTES, SECRET_BYTES = 8, 32
_TOKEN = re.compile(rf"{MARK}([0-9a-f]{{{2 * ID_BYTES}}})_[A-Za-z0-9_-]{{43}}\Z")


class Record(msgspec.Struct, frozen=True):
    """The state of a token's session. Times in nanoseconds since 1970."""

    digest: str
    """SHA-256 of the token, hexadecimal."""
    tenant: str
    scopes: list[str]
    name: str
    actor: str | None
    created: int
    expires: int | None
    revoked: int | None = None


class TokenInfo(msgspec.Struct, frozen=True):
    """A token, without what would let anybody use it."""

    id: str
    name: str
    tenant: str
    scopes: tuple[str, ...]
    actor: str | None
    """The only actor that its commits may name; `None`: any."""
    created_at: datetime
    expires_at: datetime | None
    """`None`: never."""
    revoked_at: datetime | None
    """`None`: it was not."""

    @classmethod
    def of(cls, id: str, record: Record) -> TokenInfo:
        return cls(
            id, record.name, record.tenant, tuple(record.scopes), record.actor,
            to_datetime(record.created), _time(record.expires), _time(record.revoked),
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it: times as RFC 3339."""
        return {name: moment(value) if isinstance(value, datetime) else value for name, value in msgspec.structs.asdict(self).items()}


class NewToken(msgspec.Struct, frozen=True):
    """A token just made. `token` is nowhere else: who loses it makes another one."""

    token: str
    info: TokenInfo


def id_of(token: str) -> str | None:
    """The id of what looks like a token; `None` for what is none."""
    found = _TOKEN.match(token)
    return found and found[1]


@Either
async def create_token(
    store: Store,
    *,
    tenant: str,
    scopes: Iterable[str],
    name: str = "",
    actor: str | None = None,
    expires: datetime | None = None,
) -> NewToken:
    """Make a token for one tenant, and store its SHA-256. `scopes`: of read, append, lease and admin; none implies another.

    Raises `Invalid`, also for an end that has passed.
    """
    check_tenant(tenant)
    now = store._core.clock.now()
    wanted = sorted(set(scopes), key=[scope.value for scope in Scope].index) if _are_scopes(scopes := list(scopes)) else []
    if expires is not None and (expires.tzinfo is None or to_nanoseconds(expires) <= now):
        raise Invalid("A token's end is an aware datetime in the future.", advice="")
    if name:
        check_name("A token's name", name)
    if actor is not None:
        check_name("An actor", actor)
    id = secret_bytes(ID_BYTES).hex()
    token = f"{MARK}{id}_{urlsafe_b64encode(secret_bytes(SECRET_BYTES)).decode().rstrip('=')}"
    record = Record(digest(token).hex(), tenant, wanted, name or id, actor, now, None if expires is None else to_nanoseconds(expires))
    await _tokens(store).append(PREFIX + id, Event("created", None, (op.set("", msgspec.to_builtins(record)),)), expect=0)
    return NewToken(token, TokenInfo.of(id, record))


@Either
async def list_tokens(store: Store, tenant: str | None = None) -> list[TokenInfo]:
    """The tokens of a tenant, or of all; those that ended or were revoked too."""
    system, found = _tokens(store), []
    async with aclosing(system.list(prefix=PREFIX)) as infos:  # type: ignore[type-var]
        async for info in infos:
            id = info.session.removeprefix(PREFIX)
            record = await read_record(store, id)
            if record is not None and tenant in (None, record.tenant):
                found.append(TokenInfo.of(id, record))
    return found


@Either
async def revoke_token(store: Store, id: str) -> TokenInfo:
    """End a token: nodes refuse it within 10 seconds. One that was revoked stays as it is. Raises `NotFound`."""

    def revoke(draft: Draft) -> None:
        if draft.state.get("revoked") is None:
            draft.state["revoked"] = store._core.clock.now()

    try:
        await _tokens(store).update(PREFIX + id, revoke, create=False)
    except (NotFound, Deleted, Invalid):
        raise NotFound(f"There is no token {id[:60]!r}.", advice="`perdure tokens list` shows the ids.") from None
    record = await read_record(store, id)
    if record is None:
        raise NotFound(f"There is no token {id[:60]!r}.", advice="`perdure tokens list` shows the ids.")
    return TokenInfo.of(id, record)


async def read_record(store: Store, id: str) -> Record | None:
    """A token's record; `None`: there is none."""
    try:
        view = await _tokens(store).read(PREFIX + id)
    except (NotFound, Deleted):
        return None
    return msgspec.convert(view.state, Record)


async def has_tokens(store: Store) -> bool:
    """Whether a token was ever made in this store, also one that has ended since."""
    async with aclosing(_tokens(store).list(prefix=PREFIX, limit=1)) as infos:  # type: ignore[type-var]
        async for _ in infos:
            return True
    return False


def _tokens(store: Store) -> Store:
    """Where the tokens of a store are. Raises `Unsupported` for a client of a service."""
    if served(store._core.backend) is not None:
        raise Unsupported("Tokens are made, listed and revoked at the URL of the engine that the nodes serve.", advice="")
    return global_store(store)


def _are_scopes(scopes: list[str]) -> bool:
    known = {scope.value for scope in Scope}
    if not scopes or not known.issuperset(scopes):
        raise Invalid(f"A token has at least one of the scopes {', '.join(scope.value for scope in Scope)}; not {scopes!r}.", advice="")
    return True


def _time(at: int | None) -> datetime | None:
    return None if at is None else to_datetime(at)
