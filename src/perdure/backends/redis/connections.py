"""Calls to Redis: many in one round trip to each node, and the one place where its errors become ours."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any

from redis import exceptions as redis
from redis.asyncio import ConnectionPool

from perdure.backends.redis.routes import Route
from perdure.backends.remote import together
from perdure.errors import Closed, Corrupt, Error, Unauthorized, Unavailable, Unknown, Unsupported

Words = tuple[str | bytes | int, ...]
LIBRARY = files(__package__).joinpath("functions.lua").read_text()
MOVES = 4
"""How often calls follow slots that have moved."""
_LOGIN = (redis.AuthenticationError, redis.AuthenticationWrongNumberOfArgsError, redis.NoPermissionError, redis.AuthorizationError)
_NOT_NOW = (redis.BusyLoadingError, redis.ReadOnlyError, redis.OutOfMemoryError, redis.ClusterDownError, redis.TryAgainError)


class Connections:
    """At most `size` connections under way; `timeout` in seconds, for one request."""

    def __init__(self, route: Route, *, place: str, size: int, timeout: float) -> None:
        self.route, self.place, self.timeout = route, place, timeout
        self._room = asyncio.Semaphore(size)
        self._closed = self._astray = False
        self.requests = 0
        """Round trips, for whoever counts them."""

    async def call(self, calls: Sequence[tuple[str, Words]], *, writes: bool, behind: Words | None = None) -> list[Any]:
        """Each call's answer, or our error; calls are pairs of a key, which says where it goes, and a command. One round trip to each node.

        `behind`: a command that follows on each connection; its answer is put behind each call's, as a pair."""
        answers: list[Any] = [None] * len(calls)
        waiting = list(range(len(calls)))
        for move in range(MOVES):
            nodes: dict[ConnectionPool, list[int]] = {}
            try:
                if move or self._astray:
                    self._astray = False
                    await self.route.locate()
                for number in waiting:
                    nodes.setdefault(self.route.pool_of(calls[number][0]), []).append(number)
            except (Error, redis.RedisError, OSError) as error:
                for number in waiting:
                    answers[number] = self.mapped(error, unsure=False)
                return answers
            sending = [self._send(pool, [calls[number][1] for number in numbers], behind, writes=writes) for pool, numbers in nodes.items()]
            for numbers, found in zip(nodes.values(), await together(*sending), strict=True):
                for number, answer in zip(numbers, found, strict=True):
                    answers[number] = answer
            waiting = [number for number in waiting if self._elsewhere(answers[number])]
            if not waiting:
                break
        return [self.mapped(answer, unsure=False) if isinstance(answer, Exception) else answer for answer in answers]

    def _elsewhere(self, answer: Any) -> bool:
        """Whether a call, which was not done, may be another node's by now."""
        if isinstance(answer, redis.MovedError):
            return True
        return self.route.clustered and isinstance(answer, redis.ConnectionError | redis.TimeoutError) and not isinstance(answer, _LOGIN)

    async def one(self, key: str, *words: str | bytes | int, writes: bool = False) -> Any:
        """One call; its error is raised."""
        (answer,) = await self.call([(key, words)], writes=writes)
        if isinstance(answer, Error):
            raise answer
        return answer

    async def each(self, calls: Sequence[tuple[str, Words]]) -> list[Any]:
        """Reads; the first error is raised."""
        answers = await self.call(calls, writes=False)
        for answer in answers:
            if isinstance(answer, Error):
                raise answer
        return answers

    async def _send(self, pool: ConnectionPool, calls: list[Words], behind: Words | None, *, writes: bool) -> list[Any]:
        """Answers; errors are the client library's, or ours."""
        found = await self._exchange(pool, calls if behind is None else [*calls, behind], writes=writes)
        missing = [number for number, answer in enumerate(found[: len(calls)]) if _is_missing(answer)]
        if missing:
            (loaded,) = await self._exchange(pool, [("FUNCTION", "LOAD", LIBRARY)], writes=False)
            if isinstance(loaded, Exception) and "already exists" not in str(loaded):
                return [self.mapped(loaded, unsure=False)] * len(calls)
            some = [calls[number] for number in missing]
            again = await self._exchange(pool, some if behind is None else [*some, behind], writes=writes)
            for number, answer in zip(missing, again, strict=False):
                found[number] = answer
            found[len(calls) :] = again[len(some) :]
        if behind is None:
            return found
        *answers, last = found
        return [answer if isinstance(answer, Exception) else (answer, last) for answer in answers]

    async def _exchange(self, pool: ConnectionPool, commands: list[Words], *, writes: bool) -> list[Any]:
        """Send commands together and take their answers: values, or errors of the server. Where no connection was made, the client
        library's error for all; where it broke, ours for the rest."""
        if self._closed:
            return [Closed()] * len(commands)
        try:
            await asyncio.wait_for(self._room.acquire(), self.timeout)
        except TimeoutError:
            return [Unavailable(f"All connections to Redis at {self.place} were busy for {self.timeout:g} s.")] * len(commands)
        try:
            try:
                connection = await pool.get_connection()
            except (redis.RedisError, OSError, TimeoutError) as error:
                return [error if isinstance(error, redis.RedisError) else redis.ConnectionError(str(error))] * len(commands)
            answers: list[Any] = []
            try:
                self.requests += 1
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                for _ in commands:
                    try:
                        answers.append(await connection.read_response())
                    except (redis.ConnectionError, redis.TimeoutError) as error:
                        if not isinstance(error, _LOGIN + _NOT_NOW):
                            raise
                        answers.append(error)
                    except redis.ResponseError as error:
                        answers.append(error)
            except (redis.RedisError, OSError, TimeoutError) as error:
                await connection.disconnect(nowait=True)
                self._astray = True
                lost = self.mapped(error, unsure=writes)
                answers += [lost] * (len(commands) - len(answers))
            finally:
                if any(isinstance(answer, redis.ReadOnlyError) for answer in answers):  # It was a primary once.
                    await connection.disconnect(nowait=True)
                await pool.release(connection)
            return answers
        finally:
            self._room.release()

    def mapped(self, error: Exception, *, unsure: bool) -> Error:
        """Our error for one of the client library's. `unsure`: the call may have been done."""
        said = f"Redis at {self.place}: {' '.join(str(error).split()).rstrip('.') or type(error).__name__}."
        match error:
            case Error():
                return error
            case _ if isinstance(error, _LOGIN):
                return Unauthorized(said)
            case _ if isinstance(error, _NOT_NOW):
                return Unavailable(said)
            case redis.ResponseError() if "WRONGTYPE" in str(error):
                return Corrupt(f"{said} A key of ours was changed by hand.")
            case redis.ResponseError() if str(error).startswith(("unknown command", "NOAUTH", "WRONGPASS", "NOPERM")):
                return Unsupported(said) if str(error).startswith("unknown") else Unauthorized(said)
            case _ if unsure:
                return Unknown(said)
            case _:
                return Unavailable(said)

    async def locate(self) -> None:
        """Find out who has what. Raises `Unavailable`, `Unauthorized`."""
        try:
            await self.route.locate()
        except (redis.RedisError, OSError, TimeoutError) as error:
            raise self.mapped(error, unsure=False) from error

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        for pool in self.route.pools():
            with suppress(redis.RedisError, OSError):
                await pool.disconnect()


def _is_missing(answer: Any) -> bool:
    return isinstance(answer, redis.ResponseError) and "Function not found" in str(answer)
