"""Google's Firestore and Datastore: a commit is one atomic write of a session's header and its records, for many sessions at once.

Condition   the version of the session's header, and that records and keys are new (`entities.Write`)
Durability  `quorum`; on an emulator `buffered`
Limits      entities of 1 MiB: larger commits lie in pieces, written first under a name that nothing refers to yet; 16 MiB
Errors      `channel.mapped`, once; after a condition that did not hold header and keys are read; a write without an answer is `Unknown`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.backends.google.channel import OPTIONS, connected, database, emulator
from perdure.backends.google.checkup import asked
from perdure.backends.google.driver import GoogleDriver
from perdure.backends.google.entities import Entities
from perdure.backends.remote import Address, RemoteBackend, open_address, parse_address
from perdure.clock import Clock


async def open_service(
    url: str,
    clock: Clock,
    *,
    create: bool,
    variable: str,
    transport: type[Any],
    made: Callable[[Any, Address, tuple[str, str], str], Entities],
) -> RemoteBackend:
    """Open a URL `scheme://project/database?option=value`. `variable` may name an emulator; `made` gets a transport of this kind, the
    address, project and database, and the emulator's address or nothing.

    Without `create` nothing is made. Raises `Invalid`, `NotFound`, `Unauthorized`, `Unavailable`, `Unsupported`, `Corrupt`.
    """
    address = parse_address(url, OPTIONS)
    place = database(address)

    async def connect() -> GoogleDriver:
        host = emulator(address.options, variable)
        entities = made(await connected(transport, address.options, host), address, place, host)
        return GoogleDriver(entities, address.place, lambda: asked(address.options, place, host))

    return await open_address(address, connect, lambda driver: driver.start(clock, create=create))
