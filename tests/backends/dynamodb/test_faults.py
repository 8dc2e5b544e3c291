"""DynamoDB at its worst: throttled, in conflict, frozen; tables and items that are not ours; logins; what is left when it is closed."""

from __future__ import annotations

import asyncio
import http.server
import os
import shlex
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event
from perdure.backends.conformance import behind, expecting, versions
from perdure.backends.dynamodb.layout import TABLE, decode_header, encode_record
from perdure.backends.dynamodb.table import Table
from perdure.backends.dynamodb.writes import request
from perdure.backends.remote import Attempt
from perdure.backends.spi import Appended, Durability, Index, Known, Refused
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.ministack import MiniStack
from tests.servers.process import HOST, free_port
from tests.servers.proxy import Proxy
from tests.support.backends.engines import diagnosis
from tests.support.backends.fake_dynamodb import ENGINE, Faults, S, chain, items
from tests.support.backends.scenarios import nothing_left, opened, pause_ends_in_time, sockets, visit

WRITES = ("UpdateItem", "TransactWriteItems")


REFUSALS: list[tuple[str, tuple[str, ...]]] = [
    ("ProvisionedThroughputExceededException", ()),
    ("ThrottlingException", ()),
    ("RequestLimitExceeded", ()),
    ("TransactionConflictException", ()),
    ("TransactionCanceledException", ("TransactionConflict", "None")),
    ("TransactionCanceledException", ("None", "ThrottlingError")),
    ("TransactionCanceledException", ("ProvisionedThroughputExceeded", "None")),
]


async def test_what_was_refused_is_sent_again(url: str) -> None:
    """Throttling and conflicts are waited out, whatever they are called, for a plain append and for a transaction."""

    async with opened(url) as backend:
        await chain(backend, S, 1)
        faults = Faults(backend, *WRITES)
        for number, (code, reasons) in enumerate(REFUSALS):
            for key in (None, f"k{number}"):
                faults.throw(code, 2, reasons=reasons)
                (outcome,) = await backend.append([behind(S, key=key)])
                assert isinstance(outcome, Appended), outcome
                assert faults.left == 0
        assert await versions(backend, S) == list(range(1, 2 * len(REFUSALS) + 2))


@pytest.mark.parametrize(("code", "reasons"), REFUSALS[3:5])
async def test_what_is_refused_for_ever_is_given_up_in_time(url: str, code: str, reasons: tuple[str, ...]) -> None:
    """When throttling or conflicts do not end, the append is `Unavailable` in time, and nothing is stored, ever."""

    async with opened(url + "&timeout=1") as backend:
        (head,) = await chain(backend, S, 1)
        faults = Faults(backend, *WRITES)
        faults.throw(code, 1_000_000, reasons=reasons)
        start = time.monotonic()
        (outcome,) = await backend.append([expecting(S, head, key="never")])
        assert isinstance(outcome, perdure.Unavailable), outcome
        assert time.monotonic() - start < 60
        faults.left = 0
        assert await versions(backend, S) == [1]
        assert await backend.find_key(S, "never") is None


@pytest.mark.parametrize("code", ["InternalServerError", "ServiceUnavailable", "TransactionInProgressException"])
async def test_what_may_have_been_done_is_looked_up(url: str, code: str) -> None:
    """After an error that leaves the outcome open the position is read, and the commit is in the chain once; reads are simply repeated."""

    async with opened(url) as backend:
        await chain(backend, S, 1)
        faults, reads = Faults(backend, *WRITES), Faults(backend, "GetItem", "Query", "BatchGetItem")
        for number in range(3):
            status = 400 if code.startswith("Transaction") else 500
            faults.throw(code, 2, status=status)
            reads.throw("InternalServerError", 2, status=500)
            (outcome,) = await backend.append([behind(S, key=f"k{number}" if number else None)])
            assert isinstance(outcome, Appended), outcome
            assert faults.left == reads.left == 0
        assert await versions(backend, S) == [1, 2, 3, 4]


async def test_no_write_goes_out_twice_by_itself(servers: Servers[MiniStack]) -> None:
    """A write whose answer was cut off is looked up, not sent again: what leaves the client is counted."""
    server = servers(MiniStack)
    sent: list[str] = []

    def count(request: Any, **_: Any) -> None:
        sent.append(request.headers["X-Amz-Target"].decode().partition(".")[2])

    port = server.port("aws")
    async with Proxy(port) as proxy, opened(ENGINE.url(server).replace(f":{port}", f":{proxy.port}")) as backend:
        backend.driver.table.client.meta.events.register("before-send.dynamodb", count)
        await chain(backend, S, 1)
        for key, operation in ((None, "UpdateItem"), ("k", "TransactWriteItems")):
            sent.clear()
            proxy.cut()
            (outcome,) = await backend.append([behind(S, key=key)])
            assert isinstance(outcome, Appended), outcome
            assert sent.count(operation) == 1
            assert not {*WRITES} - {operation} & {*sent}
        assert proxy.cuts == 2
        assert await versions(backend, S) == [1, 2, 3]


