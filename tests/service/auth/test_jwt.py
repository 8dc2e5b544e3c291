"""JSON Web Tokens: what holds, whose keys, and how rarely they are fetched."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError

import jwt as pyjwt
import pytest

import perdure
from perdure.service.auth.jwks import (
    AGAIN_SECONDS,
    DOCUMENT_BYTES_MAX,
    FRESH_SECONDS,
    STALE_SECONDS,
    Jwks,
    fetch_document,
    parse_keys,
)
from perdure.service.auth.jwt import ALGORITHMS, Jwt, JwtOptions
from perdure.service.hooks import Scope
from tests.support.backends.scenarios import until
from tests.support.service.clocks import HandClock
from tests.support.service.provider import AUDIENCE, ISSUER, URL, Provider


def made(**options: Any) -> tuple[HandClock, Provider, Jwt]:
    """A provider and a node that believes it."""
    clock = HandClock()
    provider = Provider(lambda: clock.seconds)
    said = JwtOptions(**{"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": URL, **options})
    return clock, provider, Jwt(said, clock, provider.fetch)


async def refused(who: Jwt, token: str) -> None:
    """It does not hold, and the text repeats nothing of it."""
    with pytest.raises(perdure.Unauthorized) as raised:
        await who.credential(token)
    assert token not in str(raised.value) and token.partition(".")[2] not in repr(raised.value.facts)


async def test_claims_are_a_credential() -> None:
    """Tenant, scopes, actor and end are those of the token."""
    clock, provider, who = made(actor_claim="sub", tenant_claim="org")
    found = await who.credential(provider.token(org="globex", scope="openid perdure:read append perdure:root"))
    assert (found.tenant, found.scopes, found.actor) == ("globex", frozenset((Scope.read, Scope.append)), "ana")
    assert (found.name, found.expires) == ("jwt:ana", clock.seconds + 60)
    listed = await who.credential(provider.token(org="globex", scope=["admin"]))
    assert listed.scopes == {Scope.admin}
    assert (await who.credential(provider.token(org="globex", scope=None))).scopes == frozenset()


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"}, {"iss": None}, {"aud": "billing"}, {"aud": None}, {"exp": None}, {"exp": 0}, {"exp": True},
        {"exp": 1_799_999_999}, {"exp": 1_800_000_000}, {"nbf": 1_800_000_001}, {"tenant": None}, {"tenant": "~"}, {"tenant": ["acme"]},
        {"tenant": ""},
    ],
)  # fmt: skip
async def test_a_token_for_others_or_another_time_is_refused(claims: dict[str, Any]) -> None:
    """Issuer, audience, times and tenant are all asked for."""
    _, provider, who = made()
    token = provider.token(**claims)
    await refused(who, token)
    await refused(who, token)


async def test_the_algorithm_is_the_keys() -> None:
    """`none`, a symmetric signature made with the public key, another algorithm than the key's and one that is not allowed: all refused."""
    clock, provider, who = made()
    provider.rotate("rsa", elliptic=False)
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": clock.seconds + 60, "tenant": "acme"}
    await refused(who, pyjwt.encode(claims, None, algorithm="none", headers={"kid": "one"}))
    body = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "HS256", "kid": "rsa"}, claims))
    await refused(who, body.decode() + "." + pyjwt.utils.base64url_encode(pyjwt.algorithms.HMACAlgorithm(
        pyjwt.algorithms.HMACAlgorithm.SHA256).sign(body, json.dumps(provider.published["rsa"]).encode())).decode())  # fmt: skip
    await refused(who, pyjwt.encode(claims, provider.private["rsa"], algorithm="PS256", headers={"kid": "rsa"}))
    await refused(who, pyjwt.encode(claims, provider.private["one"], algorithm="ES256", headers={"kid": "rsa"}))
    assert (await who.credential(provider.token("rsa"))).tenant == "acme"
    with pytest.raises(perdure.Invalid):
        made(algorithms=("HS256",))


@pytest.mark.parametrize("token", ["a.b.c", "e30.e30.e30", "." * 5_000, "eyJhbGciOiJub25lIn0.e30."])
async def test_garbage_is_refused_without_a_fetch(token: str) -> None:
    """What is no token costs the provider nothing."""
    _, provider, who = made()
    await refused(who, token)
    assert provider.fetches == 0


async def test_a_key_in_the_token_is_not_believed() -> None:
    """`jwk`, `jku` and `x5u` of the header are ignored: only the provider's URL has keys."""
    clock, _, who = made()
    other = Provider(lambda: clock.seconds)
    for header in ({"jwk": other.published["one"]}, {"jku": "https://evil.example/keys"}, {"x5u": "https://evil.example/x"}):
        await refused(who, other.token(header=header))


async def test_what_was_verified_is_remembered_until_it_ends() -> None:
    """A token is verified once, and refused when its end comes."""
    clock, provider, who = made()
    token = provider.token()
    first = await who.credential(token)
    assert await who.credential(token) is first and provider.fetches == 1
    clock.seconds += 60
    await refused(who, token)


