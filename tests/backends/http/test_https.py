"""TLS to a node: its certificate is checked, against the system's authorities or a file, and by the name in the URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

import perdure
from perdure import Event
from perdure.service.options import ServeOptions
from tests.servers.process import HOST
from tests.servers.tls import Authority
from tests.support.service.nodes import serving


async def test_a_certificate_is_checked(tmp_path: Path) -> None:
    """With its authority's file, and by a name that it has, a node is trusted; without, or by another name, it is not."""
    authority, stranger = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    file = str(authority.file(HOST, "elsewhere.example"))
    options = ServeOptions(port=0, drain_delay=0, drain_timeout=1, ssl_certfile=file, ssl_keyfile=file)
    with serving("memory:", options=options) as node:
        assert node.url.startswith("https://")
        async with perdure.open(f"{node.url}?ca={quote(str(authority.ca))}") as store:
            await store.append("s", Event("note"))
            assert (await store.read("s")).version == 1
        ours, theirs = quote(str(authority.ca)), quote(str(stranger.ca))
        for url in (node.url, f"{node.url}?ca={theirs}", f"{node.url.replace(HOST, 'localhost')}?ca={ours}"):
            with pytest.raises(perdure.Unavailable, match="certificate"):
                await perdure.open(url)
        with pytest.raises(perdure.Unavailable):
            await perdure.open(node.url.replace("https", "http"))
