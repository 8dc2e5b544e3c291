"""An identity provider in the test's process: keys, a JWKS document, signed tokens."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE, URL = "https://id.example", "perdure", "https://id.example/keys"


class Provider:
    """Signs tokens. `fetches` counts how often its keys were asked for; `away` makes that fail; `gate` holds it back until it is set."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.private: dict[str, Any] = {}
        self.published: dict[str, dict[str, Any]] = {}
        self.fetches, self.away = 0, False
        self.gate = threading.Event()
        self.gate.set()
        self.rotate("one")

    def rotate(self, id: str, *, elliptic: bool = True) -> None:
        """A new key, published beside the others."""
        key: Any = ec.generate_private_key(ec.SECP256R1()) if elliptic else rsa.generate_private_key(65_537, 2_048)
        public = json.loads((ECAlgorithm if elliptic else RSAAlgorithm).to_jwk(key.public_key()))
        self.private[id] = key
        self.published[id] = {**public, "kid": id, "use": "sig", "alg": "ES256" if elliptic else "RS256"}

    def fetch(self, url: str) -> bytes:
        """What `Jwks` asks for."""
        self.fetches += 1
        self.gate.wait(30)
        if self.away:
            raise OSError("the provider is away")
        return json.dumps({"keys": list(self.published.values())}).encode()

    def token(self, key: str = "one", *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token for a minute. A claim that is `None` is left out."""
        now = self._now()
        said = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 60, "sub": "ana", "tenant": "acme", "scope": "read append", **claims}
        algorithm = self.published.get(key, {}).get("alg", "ES256")
        said = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(said, self.private[key], algorithm=algorithm, headers={"kid": key, **(header or {})})
