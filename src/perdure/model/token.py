"""Tokens: a commit's place as an opaque string, which a caller carries from one process to another."""

from __future__ import annotations

import binascii
import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec

from perdure.errors import Invalid

_MARK = "p1."
"""What a token begins with: that it is one, and how it is written."""
_CHECK_BYTES = 4
"""Bytes of the digest: a damaged token must not look like a commit that is gone."""
TOKEN_CHARS_MAX = 2_048
"""Longest token that is looked at."""


class Token(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A commit of a session: the store's id, the tenant, the session, version and hash."""

    store: str
    tenant: str
    session: str
    version: int
    hash: bytes


def write_token(token: Token) -> str:
    """The token as text: letters, digits, `-`, `_` and a dot. It holds the session's name, and no secret."""
    payload = msgspec.msgpack.encode(token)
    return _MARK + urlsafe_b64encode(_check(payload) + payload).decode().rstrip("=")


def read_token(text: object) -> Token:
    """The token again. Raises `Invalid` for what is none."""
    if type(text) is not str:
        raise Invalid(f"A token is the string that view.token gives, not {type(text).__name__}.")
    if text.startswith(_MARK) and len(text) <= TOKEN_CHARS_MAX:
        try:
            coded = text[len(_MARK) :]
            found = urlsafe_b64decode(coded + "=" * (-len(coded) % 4))
            payload = found[_CHECK_BYTES:]
            token = msgspec.msgpack.decode(payload, type=Token)
        except (ValueError, binascii.Error, msgspec.DecodeError):
            pass
        else:
            if found[:_CHECK_BYTES] == _check(payload):
                return token
    raise Invalid("This is no token, or a part of one: pass on what a view has as its `token`, unchanged.")


def _check(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=_CHECK_BYTES).digest()
