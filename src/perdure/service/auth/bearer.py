"""The credential that a request brings: `Authorization: Bearer …`, and from nowhere else."""

from __future__ import annotations

import hashlib
import re

from perdure.errors import Unauthorized
from perdure.service.hooks import RequestHead

BEARER_CHARS_MAX = 8_192
"""Longest credential that is looked at."""
_CREDENTIAL = re.compile(r"[A-Za-z0-9._~+/=-]+\Z")
_REFUSED = "This credential does not hold."


def bearer(head: RequestHead) -> str:
    """The credential. Raises `Unauthorized` where there is none, or one in another form."""
    said = head.headers.get("authorization")
    if said is None:
        raise Unauthorized("This node asks who calls: send Authorization: Bearer and a token.", advice="")
    scheme, _, credential = said.partition(" ")
    credential = credential.strip()
    if scheme.lower() != "bearer" or len(credential) > BEARER_CHARS_MAX or not _CREDENTIAL.match(credential):
        raise Unauthorized("The header Authorization is not as this node takes it: Bearer and a token.", advice="")
    return credential


def digest(credential: str) -> bytes:
    """What stands for a credential in stores and caches."""
    return hashlib.sha256(credential.encode()).digest()


def refused() -> Unauthorized:
    """What is said of every credential that does not hold, whatever the reason is: so an attacker learns nothing."""
    return Unauthorized(_REFUSED, advice="It is unknown, expired, revoked, or made for another service. Get a new one.")
