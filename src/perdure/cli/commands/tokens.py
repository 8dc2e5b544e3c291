"""`perdure tokens`: who may call a service, and ending that."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from perdure.cli.common import COMMON, Common, parse_time
from perdure.cli.exits import UsageError
from perdure.cli.output import durations
from perdure.cli.output.terminal import Column, Terminal
from perdure.service.auth.records import TokenInfo, create_token, list_tokens, revoke_token


class TokenRow(msgspec.Struct, frozen=True):
    """A token, without what would let anybody use it."""

    id: str
    """What --id takes. It is no secret."""
    name: str
    """What it was called."""
    tenant: str
    """Whose sessions it reaches."""
    scopes: list[str]
    """Of read, append, lease and admin."""
    actor: str | None
    """The only actor that its commits may name; null: any."""
    created_at: str
    """When it was made, RFC 3339 in UTC."""
    expires_at: str | None
    """When it ends, RFC 3339 in UTC; null: never."""
    revoked_at: str | None
    """When it was revoked, RFC 3339 in UTC."""

    @classmethod
    def of(cls, info: TokenInfo) -> TokenRow:
        return msgspec.convert(info.to_dict(), cls)


class NewTokenRow(TokenRow, frozen=True, kw_only=True):
    """A token just made."""

    token: str
    """The token. It is shown this once, and stored nowhere."""


Name = Annotated[str | None, Parameter(show_default=False)]


def tokens(
    action: Literal["create", "list", "revoke"],
    url: str | None = None,
    /,
    *,
    scope: Name = None,
    expires: Name = None,
    actor: Name = None,
    name: Name = None,
    id: Name = None,
    all_tenants: bool = False,
    common: Common = COMMON,
) -> None:
    """Make, list and revoke the tokens that `perdure serve` asks for. They are kept in the store, so every node knows them.

    `create` prints the token once; the store has its SHA-256 only. `revoke` ends one on all nodes within 10 seconds.

    Parameters
    ----------
    action
        create, list or revoke.
    url
        The store's URL, as with --url.
    scope
        With create: what it allows, of read,append,lease,admin. None implies another.
    expires
        With create: when it ends, as 90d or 2027-01-31T00:00:00Z. Without it never.
    actor
        With create: the only actor that its commits may name.
    name
        With create: what to call it, for lists.
    id
        With revoke: which one.
    all_tenants
        With list: those of every tenant.
    """
    if url is not None:
        if common.url is not None:
            raise UsageError("Name the store once: as the argument, or with --url.")
        common = replace(common, url=url)
    _check(action, create={"--scope": scope, "--expires": expires, "--actor": actor, "--name": name}, revoke={"--id": id})
    terminal = common.terminal()
    if action == "create":
        end = _end(expires)
        with common.open_or_make() as store:
            scopes = [word.strip() for word in str(scope).split(",")]
            made = create_token(store, tenant=common.tenant, scopes=scopes, name=name or "", actor=actor, expires=end)
        _show_new(terminal, NewTokenRow(**msgspec.structs.asdict(TokenRow.of(made.info)), token=made.token))
        return
    with common.open() as store:
        found = [revoke_token(store, str(id))] if action == "revoke" else list_tokens(store, None if all_tenants else common.tenant)
    if action == "revoke" and not terminal.json:
        if not terminal.quiet:
            terminal.print(f"{found[0].id} is revoked; nodes refuse it within 10 seconds")
        return
    _table(terminal, [TokenRow.of(info) for info in found])
    if not found:
        terminal.note("There are no tokens." if all_tenants else f"Tenant {common.tenant!r} has no tokens.")


def _check(action: str, **options: dict[str, str | None]) -> None:
    """Options go with their action, and each action has what it needs."""
    for owner, values in options.items():
        if owner != action and (given := [option for option, value in values.items() if value is not None]):
            raise UsageError(f"{given[0]} goes with `perdure tokens {owner}`.")
    if action == "create" and options["create"]["--scope"] is None:
        raise UsageError("Say what the token allows: --scope read, or several as --scope read,append,lease,admin.")
    if action == "revoke" and options["revoke"]["--id"] is None:
        raise UsageError("Say which token: --id, as `perdure tokens list` shows it.")


def _end(text: str | None) -> datetime | None:
    if text is None:
        return None
    duration = durations.parse(text)
    try:
        return parse_time(text, "neither a duration as 90d nor a time") if duration is None else datetime.now(UTC) + duration
    except OverflowError:
        raise UsageError(f"--expires {text} is too far away: leave it out for a token without an end.") from None


def _show_new(terminal: Terminal, row: NewTokenRow) -> None:
    if terminal.json:
        terminal.object(row)
        return
    terminal.print(row.token)
    terminal.note(f"{row.id}: {', '.join(row.scopes)} on tenant {row.tenant!r}, {_until(row)}. The token is shown this once: keep it safe.")


def _until(row: TokenRow) -> str:
    return "without an end" if row.expires_at is None else f"until {row.expires_at}"


def _table(terminal: Terminal, rows: list[TokenRow]) -> None:
    terminal.rows(
        rows,
        Column("id", lambda row: row.id, style="cyan"),
        Column("name", lambda row: "" if row.name == row.id else row.name, share="cut", spare=True),
        Column("tenant", lambda row: row.tenant, share="wrap"),
        Column("scopes", lambda row: ",".join(row.scopes)),
        Column("actor", lambda row: row.actor or "", spare=True),
        Column("expires (UTC)", lambda row: "never" if row.expires_at is None else terminal.when(row.expires_at)),
        Column("revoked (UTC)", lambda row: "" if row.revoked_at is None else terminal.when(row.revoked_at), spare=True),
    )