async def test_the_same_transaction_again_is_the_same_once(url: str) -> None:
    """An identical transaction, sent again after it was done and after others came, is answered as done and changes nothing."""

    async with opened(url) as backend:
        driver = backend.driver
        (head,) = await chain(backend, S, 1)
        append = behind(S, key="k")
        records = append.finish(head)
        attempt = Attempt(S, head, tuple(records), "k", None, Durability.memory)
        header = await backend.run(driver._header_of(S))
        made = request(driver.table.name, driver._keys, attempt, header, [encode_record(one, 0) for one in records])
        await backend.run(driver._send(made))
        async with opened(url) as other:
            await chain(other, S, 1)
            before = await items(other)
            await backend.run(driver._send(made))
            assert await items(other) == before


async def test_a_key_of_the_past_stops_a_transaction(url: str) -> None:
    """A key that was applied is `Known` to a process that remembers an old head, or the right one, or none; its session moves on."""

    async with opened(url) as one, opened(url) as two:
        await chain(one, S, 1, key="k")
        await two.heads([S])
        await chain(one, S, 20)
        for backend in (one, two):
            (outcome,) = await backend.append([behind(S, key="k", salt=b"new")])
            assert isinstance(outcome, Known)
            assert (outcome.version, outcome.head.version) == (1, 21)
        async with opened(url) as three:
            (outcome,) = await three.append([expecting(S, None, key="k", salt=b"new")])
            assert isinstance(outcome, Known)
            (outcome,) = await three.append([expecting(S, None, key="other")])
            assert isinstance(outcome, Refused)


async def test_tags_change_with_the_commit_or_not_at_all(url: str) -> None:
    """A commit that lost its race changes no tags, neither in the session nor in the listing."""

    async with opened(url) as backend:
        (head,) = await chain(backend, S, 1, index=Index({"team": "dev"}))
        await chain(backend, S, 1)
        (outcome,) = await backend.append([expecting(S, head, index=Index({"team": "ops"}))])
        assert isinstance(outcome, Refused)
        for item in await items(backend):
            assert b"ops" not in item.get("g", {"B": b""})["B"]
        (row,) = (await backend.scan(perdure.backends.spi.Query("acme", tags={"team": "dev"}))).items
        assert row.tags == {"team": "dev"}


async def test_hundreds_are_listed_in_order(url: str) -> None:
    """Three hundred sessions, in all shards, come in the order of their ids' bytes, by pages of any size."""

    ids = sorted([f"{number:03}-{'é' * (number % 3)}" for number in range(300)], key=str.encode)
    async with opened(url) as backend:
        for start in (0, 150):
            await backend.append([behind(SessionKey("acme", id)) for id in ids[start : start + 150]])
        for limit in (1000, 7):
            seen, cursor = list[str](), None
            while True:
                page = await backend.scan(perdure.backends.spi.Query("acme", prefix="1"), cursor=cursor, limit=limit)
                seen += [row.session.id for row in page.items]
                cursor = page.cursor
                if cursor is None:
                    break
            assert seen == [id for id in ids if id.startswith("1")]


async def test_a_missing_table_is_told_with_the_command(servers: Servers[MiniStack]) -> None:
    """Without `create`, a table that is not there is `Invalid` with the command that makes it; with it, eight stores at once make one."""
    url = f"dynamodb://key:secret@eu-west-1/made-{os.urandom(4).hex()}?endpoint={servers(MiniStack).endpoint}"

    with pytest.raises(perdure.Invalid, match="aws dynamodb create-table --table-name made-"):
        await visit(url)
    await asyncio.gather(*[visit(f"{url}&create=true") for _ in range(8)])
    await visit(url)
    async with opened(url) as one, opened(url) as two:
        assert one.store_id == two.store_id


def test_the_page_shows_the_command_of_the_error() -> None:
    """What docs/engines/dynamodb.md tells people to run is what the error about a missing table tells them."""
    page = (Path(__file__).parents[3] / "docs" / "engines" / "dynamodb.md").read_text()
    shown = page[page.index("aws dynamodb create-table") :].partition("```")[0].replace("\\\n", " ")
    assert shlex.split(shown) == shlex.split(Table(None, "agents", "", pool=1, timeout=1).command)


