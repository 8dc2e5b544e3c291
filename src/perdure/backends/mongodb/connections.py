"""The client of one replica set, and the one place where MongoDB's errors become ours.

Writes go as commands: the client library sends a command once, and gives the server's answer whole, a verdict for each statement.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from bson.errors import BSONError
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    InvalidName,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import validate_options

from perdure.errors import Closed, Error, Invalid, TooLarge, Unauthorized, Unavailable, Unknown

Doc = dict[str, Any]
_LOGIN = (13, 18, 8000)
"""Not authorized; authentication failed; Atlas's word for it."""
_TOO_LARGE = (10334, 17419, 17420, 10)
"""A document over 16 MiB."""
_NAME = 73
"""A name that MongoDB does not take."""
_TAKEN = 11000
"""A duplicate key."""


class _Call:
    """One request on its way: whether it was sent."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = False


_CALL: ContextVar[_Call | None] = ContextVar("perdure_mongodb_call", default=None)


class _Sent(CommandListener):
    """Notes which requests were handed to a connection: before that an error is certain, afterwards it is not."""

    def __init__(self) -> None:
        self.requests = 0

    def started(self, event: CommandStartedEvent) -> None:
        """A request goes out. Logging in, which may come first, is none of ours."""
        call = _CALL.get()
        if call is not None and not event.command_name.startswith(("sasl", "hello", "auth")):
            call.sent = True
            self.requests += 1

    def succeeded(self, event: CommandSucceededEvent) -> None: ...

    def failed(self, event: CommandFailedEvent) -> None: ...


class Connections:
    """A client and its database. `namespace` comes before the names of collections; `timeout` in seconds, for one call."""

    def __init__(self, client: AsyncMongoClient[Doc], listener: _Sent, database: str, namespace: str, place: str, timeout: float) -> None:
        self.client, self.namespace, self.place, self.timeout = client, namespace, place, timeout
        self._listener, self._closed = listener, False
        self.database: AsyncDatabase[Doc] = client.get_database(database, read_preference=ReadPreference.PRIMARY)
        self.concern = {"w": "majority", "j": True, "wtimeout": int(timeout * 1000)}

    @property
    def requests(self) -> int:
        """How many requests were sent, for tests that count them."""
        return self._listener.requests

    def collection(self, name: str) -> str:
        """The full name of one of our collections."""
        return f"{self.namespace}.{name}"

    def _certain(self) -> ReadConcern:
        """With one member no other can be primary: what a majority holds is the newest. With several, and while that is not known, the
        primary has to prove that it still is."""
        servers = list(self.client.topology_description.server_descriptions().values())
        alone = len(servers) == 1 and len(servers[0].all_hosts) == 1
        return ReadConcern("majority" if alone else "linearizable")

    @asynccontextmanager
    async def calling(self, *, writes: bool) -> AsyncIterator[None]:
        """Errors within come out as ours: `Unknown` where a write was sent and its end was not seen."""
        if self._closed:
            raise Closed
        call = _Call()
        token = _CALL.set(call)
        try:
            yield
        except (PyMongoError, BSONError) as error:
            raise self.mapped(error, unsure=writes and call.sent) from error
        finally:
            _CALL.reset(token)

    async def find(
        self, name: str, where: Doc, fields: Mapping[str, Any] | None = None, *, certain: bool = False, **more: Any
    ) -> list[Doc]:
        """Documents. `certain`: linearizable; else what a majority has. `more`: `sort`, `limit`, `skip`, `hint`."""
        concern = self._certain() if certain else ReadConcern("majority")
        async with self.calling(writes=False):
            return await self.database.get_collection(self.collection(name), read_concern=concern).find(where, fields, **more).to_list()

    async def join(self, name: str, pipeline: Sequence[Doc]) -> list[Doc]:
        """What a pipeline gives, in one answer; linearizable for what it takes from `name`, which is read before what is joined to it."""
        async with self.calling(writes=False):
            collection = self.database.get_collection(self.collection(name), read_concern=self._certain())
            return await (await collection.aggregate(list(pipeline))).to_list()

    async def update(self, name: str, statements: Sequence[Doc], *, lax: bool = False) -> Doc:
        """Send these updates, once; the server's answer. Journaled on a majority, or `lax`: by the primary alone, in its own time."""
        return await self._write({"update": self.collection(name), "updates": list(statements)}, lax=lax)

    async def insert(self, name: str, docs: Sequence[Doc]) -> int:
        """Insert, and say how many were; what is there already under its name stays as it is."""
        if not docs:
            return 0
        answer = await self._write({"insert": self.collection(name), "documents": list(docs)})
        self.check(answer, fine=(_TAKEN,))
        return int(answer["n"])

    async def delete(self, name: str, where: Doc) -> None:
        """Delete all that match."""
        self.check(await self._write({"delete": self.collection(name), "deletes": [{"q": where, "limit": 0}]}))

    async def _write(self, command: Doc, *, lax: bool = False) -> Doc:
        async with self.calling(writes=True):
            return await self.database.command({**command, "ordered": False, "writeConcern": {"w": 1} if lax else self.concern})

    def check(self, answer: Doc, fine: tuple[int, ...] = ()) -> None:
        """Raise what an answer to a write says went wrong, but for statements refused with these codes."""
        for failed in answer.get("writeErrors", ()):
            if failed["code"] not in fine:
                raise self.refused(failed)
        if (lost := self.not_spread(answer)) is not None:
            raise lost

    def not_spread(self, answer: Doc) -> Unknown | None:
        """What an answer says when the primary wrote and cannot say that a majority did."""
        said = answer.get("writeConcernError")
        return said and Unknown(f"MongoDB at {self.place} wrote, and did not hear from a majority: {_text(said.get('errmsg', ''))}.")

    def refused(self, failed: Doc) -> Error:
        """The error of one statement, which wrote nothing."""
        code, said = failed["code"], f"MongoDB at {self.place} refused a write: {_text(failed.get('errmsg', ''))}"
        if code in _TOO_LARGE:
            return Unavailable(f"{said}. The session's tail cannot be moved out: see what `perdure doctor` says of this server.")
        return Unauthorized(f"{said}.") if code in _LOGIN else Unavailable(f"{said}.")

    def mapped(self, error: PyMongoError | BSONError, *, unsure: bool) -> Error:
        """Our error for one of the client library's."""
        said = f"MongoDB at {self.place}: {_text(str(error))}"
        match error:
            case ServerSelectionTimeoutError():
                return Unavailable(f"{said.partition(', Timeout:')[0]}.")
            case OperationFailure(code=code) if code in _LOGIN:
                return Unauthorized(f"{said.partition(', full error')[0]}.")
            case OperationFailure(code=code) if code == _NAME:
                return Invalid(f"{said}.")
            case DocumentTooLarge():
                return TooLarge(f"{said}.")
            case ConfigurationError() | InvalidURI() | InvalidName():
                return Invalid(f"{said}.")
            case _ if unsure:
                return Unknown(f"{said.partition(', full error')[0]}. The answer to a write did not come.")
            case ConnectionFailure() | _:
                return Unavailable(f"{said.partition(', full error')[0]}.")

    async def hello(self) -> Doc:
        """What the primary says of itself."""
        async with self.calling(writes=False):
            return await self.client.admin.command("hello")

    async def run(self, command: Doc, fine: tuple[int, ...] = ()) -> None:
        """A command that changes something else than documents; an error with one of these codes is none."""
        async with self.calling(writes=True):
            await self.database.command(command, allowable_errors=list(fine))

    async def command(self, command: Doc, session: AsyncClientSession | None = None) -> Doc:
        """What the server answers to a command that changes nothing."""
        async with self.calling(writes=False):
            return await self.database.command(command, session=session)

    async def ask(self, command: Doc, *, admin: bool = False) -> Doc | None:
        """What the server answers, or `None` where this user may not ask."""
        try:
            async with self.calling(writes=False):
                return await (self.client.admin if admin else self.database).command(command)
        except Unauthorized:
            return None

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        await self.client.close()