async def test_a_new_key_is_found_and_an_old_one_ends() -> None:
    """Rotation: an unknown key is fetched at once; one that the provider withdraws ends with the next refresh, verified tokens too."""
    clock, provider, who = made()
    old = provider.token(exp=clock.seconds + 10_000)
    assert (await who.credential(old)).tenant == "acme"
    clock.seconds += AGAIN_SECONDS
    provider.rotate("two")
    assert (await who.credential(provider.token("two", exp=clock.seconds + 10_000))).tenant == "acme"
    assert provider.fetches == 2
    assert (await who.credential(old)).tenant == "acme"
    del provider.published["one"]
    clock.seconds += FRESH_SECONDS + 1
    assert (await who.credential(old)).tenant == "acme"  # It goes on with what it has, and refreshes meanwhile.
    await until(lambda: provider.fetches == 3 and who._jwks._refreshing is None)
    await refused(who, old)


async def test_a_key_that_was_replaced_under_its_name_ends() -> None:
    """The same `kid` with another key: a token that was verified with the old one is verified again, and fails."""
    clock, provider, who = made()
    old = provider.token(exp=clock.seconds + 10_000)
    await who.credential(old)
    provider.rotate("one")
    clock.seconds += AGAIN_SECONDS
    await refused(who, provider.token("one", header={"kid": "unknown"}))  # Makes it look again.
    await refused(who, old)


async def test_invented_keys_are_fetched_rarely_and_one_at_a_time() -> None:
    """A hundred tokens with unknown keys at once are one fetch; more within ten seconds are none."""
    clock, provider, who = made()
    provider.rotate("secret")
    tokens = [provider.token("secret", header={"kid": f"key-{number}"}) for number in range(100)]
    provider.gate.clear()
    asked = [asyncio.ensure_future(who.credential(token)) for token in tokens]
    await until(lambda: provider.fetches)
    asked[0].cancel()
    provider.gate.set()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(one, perdure.Unauthorized | asyncio.CancelledError) for one in outcomes) and provider.fetches == 1
    for token in tokens[:10]:
        await refused(who, token)
    assert provider.fetches == 1
    clock.seconds += AGAIN_SECONDS
    await refused(who, tokens[0])
    await refused(who, tokens[1])
    assert provider.fetches == 2


async def test_a_provider_that_is_away_is_no_refusal() -> None:
    """Without keys it is `Unavailable`; with keys their tokens hold for a day more, and no longer."""
    clock, provider, who = made()
    provider.away = True
    with pytest.raises(perdure.Unavailable):
        await who.credential(provider.token())
    clock.seconds += AGAIN_SECONDS
    provider.away = False
    token = provider.token(exp=clock.seconds + 10 * STALE_SECONDS)
    await who.credential(token)
    provider.away = True
    clock.seconds += STALE_SECONDS - 1
    assert (await who.credential(token)).tenant == "acme"
    await until(lambda: who._jwks._refreshing is None)
    clock.seconds += AGAIN_SECONDS
    with pytest.raises(perdure.Unavailable):
        await who.credential(token)


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"keys": 1}', b"\xff", b'{"keys": [1, {}, {"kid": "x"}, {"kid": "x", "kty": "RSA"}]}']
)
def test_a_document_that_is_none_has_no_keys(document: bytes) -> None:
    """Broken documents are errors, broken keys in one are left out."""
    try:
        assert parse_keys(document, ALGORITHMS) == {}
    except ValueError:
        assert not document.startswith(b'{"keys": [')


def test_secrets_and_keys_for_encryption_are_no_keys() -> None:
    """A symmetric key in the document is never used, nor is one whose use is another."""
    provider = Provider(lambda: 0.0)
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256"}
    keys = [secret, {**provider.published["one"], "kid": "enc", "use": "enc"}, {**provider.published["one"], "alg": "HS256", "kid": "h"}]
    assert parse_keys(json.dumps({"keys": [*keys, provider.published["one"]]}).encode(), ALGORITHMS).keys() == {"one"}


@pytest.mark.parametrize("url", ["http://id.example/keys", "file:///etc/passwd", "ftp://127.0.0.1/keys", "keys"])
def test_keys_come_by_a_way_that_nobody_changes(url: str) -> None:
    """https, or this machine."""
    with pytest.raises(perdure.Invalid):
        Jwks(url, ALGORITHMS, lambda: 0.0)
    Jwks("http://localhost:9/keys", ALGORITHMS, lambda: 0.0)


class Keys(BaseHTTPRequestHandler):
    """Serves a document, a redirect to it, and one that has no end in sight."""

    def do_GET(self) -> None:
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("location", "/keys")
            self.end_headers()
            return
        body = b'{"keys": []}' if self.path == "/keys" else b" " * (DOCUMENT_BYTES_MAX + 1)
        self.send_response(200 if self.path != "/missing" else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


async def test_keys_are_fetched_over_http() -> None:
    """A document is read; a redirect, another status and one that is too large are errors."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        assert await asyncio.to_thread(fetch_document, base + "/keys") == b'{"keys": []}'
        for path in ("/elsewhere", "/missing", "/large"):
            with pytest.raises((OSError, ValueError)) as raised:
                await asyncio.to_thread(fetch_document, base + path)
            if isinstance(raised.value, HTTPError):
                raised.value.close()
        assert await Jwks(base + "/keys", ALGORITHMS, HandClock().monotonic).key("x") is None
    finally:
        server.shutdown()
        server.server_close()