async def test_a_table_of_other_keys_is_refused(servers: Servers[MiniStack]) -> None:
    """A table that someone made with other keys is `Invalid`, and so is a feed without its index."""
    server = servers(MiniStack)
    names = [f"other-{os.urandom(4).hex()}" for _ in range(2)]

    async with opened(ENGINE.url(server)) as backend:
        table = backend.driver.table
        keys = {
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        }
        await backend.run(table.ask("create_table", TableName=names[0], BillingMode="PAY_PER_REQUEST", **keys))
        bare = {name: value for name, value in TABLE.items() if name != "GlobalSecondaryIndexes"}
        bare["AttributeDefinitions"] = bare["AttributeDefinitions"][:2]
        await backend.run(table.ask("create_table", TableName=names[1], **bare))
    url = f"dynamodb://key:secret@eu-west-1/{{}}?endpoint={server.endpoint}"
    with pytest.raises(perdure.Invalid, match="string keys pk and sk"):
        await visit(url.format(names[0]))
    async with opened(url.format(names[1])) as backend:
        await chain(backend, S, 1)
        with pytest.raises(perdure.Invalid, match="index"):
            await backend.feed()


@pytest.mark.parametrize(
    ("meta", "error"),
    [
        ({"v": {"N": "3"}, "store": {"S": "x"}}, perdure.Unsupported),
        ({"v": {"S": "2"}}, perdure.Corrupt),
        ({}, perdure.Corrupt),
    ],
)
async def test_a_namespace_of_another_kind_is_refused(
    servers: Servers[MiniStack], meta: dict[str, Any], error: type[perdure.Error]
) -> None:
    """Where something else stands, or a newer layout, opening says so and changes nothing."""
    server = servers(MiniStack)

    name = f"n{os.urandom(6).hex()}"
    async with opened(ENGINE.url(server)) as backend:
        table = backend.driver.table
        item = {"pk": {"S": f"{name}/m"}, "sk": {"S": "m"}} | meta
        await backend.run(table.ask("put_item", TableName=table.name, Item=item))
        with pytest.raises(error):
            await visit(ENGINE.url(server, name))
        assert await backend.run(table.get({"pk": item["pk"], "sk": item["sk"]})) == item


@pytest.mark.parametrize("damage", ["header", "segment", "record", "piece"])
async def test_items_changed_by_hand_are_corrupt(url: str, damage: str) -> None:
    """A header or a record that is garbage, and items that are gone (a TTL does that), are `Corrupt` to whoever reads them."""

    async with opened(url) as backend:
        await chain(backend, S, 20)
        await chain(backend, S, 1, body=b"x" * 500_000)
        table, change = backend.driver.table, []
        for item in await items(backend):
            key = {"pk": item["pk"], "sk": item["sk"]}
            kind = item["sk"]["S"][0] if "/s/" in item["pk"]["S"] else "p" if "/p/" in item["pk"]["S"] else ""
            if (damage, kind) == ("header", "t"):
                change.append({"PutRequest": {"Item": item | {"h": {"S": "?"}}}})
            elif (damage, kind) == ("record", "r"):
                change.append({"PutRequest": {"Item": item | {"x": {"L": [{"B": b"?"}]}}}})
            elif (damage, kind) in (("segment", "r"), ("piece", "p")):
                change.append({"DeleteRequest": {"Key": key}})
        assert change
        await backend.run(table.change(change))
    async with opened(url) as backend:
        for call in (backend.load(S), versions(backend, S)):
            with pytest.raises(perdure.Corrupt):
                await call
        if damage == "header":
            (outcome,) = await backend.append([behind(S, salt=b"new")])
            assert isinstance(outcome, perdure.Corrupt)


class Stranger(http.server.BaseHTTPRequestHandler):
    """Answers everything with the same, and counts."""

    status, body, asked = 200, b"<html>hello</html>", 0

    def do_POST(self) -> None:
        type(self).asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def stranger() -> Iterator[str]:
    """A URL of a server that is no DynamoDB, or one that knows nobody."""
    with http.server.ThreadingHTTPServer((HOST, 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"dynamodb://AKIA123:s3cret%2F@eu-west-1/table?timeout=1&endpoint=http://{HOST}:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "UnrecognizedClientException", perdure.Unauthorized),
        (400, "InvalidSignatureException", perdure.Unauthorized),
        (400, "AccessDeniedException", perdure.Unauthorized),
        (400, "ExpiredTokenException", perdure.Unauthorized),
        (400, "LimitExceededException", perdure.Unavailable),
        (500, "InternalServerError", perdure.Unavailable),
        (200, "", perdure.Error),
    ],
)
async def test_strangers_and_wrong_logins(
    stranger: str, monkeypatch: pytest.MonkeyPatch, status: int, code: str, error: type[perdure.Error]
) -> None:
    """A refused login, a refusing server and one that speaks no DynamoDB raise the right class in time, and never show the secret."""
    body = f'{{"__type": "com.amazonaws.dynamodb.v20120810#{code}", "message": "no"}}'.encode() if code else b"<html>hello</html>"
    monkeypatch.setattr(Stranger, "status", status)
    monkeypatch.setattr(Stranger, "body", body)

    start = time.monotonic()
    with pytest.raises(error) as refused:
        await visit(stranger)
    assert time.monotonic() - start < 60
    for text in (str(refused.value), repr(refused.value), repr(refused.value.__cause__)):
        assert "s3cret" not in text
        assert "AKIA123" not in text


