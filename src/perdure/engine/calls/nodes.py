"""Calls that a client of a service leaves to its nodes: their engine writes Perdure's own sessions, and moves or removes commits."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from perdure.backends.spi import Durability, Served
from perdure.engine.views import Archived, Receipt, Sizes
from perdure.model.ids import SessionKey
from perdure.model.lifecycle import SECOND
from perdure.model.timestamps import to_nanoseconds
from perdure.wire import LONG_SECONDS
from perdure.wire.paths import segment

_FRACTION_DIGITS = 9


async def configure_prefix(
    nodes: Served, tenant: str, prefix: str, asked: dict[str, int | timedelta | str | bool | None], key: str | None, actor: str | None
) -> Receipt:
    """See `Store.configure`. `asked`: what is to change, durations in nanoseconds but for `keep`."""
    said: dict[str, Any] = {name: _plain(name, value) for name, value in asked.items()}
    return _receipt(await nodes.ask("POST", "/v1/configure", tenant=tenant, body={**said, "prefix": prefix, "actor": actor}, key=key))


def _plain(name: str, value: Any) -> Any:
    """As the route takes it: durations in seconds."""
    if name == "keep" and value is not None:
        return keep_of(value)
    return value / SECOND if type(value) is int else value


def keep_of(keep: int | timedelta) -> dict[str, Any]:
    """How much is kept, as routes take it."""
    return {"seconds": keep.total_seconds()} if isinstance(keep, timedelta) else {"commits": keep}


async def archive(nodes: Served, session: SessionKey, actor: str | None) -> Archived:
    """See `Store.archive`."""
    return await _archived(nodes, session, "archive", {"actor": actor})


async def compact(nodes: Served, session: SessionKey, keep: int | timedelta, actor: str | None, *, drop: bool) -> Archived:
    """See `Store.compact`."""
    return await _archived(nodes, session, "compact", {"keep": keep_of(keep), "drop": drop, "actor": actor})


async def prove(nodes: Served, session: SessionKey) -> None:
    """Have a node prove what only nodes can: segments, and what anchors say of them. Raises `Corrupt`, `NotFound`, `Unsupported`."""
    path = f"/v1/sessions/{segment(session.id)}/verify"
    await nodes.ask("POST", path, tenant=session.tenant, seconds=LONG_SECONDS, repeatable=True)


async def _archived(nodes: Served, session: SessionKey, what: str, body: dict[str, Any]) -> Archived:
    path = f"/v1/sessions/{segment(session.id)}/{what}"
    return msgspec.convert(await nodes.ask("POST", path, tenant=session.tenant, body=body, seconds=LONG_SECONDS, repeatable=True), Archived)


async def sizes(nodes: Served, session: SessionKey, parts: int, *, include_deleted: bool) -> Sizes:
    """See `Store.sizes`: the engine's, which a client does not see."""
    path = f"/v1/sessions/{segment(session.id)}/sizes?parts={parts}" + "&include_deleted=true" * include_deleted
    return msgspec.convert(await nodes.ask("GET", path, tenant=session.tenant, seconds=LONG_SECONDS, repeatable=True), Sizes)


def _receipt(said: dict[str, Any]) -> Receipt:
    """The receipt that a node gave, as `Receipt.to_dict` writes it."""
    whole, _, fraction = said["at"].removesuffix("Z").partition(".")
    at = to_nanoseconds(datetime.fromisoformat(f"{whole}+00:00")) // SECOND * SECOND + int(fraction.ljust(_FRACTION_DIGITS, "0"))
    return Receipt(
        said["version"],
        bytes.fromhex(said["id"].replace("-", "")),
        bytes.fromhex(said["hash"]),
        at,
        Durability[said["durability"]],
        said["duplicate"],
    )
