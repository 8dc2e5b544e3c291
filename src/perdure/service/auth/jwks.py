"""The keys of an identity provider (JWKS, RFC 7517), fetched by one request at a time and kept.

A key that is not known is asked for once in `AGAIN_SECONDS`, so tokens with invented keys cost nothing. Keys older than `FRESH_SECONDS` are
fetched again while requests go on with them; where the provider is away they hold for `STALE_SECONDS`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from perdure.errors import Invalid, Unavailable
from perdure.service.options import is_loopback

FRESH_SECONDS = 300.0
STALE_SECONDS = 24 * 3600.0
AGAIN_SECONDS = 10.0
TIMEOUT_SECONDS = 5.0
DOCUMENT_BYTES_MAX = 1 << 20
KEYS_MAX = 100
_log = logging.getLogger("perdure.service")


class Jwks:
    """The keys behind one URL, as one node sees them. Belongs to one event loop."""

    def __init__(
        self,
        url: str,
        algorithms: Iterable[str],
        monotonic: Callable[[], float],
        fetch: Callable[[str], bytes] | None = None,
    ) -> None:
        """`fetch` is called in a thread. Raises `Invalid` for a URL that others could read and change on its way."""
        place = urlsplit(url)
        if place.scheme != "https" and not (place.scheme == "http" and is_loopback(place.hostname or "")):
            raise Invalid("The keys of an identity provider come by https://, or by http:// from this machine.", advice="")
        self._url, self._algorithms, self._monotonic, self._fetch = url, frozenset(algorithms), monotonic, fetch or fetch_document
        self._keys: dict[str, PyJWK] = {}
        self._fetched: float | None = None
        self._tried: float | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def key(self, id: str) -> PyJWK | None:
        """The key of this `kid`; `None`: the provider has none. Raises `Unavailable` where no keys could be had yet, or not for a day."""
        now = self._monotonic()
        if self._fetched is None or now - self._fetched > STALE_SECONDS:
            await self._refresh()
            if self._fetched is None or self._monotonic() - self._fetched > STALE_SECONDS:
                raise Unavailable("The keys of the identity provider cannot be read, so no token can be checked.")
        elif id not in self._keys:
            await self._refresh()
        elif now - self._fetched > FRESH_SECONDS:
            self._start()
        return self._keys.get(id)

    async def _refresh(self) -> None:
        refreshing = self._start()
        if refreshing is not None:
            await asyncio.shield(refreshing)

    def _start(self) -> asyncio.Task[None] | None:
        """The fetch that goes on, or a new one; `None`: the last one was a moment ago."""
        if self._refreshing is None:
            now = self._monotonic()
            if self._tried is not None and now - self._tried < AGAIN_SECONDS:
                return None
            self._tried = now
            self._refreshing = asyncio.ensure_future(self._read())
        return self._refreshing

    async def _read(self) -> None:
        try:
            document = await asyncio.to_thread(self._fetch, self._url)
            keys = parse_keys(document, self._algorithms)
        except (OSError, ValueError, HTTPException, PyJWTError) as error:
            _log.warning("The keys of the identity provider could not be read: %s", type(error).__name__)
        else:
            kept = {id: old for id, old in self._keys.items() if id in keys and _same(old, keys[id])}
            self._keys = {**keys, **kept}
            self._fetched = self._monotonic()
        finally:
            self._refreshing = None


def parse_keys(document: bytes, algorithms: Iterable[str]) -> dict[str, PyJWK]:
    """The signing keys of a JWKS document for these algorithms, by `kid`. Others are left out. Raises `ValueError` for what is no JWKS."""
    found = json.loads(document)
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list):
        raise ValueError("no JWKS")  # noqa: TRY004 - it is the document that is wrong
    read: dict[str, PyJWK] = {}
    for each in keys[:KEYS_MAX]:
        if isinstance(each, dict) and isinstance(each.get("kid"), str) and each.get("use", "sig") == "sig":
            key = _key(each)
            if key is not None and key.algorithm_name in algorithms:
                read.setdefault(each["kid"], key)
    return read


def _key(data: dict[str, Any]) -> PyJWK | None:
    """A public key; `None` for what is none: a secret that both sides know is no key for a service that anybody may call."""
    if data.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    try:
        return PyJWK({name: value for name, value in data.items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth")})
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None


def _same(one: PyJWK, other: PyJWK) -> bool:
    return bool(one._jwk_data == other._jwk_data)


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """A redirect may lead anywhere: it is an error."""


def fetch_document(url: str) -> bytes:
    """The body at this URL, within `TIMEOUT_SECONDS` for each step. Raises `OSError`, `ValueError` for one that is too large."""
    request = Request(url, headers={"Accept": "application/json", "User-Agent": "perdure"})  # noqa: S310 - the scheme was checked
    with build_opener(_NoRedirect).open(request, timeout=TIMEOUT_SECONDS) as answer:
        body: bytes = answer.read(DOCUMENT_BYTES_MAX + 1)
    if len(body) > DOCUMENT_BYTES_MAX:
        raise ValueError("too large")
    return body
