"""Calls to Redis: many in one round trip to each node, and the one place where its errors become ours."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from itertools import chain, repeat
from typing import Any, NamedTuple

from redis import exceptions as redis
from redis.asyncio import ConnectionPool

from perdure.backends.redis.routes import Route
from perdure.backends.remote import RetryLater, gather_all
from perdure.errors import Closed, Corrupt, Error, Invalid, Unauthorized, Unavailable, Unknown, Unsupported

Words = tuple[str | bytes | int, ...]
LIBRARY = files(__package__).joinpath("functions.lua").read_text()
LIBRARY_NAME = LIBRARY.partition("name=")[2].partition("\n")[0]
FUNCTIONS = re.findall(r"'(perdure_\w+)'", LIBRARY)
MOVES = 4
"""How often calls follow slots that have moved."""
PAUSES = (0.01, 0.02, 0.05, 0.1)
"""Seconds between tries of a call whose slot is moving; the last one repeats."""
_SCRIPT = f"""local known = {{}}
local redis = setmetatable({{register_function = function(named)
  if type(named) == 'table' then known[named.function_name] = named.callback end
end}}, {{__index = redis}})
{LIBRARY.partition(chr(10))[2]}
return known[ARGV[1]](KEYS, {{unpack(ARGV, 2)}})
"""
"""The functions that only read, as a script: its first argument names one."""
_FUNCTION_CALLS = ("FCALL", "FCALL_RO")
_LOGIN = (redis.AuthenticationError, redis.AuthenticationWrongNumberOfArgsError, redis.NoPermissionError, redis.AuthorizationError)
_NOT_NOW = (redis.BusyLoadingError, redis.ReadOnlyError, redis.OutOfMemoryError, redis.ClusterDownError, redis.TryAgainError)


class Elsewhere(NamedTuple):
    """Ask this node, although the slot is not its own yet; `None`: ask the node that has the slot."""

    pool: ConnectionPool | None


class Connections:
    """At most `size` connections under way; `timeout` in seconds, for one request."""

    def __init__(self, route: Route, *, place: str, size: int, timeout: float) -> None:
        self.route, self.place, self.timeout = route, place, timeout
        self._room = asyncio.Semaphore(size)
        self._closed = self._astray = False
        self.requests = 0
        """Round trips, for tests that count them."""

    async def call(
        self, calls: Sequence[tuple[str, Words]], *, writes: bool, follow_up: Words | None = None, waits: bool = True
    ) -> list[Any]:
        """Each call's answer, or our error; calls are pairs of a key, which says where it goes, and a command. One round trip to each node.

        `follow_up`: a command that follows on each connection; its answer is put after each call's, as a pair. `waits`: what meets a slot
        on its way to another node is tried again until it has arrived; otherwise it is `RetryLater`, and was not done."""
        answers: list[Any] = [None] * len(calls)
        waiting: dict[int, ConnectionPool | None] = dict.fromkeys(range(len(calls)))
        clock = asyncio.get_running_loop().time
        moves, until, pauses = 0, clock() + self.timeout, chain(PAUSES, repeat(PAUSES[-1]))
        while waiting:
            groups: dict[tuple[ConnectionPool, bool], list[int]] = {}
            try:
                if self._astray:
                    self._astray = False
                    await self.route.locate()
                for number, other in waiting.items():
                    groups.setdefault((other or self.route.pool_of(calls[number][0]), other is not None), []).append(number)
            except (Error, redis.RedisError, OSError) as error:
                for number in waiting:
                    answers[number] = self.mapped(error, unsure=False)
                break
            sending = [
                self._send(pool, [calls[number][1] for number in numbers], follow_up, asking=asking, writes=writes)
                for (pool, asking), numbers in groups.items()
            ]
            waiting = {}
            moving = []
            for ((pool, _), numbers), found in zip(groups.items(), await gather_all(*sending), strict=True):
                for number, answer in zip(numbers, found, strict=True):
                    answers[number] = answer
                    match await self._next(calls[number], answer, pool):
                        case RetryLater() as later:
                            answers[number] = later
                            moving.append(number)
                        case Elsewhere(place):
                            waiting[number] = place
            if moving and waits and clock() < until:
                waiting |= dict.fromkeys(moving)
                await asyncio.sleep(next(pauses))
            elif (moves := moves + 1) == MOVES:
                break
        if waits:
            answers = [answer.error if isinstance(answer, RetryLater) else answer for answer in answers]
        return [self.mapped(answer, unsure=False) if isinstance(answer, Exception) else answer for answer in answers]

    async def _next(self, call: tuple[str, Words], answer: Any, pool: ConnectionPool) -> Elsewhere | RetryLater | None:
        """What to do about a call that was not done: ask elsewhere, or later. `None`: this answer stands.

        A node that is handing a slot over says ASK for each key that it does not have (any more). A command of one key is then the other
        node's to answer. A function's keys may be on both: it is the other node's when the first has none left, and has to wait before,
        for it would take what has not arrived for what there never was."""
        key, words = call
        match answer:
            case redis.MovedError():
                self.route.moved(answer.slot_id, self.route.pool_at(pool, answer.host, answer.port))
                return Elsewhere(None)
            case redis.AskError():
                if words[0] in _FUNCTION_CALLS and not await self._emptied(pool, key, answer.slot_id):
                    return self._later(f"the slot {answer.slot_id}")
                return Elsewhere(self.route.pool_at(pool, answer.host, answer.port))
            case redis.TryAgainError():
                return self._later("a slot")
            case redis.ConnectionError() | redis.TimeoutError() if self.route.clustered and not isinstance(answer, _LOGIN):
                self._astray = True
                return Elsewhere(None)
        return None

    async def _emptied(self, pool: ConnectionPool, key: str, slot: int) -> bool:
        """Whether a node that is handing a slot over has no key of it left, and is handing it over still: a replica may have none yet."""
        left, there = await self._exchange(pool, [("CLUSTER", "COUNTKEYSINSLOT", slot), ("EXISTS", key)], writes=False)
        return left == 0 and isinstance(there, redis.AskError) and not isinstance(there, redis.MovedError)

    def _later(self, what: str) -> RetryLater:
        return RetryLater(Unavailable(f"Redis at {self.place} is moving {what} to another node, which has not come to an end."))

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

    async def _send(self, pool: ConnectionPool, calls: list[Words], follow_up: Words | None, *, asking: bool, writes: bool) -> list[Any]:
        """Answers; errors are the client library's, or ours. `asking`: although the slot is not the node's yet."""

        async def exchange(calls: list[Words]) -> list[Any]:
            sent = [word for call in calls for word in (("ASKING",), call)] if asking else calls
            found = await self._exchange(pool, sent if follow_up is None else [*sent, follow_up], writes=writes)
            return [*found[1 : len(sent) : 2], *found[len(sent) :]] if asking else found

        found = await exchange(calls)
        missing = [number for number, answer in enumerate(found[: len(calls)]) if _is_missing(answer)]
        if missing and not writes:  # Reading makes nothing: the functions' text is sent along until someone writes.
            for number, answer in zip(missing, await exchange([_as_script(calls[number]) for number in missing]), strict=False):
                found[number] = answer
        elif missing:
            (loaded,) = await self._exchange(pool, [("FUNCTION", "LOAD", LIBRARY)], writes=False)
            if isinstance(loaded, Exception) and "already exists" not in str(loaded):
                return [self.mapped(loaded, unsure=False)] * len(calls)
            some = [calls[number] for number in missing]
            again = await exchange(some)
            if any(map(_is_missing, again)):  # Another one has the name.
                return [self.foreign_library()] * len(calls)
            for number, answer in zip(missing, again, strict=False):
                found[number] = answer
            found[len(calls) :] = again[len(some) :]
        if follow_up is None:
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
            case redis.RedisError() if re.search(r"DB index|Invalid Database|SELECT is not allowed", str(error)):
                return Invalid(f"{said} Name a database that the server has, as in redis://host:6379/0.")
            case redis.ResponseError() if "WRONGTYPE" in str(error) or "attempt to " in str(error):  # So Lua begins to say it.
                return Corrupt(f"{said} A key of ours was changed by hand.")
            case redis.ResponseError() if str(error).startswith(("unknown command", "NOAUTH", "WRONGPASS", "NOPERM")):
                return Unsupported(said) if str(error).startswith("unknown") else Unauthorized(said)
            case _ if unsure:
                return Unknown(said)
            case _:
                return Unavailable(said)

    def foreign_library(self) -> Unsupported:
        """The error of functions that are none of ours under our names."""
        return Unsupported(
            f"Redis at {self.place} has a function library {LIBRARY_NAME!r}, or functions of its names, that are not Perdure's: remove them"
            f" with FUNCTION DELETE, or use another server."
        )

    async def check_library(self, key: str) -> None:
        """Raise `Unsupported` where another library has the name of ours. A server that may not be asked is believed."""
        (found,) = await self.call([(key, ("FUNCTION", "LIST", "LIBRARYNAME", LIBRARY_NAME))], writes=False)
        if isinstance(found, list) and found and not all(name.encode() in _names_in(found) for name in FUNCTIONS):
            raise self.foreign_library()

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


def _names_in(answer: Any) -> set[bytes]:
    """All words of an answer, however deep."""
    if isinstance(answer, list | tuple):
        return {name for part in answer for name in _names_in(part)}
    return {answer} if isinstance(answer, bytes) else set()


def _as_script(call: Words) -> Words:
    _, name, count, key, *more = call
    return "EVAL_RO", _SCRIPT, count, key, name, *more


def _is_missing(answer: Any) -> bool:
    return isinstance(answer, redis.ResponseError) and "Function not found" in str(answer)
