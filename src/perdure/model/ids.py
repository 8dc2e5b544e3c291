"""Names of things: tenants, sessions, commit ids, idempotency keys, actors. Checked once, at the door."""

from __future__ import annotations

from typing import NamedTuple

from perdure.errors import Invalid

NAME_BYTES_MAX = 255
"""Longest tenant, session id, idempotency key or actor, in bytes of UTF-8."""

SYSTEM = "~"
"""Tenants that begin with this are Perdure's own."""


class SessionKey(NamedTuple):
    """A session's full name. Every path in every engine is scoped by the tenant."""

    tenant: str
    id: str


def check_name(what: str, name: object) -> str:
    """The name itself, if it is a string of 1 to 255 bytes of UTF-8 without control characters; else `Invalid`."""
    if type(name) is not str:
        raise Invalid(f"{what} must be a string, not {type(name).__name__}.")
    if not name:
        raise Invalid(f"{what} must not be empty.")
    if len(name) <= NAME_BYTES_MAX and name.isascii() and name.isprintable():
        return name
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in name):
        raise Invalid(f"{what} must not contain control characters: {name[:60]!r}.")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise Invalid(f"{what} must be encodable as UTF-8; {name[:60]!r} holds a lone surrogate.") from None
    if size > NAME_BYTES_MAX:
        raise Invalid(f"{what} may have at most {NAME_BYTES_MAX} bytes; this one has {size}.")
    return name


def check_tenant(tenant: object) -> str:
    """A user's tenant, as `check_name`, of at most 254 bytes, and none that begins with `~`; else `Invalid`."""
    name = check_name("A tenant", tenant)
    if name.startswith(SYSTEM):
        raise Invalid(f"A tenant must not begin with {SYSTEM!r}, which marks Perdure's own sessions: {name[:60]!r}.")
    if len(name.encode()) >= NAME_BYTES_MAX:
        raise Invalid(f"A tenant may have at most {NAME_BYTES_MAX - 1} bytes; this one has {len(name.encode())}.")
    return name


def system_tenant(tenant: str = "") -> str:
    """The tenant of Perdure's own sessions that belong to a user's tenant; without one, to the whole store."""
    return SYSTEM + tenant


def is_system(tenant: str) -> bool:
    """Whether the sessions of this tenant are Perdure's own."""
    return tenant.startswith(SYSTEM)


def life_key(key: str, life: int) -> str:
    """How an idempotency key is stored that an earlier life of its session has used: no caller's key has the control character."""
    return f"{life}\x1f{key}"


def plain_key(stored: str | None) -> str | None:
    """The caller's key, of a key as it is stored."""
    return stored if stored is None or "\x1f" not in stored else stored.partition("\x1f")[2]


def uuid_text(id: bytes) -> str:
    """A UUID as people write it: 8-4-4-4-12 hexadecimal digits."""
    digits = id.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def uuid7(now: int, bits: int) -> bytes:
    """A UUIDv7 (RFC 9562, section 5.7) from a time in nanoseconds and 74 random bits."""
    millis = now // 1_000_000
    value = (millis & (1 << 48) - 1) << 80 | 7 << 76 | (bits >> 62 & 0xFFF) << 64 | 2 << 62 | bits & (1 << 62) - 1
    return value.to_bytes(16, "big")
