"""tokens: made once, listed without what would let anybody use them, revoked; and who may call what `perdure serve` serves."""

from __future__ import annotations

import pytest
from opentelemetry import metrics

from perdure.cli.commands.serve_flags import Access, Limits
from perdure.cli.exits import UsageError
from tests.cli.conftest import Run

CREATE = ("tokens", "create", "--tenant", "acme", "--scope", "read,append")


def test_a_token_is_shown_once(run: Run, url: str) -> None:
    """As JSON with its facts, to people alone on stdout; lists have the facts and never the token."""
    (made,) = run(*CREATE, "--expires", "90d", "--name", "ci", "--actor", "planner").rows
    token = made.pop("token")
    assert token.startswith(f"perdure_{made['id']}_") and len(token) == len(made["id"]) + 52
    assert (made["tenant"], made["scopes"], made["actor"], made["name"]) == ("acme", ["read", "append"], "planner", "ci")
    assert made["expires_at"] > made["created_at"] and made["revoked_at"] is None
    listed = run("tokens", "list", "--tenant", "acme")
    assert listed.rows == [made] and token not in listed.out
    shown = run(*CREATE, "--no-json")
    assert shown.out.startswith("perdure_") and shown.out.count("\n") == 1
    assert "keep it safe" in shown.err and shown.out.strip() not in shown.err
    assert len(run("tokens", "list", "--tenant", "acme").rows) == 2
    assert run("tokens", "list").rows == [] and len(run("tokens", "list", "--all-tenants").rows) == 2
    assert "ci" in run("tokens", "list", "--tenant", "acme", "--no-json").out


def test_a_token_is_revoked(run: Run, url: str) -> None:
    """It stays in the list, with the time; what is not there is exit 3."""
    (made,) = run("tokens", "create", url, "--tenant", "acme", "--scope", "admin").rows
    (revoked,) = run("tokens", "revoke", url, "--id", made["id"]).rows
    assert revoked["revoked_at"] is not None and "token" not in revoked
    assert run("tokens", "list", "--tenant", "acme").rows == [revoked]
    assert "10 seconds" in run("tokens", "revoke", "--id", made["id"], "--no-json").out
    assert run("tokens", "revoke", "--id", "0" * 16).status == 3


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("create",), 2), (("create", "--scope", "root"), 6), (("create", "--scope", "read", "--expires", "soon"), 6), (("revoke",), 2),
        (("list", "--scope", "read"), 2), (("revoke", "--id", "x", "--expires", "1d"), 2), (("create", "--scope", "read", "--id", "x"), 2),
        (("create", "--scope", "read", "--expires", "2020-01-01T00:00:00Z"), 6), (("forget",), 2),
        (("create", "--scope", "read", "--tenant", "~"), 6), (("create", "--scope", "read", "--expires", "9999999999d"), 2),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(run: Run, url: str, words: tuple[str, ...], status: int) -> None:
    """With the exit code of its kind, and no token is made."""
    assert run("tokens", *words).status == status
    assert run("tokens", "list", "--all-tenants").rows == []


def test_another_address_without_credentials_is_refused(run: Run) -> None:
    """Exit 2, before a store is made or metrics are collected; the message names each way out. A provider and an open door do not go
    together."""
    meters = metrics.get_meter_provider()
    refused = run("serve", "sqlite:///new.db", "--host", "0.0.0.0")
    assert refused.status == 2
    assert all(way in refused.err for way in ("--allow-anonymous TENANT", "perdure tokens", "--tokens", "--jwt-issuer"))
    assert run("ls", "--url", "sqlite:///new.db").status == 3
    both = run("serve", "sqlite:///new.db", "--host", "0.0.0.0", "--tokens", "--allow-anonymous", "acme")
    assert both.status != 0 and "does not go with" in both.err
    assert metrics.get_meter_provider() is meters


def test_options_come_from_the_environment_too() -> None:
    """PERDURE_ and their name; the command line wins. What a provider needs is named."""
    assert Access().options({"PERDURE_TOKENS": "1"}).tokens
    with pytest.raises(UsageError, match="--jwt-audience, --jwks-url"):
        Access(jwt_issuer="https://id.example").options({})
    found = Access(jwt_issuer="https://id.example").options({
        "PERDURE_JWT_ISSUER": "https://other.example", "PERDURE_JWT_AUDIENCE": "perdure", "PERDURE_JWKS_URL": "https://id.example/keys",
        "PERDURE_JWT_ALGORITHMS": "ES256, RS256",
    })  # fmt: skip
    assert found.jwt is not None and found.jwt.issuer == "https://id.example" and found.jwt.algorithms == ("ES256", "RS256")
    with pytest.raises(UsageError):
        Access(jwt_issuer="i", jwt_audience="a", jwt_jwks_url="u", jwt_algorithms="HS256").options({})
    limits = Limits(limit_bytes="1MiB").options({"PERDURE_LIMIT_REQUESTS": "5", "PERDURE_TURNS": "8", "PERDURE_LIMIT_BYTES": "9"})
    assert (limits.bytes, limits.requests, limits.turns, limits.commits) == (1 << 20, 5.0, 8, 20_000)
    assert Limits(limit_requests=0).options({"PERDURE_LIMIT_REQUESTS": "5"}).requests == 0
    for wrong in (Limits(limit_requests=-1), Limits(turns=0), Limits(limit_bytes="many")):
        with pytest.raises(UsageError):
            wrong.options({})
