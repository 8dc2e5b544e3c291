"""MongoDB: a document for each session, whose update is the commit; one command for a batch of sessions.

Condition   the head's version and hash, and that the tail has none of the keys, in the update that sets the head and pushes the records
Outcomes    an update that finds another head turns into an insert, and the server refuses that one by name: no guessing from counts
Tail        the newest 16 to 32 records; older ones are written to pages before they leave it, so no reader meets a gap
Durability  journaled on a majority, always: `quorum` with three voting members, else `local`
Reads       linearizable read concern; with one node what a majority has, which is the same there
Errors      `connections.Connections.mapped`, once: a command that was sent and not answered is `Unknown`
"""

from __future__ import annotations

from typing import Any

from pymongo.common import URI_OPTIONS_VALIDATOR_MAP

from perdure.backends.mongodb.connections import connect
from perdure.backends.mongodb.driver import MongoDBDriver
from perdure.backends.remote import RemoteBackend, open_address, parse_address
from perdure.backends.remote.urls import count, name, seconds
from perdure.clock import Clock

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "namespace": ("perdure", name),
    "connect_timeout": (5.0, seconds),
    "timeout": (10.0, seconds),
    "pool": (8, count(2, 256)),
}
DATABASE = "perdure"
"""The database of a URL that names none."""


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:
    """Open `mongodb://user:password@host:port,host:port/database?option=value`, or `mongodb+srv://`. MongoDB's own options are taken too.

    Without `create` nothing is made. Raises `Invalid`, `NotFound`, `Unauthorized`, `Unavailable`, `Unsupported`, `Corrupt`.
    """
    address = parse_address(url, _OPTIONS, foreign=URI_OPTIONS_VALIDATOR_MAP)
    options = address.options

    async def connect_driver() -> MongoDBDriver:
        connections = await connect(
            address.url(),
            address.foreign,
            database=address.path.strip("/") or DATABASE,
            namespace=options["namespace"],
            place=address.place,
            size=options["pool"],
            connect_timeout=options["connect_timeout"],
            timeout=options["timeout"],
        )
        return MongoDBDriver(connections)

    return await open_address(address, connect_driver, lambda driver: driver.start(clock, options["connect_timeout"], create=create))
