"""The driver's session after asyncio, and the one place where Cassandra's errors become ours.

cassandra-driver has threads of its own; what they answer is handed to the loop by `Mailbox`. Its retries are off and it
speculates on nothing: a conditional write is sent once. Reads and unconditional writes are sent again here while their time lasts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from random import uniform
from typing import Any

import cassandra
from cassandra import ConsistencyLevel, connection, protocol
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, NoHostAvailable, Session
from cassandra.policies import FallthroughRetryPolicy
from cassandra.query import UNSET_VALUE, BatchStatement, BatchType, BoundStatement, PreparedStatement, SimpleStatement, dict_factory

from perdure.backends.remote.loop import in_thread
from perdure.concurrency.mailbox import Mailbox
from perdure.errors import Closed, Corrupt, Error, Invalid, TooLarge, Unauthorized, Unavailable, Unknown

Values = Sequence[Any]
UNSET = UNSET_VALUE
"""A value that leaves its column as it is."""
RECONNECT_SECONDS = 0.1
"""How often a node that is down is tried."""
SCHEMA_SECONDS = 30
"""What a change of the schema may take at least."""
PAUSE = (0.005, 0.05)
"""Seconds between tries of a read that met others' writes: somewhere in this range."""
_PASSING = (cassandra.RequestExecutionException, cassandra.OperationTimedOut, connection.ConnectionException, protocol.ErrorMessage)
"""What may be over when a request is sent again …"""
_LASTING = (cassandra.Unavailable, protocol.RequestValidationException, protocol.ProtocolException, protocol.BadCredentials)
"""… but these: nodes are missing, or the server refused what it was asked."""


class Client:
    """The statements of one store. Of the URL's options it takes `timeout` (seconds for a call with all its tries), `connect_timeout`
    (seconds that a call may wait for a connection) and `datacenter`. `local`: a quorum of this datacentre alone decides."""

    def __init__(self, cluster: Cluster, session: Session, keyspace: str, place: str, options: Mapping[str, Any], *, local: bool) -> None:
        self.cluster, self.keyspace, self.place = cluster, keyspace, place
        self.datacenter, self.local = options["datacenter"], local
        self.quorum = ConsistencyLevel.LOCAL_QUORUM if local else ConsistencyLevel.QUORUM
        self.serial = ConsistencyLevel.LOCAL_SERIAL if local else ConsistencyLevel.SERIAL
        self._session, self._timeout, self._patience = session, options["timeout"], options["connect_timeout"]
        self._texts = _statements(keyspace, cells=False)
        self._prepared: dict[str, asyncio.Task[PreparedStatement]] = {}
        self._conditional = session.execution_profile_clone_update(
            EXEC_PROFILE_DEFAULT, row_factory=dict_factory, retry_policy=FallthroughRetryPolicy()
        )
        self._loop = asyncio.get_running_loop()
        self._mailbox = Mailbox(self._loop)
        self.requests = 0
        """How many requests were sent, for tests that count them."""

    def use_cells(self) -> None:
        """From now on read the cells of schema 2, too."""
        self._texts = _statements(self.keyspace, cells=True)

    async def run(self, name: str, *values: Any) -> list[tuple[Any, ...]]:
        """A read, or an unconditional write. Raises `Unavailable` when it was not answered in its time."""
        statement = await self.bound(name, values)
        return await self._again(statement, name)

    async def run_batch(self, name: str, rows: Sequence[Values]) -> None:
        """Several unconditional writes in one partition."""
        batch = BatchStatement(BatchType.UNLOGGED, consistency_level=self.quorum)
        for values in rows:
            batch.add(await self.bound(name, values))
        await self._again(batch, name)

    async def change_schema(self, text: str) -> None:
        """A statement that makes a keyspace or a table unless it is there. All nodes have to agree, which may take them long."""
        await self._again(text, "CREATE", max(self._timeout, SCHEMA_SECONDS))

    async def _again(self, statement: Any, name: str, timeout: float | None = None, profile: Any = EXEC_PROFILE_DEFAULT) -> list[Any]:
        loop = asyncio.get_running_loop()
        until = loop.time() + (timeout or self._timeout)
        while True:
            try:
                return await self._reach(statement, max(until - loop.time(), 0.001), profile) or []
            except _PASSING as error:
                pause = uniform(*PAUSE)
                if loop.time() + pause >= until or isinstance(error, _LASTING):
                    raise self._mapped(error, name, writes=False) from error
                await asyncio.sleep(pause)
            except Exception as error:
                raise self._mapped(error, name, writes=False) from error

    async def fetch(self, text: str, *, plain: bool = False) -> list[dict[str, Any]]:
        """A read that is not prepared, by Paxos unless it is to be plain: rows by the names of all columns that there are."""
        statement = SimpleStatement(text, consistency_level=self.quorum if plain else self.serial)
        return await self._again(statement, "SELECT", profile=self._conditional)

    async def _reach(self, statement: Any, timeout: float, profile: Any = EXEC_PROFILE_DEFAULT) -> Any:
        """Send a request once; one that no node could be given for want of a connection waits for one, as long as connecting may take."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience
        while True:
            try:
                return await self._send(statement, timeout, profile)
            except NoHostAvailable:
                if loop.time() + RECONNECT_SECONDS > until:
                    raise
                await asyncio.sleep(RECONNECT_SECONDS)

    async def decide(self, *statements: tuple[str, Values]) -> list[dict[str, Any]] | None:
        """A conditional write, all in one partition, sent once. `None`: it was applied; else the rows that did not meet the condition.

        Raises `Unknown` where it may have been applied, or may be later.
        """
        bound = [await self.bound(name, values) for name, values in statements]
        if len(bound) == 1:
            (statement,) = bound
        else:
            statement = BatchStatement(BatchType.UNLOGGED, consistency_level=self.quorum, serial_consistency_level=self.serial)
            for part in bound:
                statement.add(part)
        try:
            rows = await self._reach(statement, self._timeout, self._conditional)
        except Exception as error:
            raise self._mapped(error, statements[0][0], writes=True) from error
        return None if rows and rows[0]["[applied]"] else rows or []

    async def bound(self, name: str, values: Values) -> BoundStatement:
        """A named statement with its values; it is prepared when it is first used."""
        task = self._prepared.get(name)
        if task is None:
            task = self._prepared[name] = asyncio.ensure_future(self._prepare(name))
        try:
            prepared = task.result() if task.done() else await asyncio.shield(task)
        except Error:
            self._prepared.pop(name, None)
            raise
        return prepared.bind(values)

    async def _prepare(self, name: str) -> PreparedStatement:
        kind, text = self._texts[name]
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience
        while True:
            try:
                prepared = await in_thread(lambda: self._session.prepare(text))
                break
            except Exception as error:
                passing = isinstance(error, (NoHostAvailable, *_PASSING)) and not isinstance(error, _LASTING)
                if not passing or loop.time() + RECONNECT_SECONDS > until:
                    raise self._mapped(error, name, writes=False) from error
                await asyncio.sleep(RECONNECT_SECONDS)
        prepared.consistency_level = self.serial if kind == "serial" else self.quorum
        prepared.serial_consistency_level = self.serial if kind == "conditional" else None
        return prepared

    async def ask(self, text: str, host: Any = None) -> list[tuple[Any, ...]]:
        """A statement that is not prepared: the tables themselves, and what one node says of itself."""
        try:
            return await self._send(text, self._timeout, host=host) or []
        except Exception as error:
            raise self._mapped(error, text.partition(" ")[0], writes=False) from error

    async def _send(self, statement: Any, timeout: float, profile: Any = EXEC_PROFILE_DEFAULT, host: Any = None) -> Any:
        answer: asyncio.Future[Any] = self._loop.create_future()

        def give(value: Any, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(value)
            else:
                answer.set_exception(error)

        def hand_over(value: Any, error: BaseException | None = None) -> None:
            with suppress(RuntimeError):  # The loop is closed: no caller waits.
                self._mailbox.put(lambda: give(value, error))

        self.requests += 1
        response = self._session.execute_async(statement, timeout=timeout, execution_profile=profile, host=host)
        response.add_callbacks(hand_over, lambda error: hand_over(None, error))
        return await answer

    def _mapped(self, error: BaseException, name: str, *, writes: bool) -> BaseException:
        return mapped(error, f"Cassandra at {self.place} ({name})", writes=writes)

    async def close(self) -> None:
        """End the driver's connections and threads."""
        tasks = [task for task in self._prepared.values() if not task.done()]
        await asyncio.gather(*tasks, return_exceptions=True)
        await in_thread(self.cluster.shutdown)


