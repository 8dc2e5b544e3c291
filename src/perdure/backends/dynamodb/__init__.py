"""DynamoDB: a commit is one conditional write of the session's header item, or one transaction where more belongs to it.

Condition   the head and the first version in the header item, compared by the write; in a transaction also that the keys are absent
Durability  AWS: `quorum`, three availability zones; another endpoint: `buffered`, for nothing says what an emulator keeps
Notify      none: Streams are polled as heads are, and AWS lets two readers at a shard, where each process that watches would be one
Limits      items of 400 KB: larger commits lie in parts, written first under a name that nothing refers to yet; 16 MiB
Errors      `table.Table`, once: throttled or in conflict is sent again within the time-out, a write without an answer is `Unknown`
"""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import urlsplit

import aiobotocore
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import exceptions as boto

from perdure.backends.dynamodb.driver import DynamoDBDriver
from perdure.backends.dynamodb.layout import TABLE, Layout
from perdure.backends.dynamodb.table import Table
from perdure.backends.remote import Address, RemoteBackend, open_address, parse_address
from perdure.backends.remote.urls import count, name, one_of, seconds
from perdure.backends.spi import Durability
from perdure.clock import Clock
from perdure.errors import Invalid, Unavailable

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "namespace": ("perdure", name),
    "connect_timeout": (5.0, seconds),
    "timeout": (10.0, seconds),
    "pool": (32, count(2, 1024)),
    "endpoint": ("", str),
    "profile": ("", str),
    "create": ("false", one_of("true", "false")),
}
_USER_AGENT = f"perdure aiobotocore/{aiobotocore.__version__}"
"""Made once: botocore would make its own twice a request, which takes an eighth of a request's time."""
_MAKING_SECONDS = 120
"""How long a table that was just made may take to become active."""


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:
    """Open `dynamodb://region/table?option=value`, with credentials as AWS's tools find them, or `user:password@` as key id and secret.

    Without `create` nothing is made, whatever the URL says.

    Raises `Invalid`, `NotFound`, `Unauthorized`, `Unavailable`, `Unsupported`, `Corrupt`.
    """
    address = parse_address(url, _OPTIONS, hostless=True)
    options, place, table_name = address.options, address.place, address.path.removeprefix("/")
    if not re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", table_name):
        raise Invalid(
            f"{place!r} names no table: it reads dynamodb://region/table, the table's name of 3 to 255 letters, digits, _ . or -."
        )
    if options["endpoint"] and not urlsplit(options["endpoint"]).netloc:
        raise Invalid(f"{place!r}: the option endpoint is no http:// or https:// address.")

    async def connect() -> DynamoDBDriver:
        client = await _client(address)
        table = Table(client, table_name, place, pool=options["pool"], timeout=options["timeout"])
        return DynamoDBDriver(table, Layout(options["namespace"]), durability=_durability(client.meta.endpoint_url))

    async def start(driver: DynamoDBDriver) -> None:
        if create and options["create"] == "true":
            await _create(driver.table)
        await driver.start(clock, place, create=create)

    return await open_address(address, connect, start)


async def _client(address: Address) -> Any:
    options = address.options
    config = AioConfig(
        connect_timeout=options["connect_timeout"],
        read_timeout=options["timeout"],
        max_pool_connections=options["pool"],
        retries={"total_max_attempts": 1, "mode": "standard"},
        parameter_validation=False,
        user_agent=_USER_AGENT,
    )
    login = {} if address.user is None else {"aws_access_key_id": address.user, "aws_secret_access_key": address.password or ""}
    try:
        session = AioSession(profile=options["profile"] or None)
        return await session.create_client(
            "dynamodb", region_name=address.hosts or None, endpoint_url=options["endpoint"] or None, config=config, **login
        ).__aenter__()
    except boto.NoRegionError:
        raise Invalid(f"{address.place!r} names no region, and neither does the environment: dynamodb://eu-west-1/table.") from None
    except (boto.BotoCoreError, ValueError) as error:
        raise Invalid(f"{address.place!r}: {str(error).rstrip('.')}.") from error


def _durability(endpoint: str) -> Durability:
    host = urlsplit(endpoint).hostname or ""
    return Durability.quorum if host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws")) else Durability.buffered


async def _create(table: Table) -> None:
    """Make the table where there is none, and wait until it serves; several processes may do so at once."""
    made = False
    for _ in range(_MAKING_SECONDS * 5):
        try:
            described = await table.ask("describe_table", TableName=table.name)
            if described["Table"]["TableStatus"] in ("ACTIVE", "UPDATING"):
                return
        except Invalid:
            if not made:
                await _make(table)
                made = True
        await asyncio.sleep(0.2)
    raise Unavailable(f"The table {table.name!r} was made, and is not active after {_MAKING_SECONDS} s.")


async def _make(table: Table) -> None:
    try:
        await table.ask("create_table", TableName=table.name, **TABLE)
    except Unavailable as error:
        if "ResourceInUseException" not in str(error):  # Another process is making it.
            raise
