"""Checks the JSON Web Tokens (RFC 7519) of an identity provider: signature, issuer, audience, times; then its claims are a credential.

What was verified is remembered by the token's SHA-256 until it ends, as long as the provider has the very key that signed it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from jwt import PyJWK, PyJWT, get_unverified_header
from jwt.exceptions import PyJWTError

from perdure.clock import Clock
from perdure.errors import Invalid, Unauthorized
from perdure.lru import LruMap
from perdure.model.ids import check_name, check_tenant
from perdure.service.auth.bearer import digest, refused
from perdure.service.auth.jwks import Jwks
from perdure.service.hooks import Credential, Scope

ALGORITHMS = ("RS256", "ES256", "EdDSA")
"""What a token may be signed with where nothing else is set: always with keys of which only the provider has the secret half."""
ASYMMETRIC = frozenset((
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
))  # fmt: skip
VERIFIED_CACHED = 10_000
SCOPE_PREFIX = "perdure:"
"""What may stand before a scope, where a provider's tokens are for several services."""


class JwtOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which tokens hold, and what their claims are called."""

    issuer: str
    audience: str
    jwks_url: str
    tenant_claim: str = "tenant"
    scope_claim: str = "scope"
    """Words with spaces between them, or a list of words."""
    actor_claim: str | None = None
    """The claim with the only actor that commits may name; `None`: any actor."""
    algorithms: tuple[str, ...] = ALGORITHMS

    def __post_init__(self) -> None:
        for name in ("issuer", "audience", "jwks_url", "tenant_claim", "scope_claim"):
            if not getattr(self, name):
                raise Invalid(f"--jwt-{name.replace('_', '-')} is not set.", advice="")
        if not self.algorithms or not ASYMMETRIC.issuperset(self.algorithms):
            raise Invalid(f"--jwt-algorithms takes some of {', '.join(sorted(ASYMMETRIC))}.", advice="")


class Jwt:
    """The tokens of one provider, as one node sees them. Belongs to one event loop."""

    def __init__(self, options: JwtOptions, clock: Clock, fetch: Callable[[str], bytes] | None = None) -> None:
        """`fetch` reads the provider's keys, in a thread. Raises `Invalid` for a URL that is not safe."""
        self._options, self._clock = options, clock
        self._jwks = Jwks(options.jwks_url, options.algorithms, clock.monotonic, fetch)
        self._decoder = PyJWT()
        self._verified = LruMap[bytes, tuple[str, PyJWK, Credential]](VERIFIED_CACHED)

    async def credential(self, token: str) -> Credential:
        """Whose it is. Raises `Unauthorized`, and `Unavailable` where the provider's keys cannot be read."""
        key_of = digest(token)
        known = self._verified.get(key_of)
        if known is not None:
            id, signed_with, credential = known
            if credential.expires is not None and credential.expires <= self._clock.now() / 1e9:
                self._verified.pop(key_of)
                raise refused()
            if await self._jwks.key(id) is signed_with:
                return credential
        id, algorithm = _header(token)
        key = await self._jwks.key(id)
        if key is None or key.algorithm_name != algorithm:
            raise refused()
        credential = self._credential(self._claims(token, key))
        self._verified.put(key_of, (id, key, credential))
        return credential

    def _claims(self, token: str, key: PyJWK) -> Mapping[str, Any]:
        """The claims of a token that holds. Times are compared here, by the node's clock: PyJWT has one of its own."""
        options = self._options
        try:
            claims = self._decoder.decode(
                token, key, algorithms=[key.algorithm_name], audience=options.audience, issuer=options.issuer,
                options={"require": ["exp", "iss", "aud"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )  # fmt: skip
        except (PyJWTError, ValueError, TypeError):
            raise refused() from None
        now = self._clock.now() / 1e9
        expires, begins = claims["exp"], claims.get("nbf", 0)
        if not _is_number(expires) or not _is_number(begins) or expires <= now or begins > now:
            raise refused()
        return claims

    def _credential(self, claims: Mapping[str, Any]) -> Credential:
        options = self._options
        try:
            tenant = check_tenant(claims.get(options.tenant_claim))
            actor = None if options.actor_claim is None else check_name("An actor", claims.get(options.actor_claim))
        except Invalid:
            raise Unauthorized(
                "The token holds, but does not say what this service needs to know.",
                advice=f"Its claim {options.tenant_claim!r} has to name a tenant"
                + ("." if options.actor_claim is None else f", and {options.actor_claim!r} an actor."),
            ) from None
        subject = claims.get("sub")
        return Credential(
            tenant=tenant,
            scopes=_scopes(claims.get(options.scope_claim)),
            name=f"jwt:{subject[:200]}" if isinstance(subject, str) else "jwt",
            actor=actor,
            expires=float(claims["exp"]),
        )


def _header(token: str) -> tuple[str, str]:
    """The key's id and the algorithm that a token names. Raises `Unauthorized`."""
    try:
        header = get_unverified_header(token)
    except (PyJWTError, ValueError, TypeError, RecursionError):
        raise refused() from None
    id, algorithm = header.get("kid"), header.get("alg")
    if not isinstance(id, str) or not isinstance(algorithm, str):
        raise refused()
    return id, algorithm


def _scopes(said: object) -> frozenset[Scope]:
    words = said.split() if isinstance(said, str) else [word for word in said if isinstance(word, str)] if isinstance(said, list) else []
    known = {scope.value: scope for scope in Scope}
    return frozenset(known[plain] for word in words if (plain := word.removeprefix(SCOPE_PREFIX)) in known)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