async def connect(
    url: str, foreign: Mapping[str, str], *, database: str, namespace: str, place: str, size: int, connect_timeout: float, timeout: float
) -> Connections:
    """A client that has not connected yet. `foreign`: the URL's options that are MongoDB's; the client library would only warn of those
    that it does not know. Time-outs in seconds; `size`: connections at most."""
    listener = _Sent()
    milliseconds = int(connect_timeout * 1000)
    try:
        validate_options(foreign, warn=False)
        client = AsyncMongoClient[Doc](
            url,
            connectTimeoutMS=milliseconds,
            serverSelectionTimeoutMS=milliseconds,
            timeoutMS=int(timeout * 1000),
            maxPoolSize=size,
            retryWrites=False,
            readPreference="primary",
            event_listeners=[listener],
        )
    except (ConfigurationError, InvalidURI, ValueError, TypeError, OSError) as error:  # OSError: a certificate file of the URL
        raise Invalid(f"{place!r}: {_text(str(error))}.") from None
    except PyMongoError as error:  # mongodb+srv:// asks the DNS here.
        raise Unavailable(f"{place!r}: {_text(str(error))}.") from error
    try:
        return Connections(client, listener, database, namespace, place, timeout)
    except InvalidName as error:
        await client.close()
        raise Invalid(f"{place!r}: {database!r} is no name of a database in MongoDB: {_text(str(error))}.") from None


def _text(said: str) -> str:
    return " ".join(said.split()).rstrip(".")
