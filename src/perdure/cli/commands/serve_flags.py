"""Options of `perdure serve` about who may call, and how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Group, Parameter

from perdure.cli.exits import UsageError
from perdure.errors import Invalid

if TYPE_CHECKING:
    from perdure.service.limits.options import LimitOptions
    from perdure.service.serving import AccessOptions

Text = Annotated[str | None, Parameter(show_default=False)]
Number = Annotated[float | None, Parameter(show_default=False)]
Count = Annotated[int | None, Parameter(show_default=False)]
UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


@Parameter(name="*", group=Group("Who may call", sort_key=80))
@dataclass(frozen=True)
class Access:
    """Credentials."""

    tokens: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    """Ask for credentials also while the store has no token yet. Once it has had one, they are asked for anyhow."""
    jwt_issuer: Text = None
    """The identity provider whose JSON Web Tokens hold: their `iss`."""
    jwt_audience: Text = None
    """What their `aud` has to name."""
    jwt_jwks_url: Annotated[str | None, Parameter(name=["--jwks-url"], show_default=False)] = None
    """Where the provider's keys are, by https."""
    jwt_tenant_claim: Text = None
    """The claim that names the tenant; tenant without it."""
    jwt_scope_claim: Text = None
    """The claim with the scopes, as words; scope without it."""
    jwt_actor_claim: Text = None
    """The claim with the only actor that commits may name; without it any."""
    jwt_algorithms: Text = None
    """What tokens may be signed with; RS256,ES256,EdDSA without it."""

    def options(self, environment: Mapping[str, str]) -> AccessOptions:
        """As the service takes them. Raises `UsageError`."""
        from perdure.service.auth.jwt import JwtOptions
        from perdure.service.serving import AccessOptions

        found = _given(self, environment)
        said = {name.removeprefix("jwt_"): value for name, value in found.items() if name.startswith("jwt_")}
        if "algorithms" in said:
            said["algorithms"] = tuple(word.strip() for word in said["algorithms"].split(","))
        if said and (missing := [name for name in ("issuer", "audience", "jwks_url") if name not in said]):
            names = ", ".join("--jwks-url" if name == "jwks_url" else f"--jwt-{name}" for name in missing)
            raise UsageError(f"JSON Web Tokens need {names} too.")
        try:
            return AccessOptions(tokens=_is_true(found.get("tokens", False)), jwt=JwtOptions(**said) if said else None)
        except Invalid as error:
            raise UsageError(str(error)) from None


@Parameter(name="*", group=Group("Limits of each tenant on this node; 0: none", sort_key=90))
@dataclass(frozen=True)
class Limits:
    """How much."""

    limit_requests: Number = None
    """Requests a second; 10000 without it."""
    limit_commits: Number = None
    """Commits a second; 20000 without it."""
    limit_bytes: Text = None
    """Bytes of bodies a second, in requests and answers; 128MiB without it."""
    limit_watchers: Count = None
    """Event streams and long polls at once; 15000 without it."""
    limit_open: Count = None
    """Other requests at once; 2000 without it."""
    turns: Count = None
    """Requests of all tenants that the engine works on at once; 256 without it. Tenants take turns."""
    turn_seconds: Number = None
    """Seconds that a request waits for its turn at most; 10 without it."""

    def options(self, environment: Mapping[str, str]) -> LimitOptions:
        """As the service takes them. Raises `UsageError`."""
        from perdure.service.limits.options import LimitOptions

        found = {name.removeprefix("limit_"): value for name, value in _given(self, environment).items()}
        if "bytes" in found:
            found["bytes"] = parse_size(found["bytes"], "--limit-bytes")
        try:
            return msgspec.convert(found, LimitOptions, strict=False)
        except (msgspec.ValidationError, Invalid) as error:
            raise UsageError(f"{str(error).rstrip('.')}.") from None


ACCESS, LIMITS = Access(), Limits()


def parse_size(text: str, option: str) -> int:
    """Bytes, of a number with or without KiB, MiB or GiB. Raises `UsageError`."""
    digits = text.strip().rstrip("BbGgIiKkMm").strip()
    unit = text.strip()[len(digits) :].strip().lower()
    if not digits.isascii() or not digits.isdecimal() or unit not in UNITS:
        raise UsageError(f"{option} takes bytes, as a number with KiB, MiB or GiB, not {text!r}.")
    return int(digits) * UNITS[unit]


def _given(flags: Any, environment: Mapping[str, str]) -> dict[str, Any]:
    """What the command line says, else the environment."""
    found: dict[str, Any] = {}
    for field in fields(flags):
        value = getattr(flags, field.name)
        variable = "PERDURE_JWKS_URL" if field.name == "jwt_jwks_url" else f"PERDURE_{field.name.upper()}"
        if value is not None and value is not False:  # 0 is said: no limit.
            found[field.name] = value
        elif said := environment.get(variable):
            found[field.name] = said
    return found


def _is_true(value: object) -> bool:
    if value in (True, False):
        return bool(value)
    word = str(value).strip().lower()
    if word not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        raise UsageError(f"PERDURE_TOKENS is 1 or 0, not {word!r}.")
    return word in ("1", "true", "yes", "on")
