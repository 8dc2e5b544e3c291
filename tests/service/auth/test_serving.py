"""Who may call a node, by how it was started and what its store has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

import perdure
from perdure.service.auth.credentials import Credentials
from perdure.service.auth.records import create_token, revoke_token
from perdure.service.hooks import Anonymous, RequestHead
from perdure.service.options import ServeOptions
from perdure.service.serving import AccessOptions, authenticator_for
from tests.servers.node import Nodes

HEAD = RequestHead("GET", "", {}, "127.0.0.1", None)


async def test_credentials_are_asked_for_where_there_are_any() -> None:
    """A token that was ever made closes the door, also when it was revoked since; an open door has to be named."""
    async with perdure.open("memory:") as store:
        near, far = ServeOptions(), ServeOptions(host="0.0.0.0")
        assert (await (await authenticator_for(store, near, AccessOptions())).credential(HEAD)).tenant == "default"
        with pytest.raises(perdure.Invalid, match="--allow-anonymous TENANT"):
            await authenticator_for(store, far, AccessOptions())
        named = await authenticator_for(store, ServeOptions(host="0.0.0.0", anonymous_tenant="acme"), AccessOptions())
        assert isinstance(named, Anonymous) and (await named.credential(HEAD)).tenant == "acme"
        for options in (near, far):
            with pytest.raises(perdure.Unauthorized):
                await (await authenticator_for(store, options, AccessOptions(tokens=True))).credential(HEAD)
        with pytest.raises(perdure.Invalid, match="does not go with"):
            await authenticator_for(store, ServeOptions(anonymous_tenant="acme"), AccessOptions(tokens=True))
        made = await create_token(store, tenant="acme", scopes=["read"])
        await revoke_token(store, made.info.id)
        for options in (near, far):
            assert isinstance(await authenticator_for(store, options, AccessOptions()), Credentials)


def test_a_token_of_the_command_line_opens_a_node(tmp_path: Path) -> None:
    """Made before the node starts, and while it runs; its log has no token, and without one it is 401."""
    nodes = Nodes(tmp_path)
    try:
        tokens = [made(nodes.stores[0], "admin")]
        nodes.start()
        tokens.append(made(nodes.stores[0], "read"))
        url = nodes.url_of("node0")
        assert status(f"{url}/v1/sessions") == 401
        assert status(f"{url}/v1/sessions", tokens[1]) == 200
        assert status(f"{url}/metrics", tokens[0]) == 200 and status(f"{url}/metrics", tokens[1]) == 403
        log = tmp_path / "node0.log"
        nodes.wait("the last request is in the log", lambda: '"status":403' in log.read_text())
        assert not any(token in log.read_text() for token in tokens)
        assert '"token:' in log.read_text()
    finally:
        nodes.stop()


def made(store: str, scope: str) -> str:
    """A token that the command line made."""
    command = [sys.executable, "-m", "perdure", "tokens", "create", store, "--tenant", "acme", "--scope", scope]
    return str(json.loads(subprocess.check_output(command))["token"])


def status(url: str, token: str | None = None) -> int:
    """What a GET is answered with."""
    try:
        with urlopen(Request(url, headers={} if token is None else {"Authorization": f"Bearer {token}"}), timeout=30) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code