async def test_bad_urls_and_missing_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A URL without a table, with options, a profile or a region that do not exist: `Invalid`; no credentials: `Unauthorized`."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for bad in (
        "dynamodb://eu-west-1",
        "dynamodb://eu-west-1/a",
        "dynamodb://eu-west-1/a/b/c",
        "dynamodb:///table",
        "dynamodb://eu-west-1/table?endpoint=here",
        "dynamodb://eu-west-1/table?create=perhaps",
        "dynamodb://eu-west-1/table?colour=red",
        "dynamodb://eu-west-1/table?profile=nobody",
        "dynamodb://not a region/table",
    ):
        with pytest.raises(perdure.Invalid):
            await visit(bad)
    with pytest.raises(perdure.Unauthorized, match="credentials"):
        await visit(f"dynamodb://eu-west-1/table?endpoint=http://{HOST}:{free_port()}")
    with pytest.raises(perdure.Unavailable, match="cannot be reached"):
        await visit(f"dynamodb://a:b@eu-west-1/table?endpoint=http://{HOST}:{free_port()}")


async def test_doctor_finds_a_time_to_live_and_more(servers: Servers[MiniStack]) -> None:
    """A table whose items expire is bad; no backups and no protection are worth a warning, each with the command that mends it."""
    server = servers(MiniStack)
    name = f"ill-{os.urandom(4).hex()}"
    url = f"dynamodb://key:secret@eu-west-1/{name}?endpoint={server.endpoint}"
    async with opened(f"{url}&create=true") as backend:
        table = backend.driver.table
        expiry = {"Enabled": True, "AttributeName": "expires"}
        await backend.run(table.ask("update_time_to_live", TableName=name, TimeToLiveSpecification=expiry))
    told = diagnosis(url)
    assert not told["healthy"]
    found = {finding["what"]: finding for finding in told["findings"]}
    assert found["The table has a time to live (attribute 'expires'): items can vanish from under a chain."]["level"] == "bad"
    assert {
        "Point-in-time recovery is off: what a person deletes is gone.",
        "Deletion protection is off: one command deletes the table.",
    } < {*found}
    assert all(finding["fix"].startswith("aws dynamodb") for finding in told["findings"] if finding["level"] == "bad")
    assert told["server"]["billing"] == "pay_per_request"


async def test_a_pause_is_unknown_in_time_and_then_goes_on(server_of_my_own: Servers[MiniStack]) -> None:
    """While the server is frozen an append ends within its time-outs and may be sent again; after it wakes the key was applied once."""
    server = server_of_my_own(MiniStack)

    async with perdure.open(server.url + "&timeout=1&connect_timeout=1") as store:
        await store.append("s", Event("a"))
        await pause_ends_in_time(server, store, seconds=15)
        start = time.monotonic()
        receipt = await store.append("s", Event("b"), key="k")
        assert time.monotonic() - start < 60
        assert receipt.version == 2
        assert receipt.durability == Durability.buffered
        assert [commit.version async for commit in store.history("s")] == [1, 2]


async def test_closing_leaves_nothing_behind(url: str) -> None:
    """Two hundred tasks share the pool; after `close` no thread, no task and no socket of the store is left."""
    before = sockets()

    async def scenario() -> None:
        async with perdure.open(url + "&pool=8") as store:
            await asyncio.gather(*(store.append(f"s{number}", Event("a")) for number in range(200)))
            assert any(thread.name.startswith("perdure-dynamodb") for thread in threading.enumerate())
            assert 0 < sockets() - before <= 8 + 8  # the pool, and what two event loops wake themselves with

    with nothing_left():
        await scenario()


async def test_the_top_survives_a_round_trip(url: str) -> None:
    """What a driver remembers of a session it wrote is what lies in the table."""

    async with opened(url) as backend:
        for number in range(40):
            key = f"k{number}" if number % 5 == 0 else None
            index = Index({"n": str(number)}) if number % 7 == 0 else None
            await chain(backend, S, 1, key=key, index=index, body=b"x" * (number * 100))
            item = await backend.run(backend.driver.table.get(backend.driver._keys.header(S)))
            assert backend.driver._headers.get(S) == decode_header(item)
