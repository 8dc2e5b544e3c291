"""Nodes by SRV records: what an answer means, what is kept when there is none, and clients that follow."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import dns.rcode
import msgspec
import pytest

import perdure
from perdure import Event
from perdure.backends.http import discovery
from perdure.backends.http.discovery import LOOK_MAX, LOOK_MIN
from perdure.backends.http.srv import Srv, certified, resolver_address
from perdure.service.options import ServeOptions
from tests.servers.process import HOST
from tests.servers.tls import Authority
from tests.support.backends.scenarios import until
from tests.support.service.leaving import one_leaves_and_one_joins, port
from tests.support.service.names import TARGET, Names, authority
from tests.support.service.nodes import serving

NAME = "_perdure._tcp.nodes.test"
OPTIONS = ServeOptions(port=0, drain_delay=0, drain_timeout=1, allowed_hosts=(TARGET,))


def finder(names: Names, lifetime: float = 5) -> Srv:
    return Srv(NAME, "http", "/base", (HOST, names.port), lifetime)


def url(names: Names, scheme: str = "http+srv", more: str = "") -> str:
    return f"{scheme}://{NAME}?dns={HOST}:{names.port}{more}"


async def test_records_are_nodes() -> None:
    """Each record is a node, at its port, with the path of the URL; names are the same in any case."""
    async with authority() as names:
        names.records = [(5, 0, 8420, "B.test."), (5, 70, 8421, "a.test."), (5, 1, 8420, "b.TEST.")]
        assert (await finder(names).find()).urls == ["http://a.test:8421/base", "http://b.test:8420/base"]


async def test_only_the_lowest_priority_is_used() -> None:
    """Nodes of a higher number are not asked."""
    async with authority() as names:
        names.records = [(20, 0, 1, "spare.test."), (10, 0, 2, "first.test.")]
        assert (await finder(names).find()).urls == ["http://first.test:2/base"]


@pytest.mark.parametrize(("ttl", "again"), [(0, LOOK_MIN), (7, 7.0), (86400, LOOK_MAX)])
async def test_the_ttl_says_when_to_ask_again(ttl: int, again: float) -> None:
    """Within the floor and the ceiling."""
    async with authority() as names:
        names.nodes(1)
        names.ttl = ttl
        assert (await finder(names).find()).again == again


async def test_an_alias_is_followed_and_its_ttl_counts() -> None:
    """The shortest TTL of the answer holds."""
    async with authority() as names:
        names.nodes(1)
        names.ttl, names.alias = 20, "_perdure._tcp.elsewhere.test."
        found = await finder(names).find()
        assert (len(found.urls), found.again) == (1, 2.0)


async def test_a_truncated_answer_is_asked_for_over_tcp() -> None:
    """Eighty records are too many for a datagram: all of them come over TCP."""
    async with authority() as names:
        names.nodes(*range(1000, 1080))
        assert len((await finder(names).find()).urls) == 80
        assert names.asked == [("udp", "SRV"), ("tcp", "SRV")]


async def test_no_record_is_an_answer_without_nodes() -> None:
    """No such name, no record of this type, and a target of `.`: the answer is empty, and is asked for again soon."""
    async with authority() as names:
        assert (await finder(names).find()).urls == []
        names.records = [(0, 0, 0, ".")]
        names.ttl = 3600
        assert await finder(names).find() == discovery.Found([], LOOK_MIN)
        names.rcode = dns.rcode.NXDOMAIN
        names.records = ()
        assert not (await finder(names).find()).urls


async def test_a_resolver_that_fails_or_is_silent_is_unavailable() -> None:
    """The message names the record and the reason."""
    async with authority() as names:
        names.rcode = dns.rcode.SERVFAIL
        with pytest.raises(perdure.Unavailable, match=NAME):
            await finder(names, 0.5).find()
        names.silent = True
        with pytest.raises(perdure.Unavailable, match=NAME):
            await finder(names, 0.2).find()


async def test_a_service_without_nodes_is_not_opened() -> None:
    """Nothing to connect to is `Unavailable`, and says where to look."""
    async with authority() as names:
        with pytest.raises(perdure.Unavailable, match="No node is listed"):
            await perdure.open(url(names))


async def test_clients_follow_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node leaves the answer and ends while another one joins. An empty answer changes nothing, and neither does a failed one."""
    monkeypatch.setattr(discovery, "LOOK_MIN", 0.05)
    monkeypatch.setattr("perdure.backends.http.srv.LOOK_MIN", 0.05)
    engine = f"sqlite:///{tmp_path}/store.db"
    async with authority() as names:
        names.ttl = 0

        async def empty() -> None:
            names.records = ()
            await asked_again()

        async def failed() -> None:
            names.rcode = dns.rcode.SERVFAIL
            await asked_again()

        async def asked_again() -> None:
            seen = len(names.asked)
            await until(lambda: len(names.asked) > seen + 3)

        with serving(engine, options=OPTIONS) as first, serving(engine, options=OPTIONS) as second:
            names.nodes(port(first.url), port(second.url))
            async with perdure.open(url(names)) as store:
                await one_leaves_and_one_joins(store, (first, second), serving(engine, options=OPTIONS), names.nodes, (empty, failed))


async def test_a_certificate_is_checked_by_the_name_in_the_url(tmp_path: Path) -> None:
    """A target's own name counts for nothing: whoever answers for the DNS cannot lead a client to a node of their own."""
    ours = Authority(tmp_path, "ours")
    for name, trusted in (("nodes.test", True), (TARGET, False)):
        file = str(ours.file(name))
        options = msgspec.structs.replace(OPTIONS, ssl_certfile=file, ssl_keyfile=file)
        async with authority() as names:
            with serving("memory:", options=options) as node:
                names.records = [(0, 0, port(node.url), f"{TARGET}.")]
                opening = perdure.open(url(names, "https+srv", f"&ca={quote(str(ours.ca))}"))
                if trusted:
                    async with opening as store:
                        await store.append("s", Event("note"))
                        assert (await store.read("s")).version == 1
                else:
                    with pytest.raises(perdure.Unavailable, match="certificate"):
                        await opening


@pytest.mark.parametrize(
    ("name", "found"),
    [("_perdure._tcp.a.example", "a.example"), ("a.example.", "a.example"), ("_x", "_x"), ("_a._b.c._d", "c._d")],
)
def test_the_name_of_certificates(name: str, found: str) -> None:
    """The labels of the service and its protocol are no part of it."""
    assert certified(name) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [("::1", ("::1", 53)), ("[::1]:5353", ("::1", 5353)), ("10.0.0.1", ("10.0.0.1", 53)), ("10.0.0.1:1", ("10.0.0.1", 1))],
)
def test_addresses_of_resolvers(text: str, found: tuple[str, int]) -> None:
    """With a port or without."""
    assert resolver_address(text) == found


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http+srv://a.test,b.test", "one name"),
        ("https+srv://a.test:443", "one name"),
        ("http+srv://a.test?dns=dns.example", "address of a resolver"),
        ("http+srv://a.test?dns=127.0.0.1:0", "address of a resolver"),
        ("http+srv://secret@a.test", "PERDURE_TOKEN"),
        ("http://127.0.0.1:1?dns=127.0.0.1", "no option"),
        ("http+srv://a.test?ca=/x.pem", "https"),
    ],
)
async def test_urls_that_are_refused(url: str, says: str) -> None:
    """Several names, a port, a resolver by name, and a user are `Invalid`."""
    with pytest.raises(perdure.Invalid, match=says):
        await perdure.open(url)