def _statements(keyspace: str, *, cells: bool) -> dict[str, tuple[str, str]]:
    """The statements of queries.cql by their names: kind and text."""
    text = files(__package__).joinpath("queries.cql").read_text()
    column = ", cells" if cells else ""
    parts = re.split(r"^-- (\w+): (\w+) --\n", text, flags=re.MULTILINE)[1:]
    return {
        name: (kind, re.sub(r"^--.*\n", "", body, flags=re.MULTILINE).replace("{ks}", f'"{keyspace}"').replace("{cells}", column).strip())
        for name, kind, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def mapped(error: BaseException, where: str, *, writes: bool) -> BaseException:
    """A foreign error as ours. `writes`: it was a conditional write, which may not be taken for not applied."""
    text = " ".join(str(error).split())[:300]
    match error:
        case Error() | asyncio.CancelledError():
            return error
        case NoHostAvailable():
            return _unreached(error, where)
        case cassandra.AuthenticationFailed():
            return Unauthorized(f"{where}: user or password was refused.")
        case cassandra.Unauthorized():
            return Unauthorized(f"{where}: {text}.")
        case cassandra.Unavailable() if not writes:  # For a conditional write it says nothing of the rounds that came before.
            return Unavailable(f"{where}: {error.alive_replicas} of {error.required_replicas} replicas that are needed are alive.")
        case cassandra.InvalidRequest() | protocol.SyntaxException():
            if "too large" in text.lower():
                return TooLarge(f"{where}: {text}.")
            return Corrupt(f"{where}: the tables are not as Perdure made them: {text}.")
        case protocol.ConfigurationException() | cassandra.AlreadyExists():
            return Invalid(f"{where}: {text}.")
        case _ if "shut down" in text and not writes:
            return Closed()
    lost = Unknown if writes else Unavailable
    return lost(f"{where}: no answer that can be relied on: {type(error).__name__}: {text}.")


def _unreached(error: NoHostAvailable, where: str) -> Error:
    """No request was sent: why."""
    reasons: Mapping[Any, Any] = error.errors if isinstance(error.errors, Mapping) else {}
    if any(isinstance(reason, cassandra.AuthenticationFailed) for reason in reasons.values()):
        return Unauthorized(f"{where}: user or password was refused.")
    said = "; ".join(sorted({f"{host}: {_why(reason)}" for host, reason in reasons.items()}))[:300]
    return Unavailable(f"{where}: no node can be reached{': ' + said if said else ''}.")


def _why(reason: object) -> str:
    """A word for it; the driver hides a certificate that was not trusted in the text of another error."""
    _, found, rest = str(reason).partition("certificate verify failed: ")
    return f"its certificate is not to be trusted: {rest}" if found else type(reason).__name__
