"""etcd's JSON gateway: transactions of comparisons and requests, and the one place where its errors become ours.

Every etcd from 3.4 on serves it beside gRPC, on the same port. Nothing is retried here: a request goes to one member, to the next one only
when the connection could not be made.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpx
import msgspec

from perdure.backends.remote import cancel_and_wait
from perdure.errors import Error, Invalid, TooLarge, Unauthorized, Unavailable, Unknown

Json = dict[str, Any]
_UNAUTHENTICATED, _FORBIDDEN, _INVALID, _FULL, _OUT_OF_RANGE = 16, 7, 3, 8, 11
"""gRPC status codes."""
_LOGIN = ("authentication failed", "user name is empty", "revision of auth store is old")
"""The last: users or rights were changed while the request was on its way; nothing was done."""


class Compacted(Exception):
    """The revision asked for is no longer kept; what is newer is."""


class Gateway:
    """A client of one cluster. `endpoints` are base URLs; time-outs in seconds, each call ends within them."""

    def __init__(
        self, endpoints: Sequence[str], login: tuple[str, str] | None, client: httpx.AsyncClient, streams: httpx.AsyncClient, timeout: float
    ) -> None:
        """`streams`: a second client, for what goes on and on; so it takes no connection from the rest."""
        self._endpoints, self._login, self._client, self._timeout = list(endpoints), login, client, timeout
        self._streams = streams
        self._token: str | None = None
        self._under_way: set[asyncio.Task[httpx.Response]] = set()
        self.requests = 0
        """How many requests were sent, for tests that count them."""

    async def call(self, path: str, body: Json, *, writes: bool = False, only: str | None = None) -> Json:
        """One request, to the member at the endpoint `only`, or to any. Raises `Unknown` instead of `Unavailable` where a write was sent
        and not answered, `Compacted`."""
        token = self._token or await self._authenticate()
        try:
            return await self._post(path, body, token, writes=writes, only=only)
        except Unauthorized:
            if self._login is None:
                raise
        # Tokens end after minutes, and a request with an old one was refused before it did anything.
        token = await self._authenticate() if self._token == token else self._token
        return await self._post(path, body, token, writes=writes, only=only)

    async def _authenticate(self) -> str | None:
        """A new token; none without a login."""
        if self._login is not None:
            answer = await self._post("auth/authenticate", {"name": self._login[0], "password": self._login[1]}, None, writes=False)
            self._token = str(answer["token"])
        return self._token

    async def _post(self, path: str, body: Json, token: str | None, *, writes: bool, only: str | None = None) -> Json:
        content, headers = msgspec.json.encode(body), _headers(token)
        lost: type[Error] = Unknown if writes else Unavailable
        for place in range(len(self._endpoints)):
            endpoint = only or self._endpoints[0]
            try:
                self.requests += 1
                response = await self._in_time(self._client.post(f"{endpoint}/v3/{path}", content=content, headers=headers))
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                self._avoid(endpoint)
                if only or place == len(self._endpoints) - 1:
                    raise Unavailable(f"No member of etcd can be reached, the last tried was {endpoint}: {_word(error)}.") from error
            except (httpx.HTTPError, TimeoutError) as error:
                self._avoid(endpoint)
                raise lost(f"etcd at {endpoint} did not answer: {_word(error)}.") from error
            else:
                return self._answer(endpoint, response, lost)
        raise AssertionError  # the loop returns or raises

    def _avoid(self, endpoint: str) -> None:
        """Ask this member last."""
        with suppress(ValueError):  # Another call may be about to do the same.
            self._endpoints.remove(endpoint)
            self._endpoints.append(endpoint)

    async def _in_time(self, request: Coroutine[Any, Any, httpx.Response]) -> httpx.Response:
        """The answer, or `TimeoutError`. A request is never cancelled: httpx would leave its socket open. It ends by its own time-outs."""
        task = asyncio.create_task(request)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        await asyncio.wait({task}, timeout=self._timeout)
        if not task.done():
            raise TimeoutError(f"{self._timeout:g} s are over")
        return task.result()

    def _ended(self, task: asyncio.Task[httpx.Response]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()

    async def stream(self, path: str, body: Json, alive: Json) -> AsyncGenerator[Json, None]:
        """What a member answers, one after another, to a request that does not end; on a connection beside the others.

        In a silence the member is asked for the range `alive`: a linearizable read, so one that lost the others is found out too. Raises
        `Unavailable` when it breaks off or the member does not answer within the time-outs, `Unauthorized`.
        """
        await self.call("kv/range", alive)  # The endpoint that answered is first now, and the token is good.
        endpoint = self._endpoints[0]
        answers: asyncio.Queue[Json | Error] = asyncio.Queue(1)
        content, headers = msgspec.json.encode(body), _headers(self._token)
        request = self._streams.build_request("POST", f"{endpoint}/v3/{path}", content=content, headers=headers)
        receiving = asyncio.create_task(self._receive(endpoint, request, answers))
        try:
            while True:
                try:
                    async with asyncio.timeout(self._timeout / 2):
                        answer = await answers.get()
                except TimeoutError:
                    await self.call("kv/range", alive, only=endpoint)
                    continue
                if isinstance(answer, Error):
                    self._avoid(endpoint)
                    raise answer
                yield answer
        finally:
            await cancel_and_wait(receiving)

    async def _receive(self, endpoint: str, request: httpx.Request, answers: asyncio.Queue[Json | Error]) -> None:
        """Put what comes, and in the end the error that ended it."""
        try:
            response = await self._streams.send(request, stream=True)
            try:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    self._answer(endpoint, response, Unavailable)
                async for line in response.aiter_lines():
                    answer = msgspec.json.decode(line, type=dict[str, Json])
                    await answers.put(answer["result"])
            finally:
                await response.aclose()
            ending: Error = Unavailable(f"etcd at {endpoint} ended a stream.")
        except Error as error:
            ending = error
        except (httpx.HTTPError, msgspec.DecodeError, KeyError) as error:
            ending = Unavailable(f"A stream from etcd at {endpoint} broke off: {_word(error)}.")
        await answers.put(ending)

    async def close(self) -> None:
        """Close the clients, once what is under way has ended."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        await self._client.aclose()
        await self._streams.aclose()

    def _answer(self, endpoint: str, response: httpx.Response, lost: type[Error]) -> Json:
        try:
            answer: Json = msgspec.json.decode(response.content, type=dict)
        except msgspec.DecodeError as error:
            raise lost(f"What answers at {endpoint} is no etcd gateway: status {response.status_code}.") from error
        if response.status_code == httpx.codes.OK:
            return answer
        code, message = answer.get("code"), str(answer.get("message") or answer.get("error") or response.status_code)
        if code in (_UNAUTHENTICATED, _FORBIDDEN) or any(word in message for word in _LOGIN):
            raise Unauthorized(f"etcd at {endpoint} refused: {message}.")
        if "too large" in message:
            raise TooLarge(f"etcd at {endpoint} refused a request as too large: {message}.")
        if code == _OUT_OF_RANGE:
            raise Compacted(message)
        if code == _FULL:
            raise Unavailable(f"etcd at {endpoint} takes no more data: {message}. Compact and defragment it, or raise its quota.")
        if code == _INVALID:
            raise Invalid(f"etcd at {endpoint} refused a request: {message}.")
        self._avoid(endpoint)
        raise lost(f"etcd at {endpoint} could not serve: {message}.")

    async def txn(self, compare: Sequence[Json], success: Sequence[Json], failure: Sequence[Json] = (), *, writes: bool = True) -> Json:
        """One transaction: `success` if every comparison holds, else `failure`."""
        body = {"compare": list(compare), "success": list(success), "failure": list(failure)}
        return await self.call("kv/txn", body, writes=writes)

    async def range(self, **request: Any) -> Json:
        """One range, read as `get` says."""
        return await self.call("kv/range", get(**request)["request_range"])


def _headers(token: str | None) -> dict[str, str]:
    return {"Authorization": token} if token else {}


def _word(error: BaseException) -> str:
    return f"{type(error).__name__} {error}".strip()


def text(data: bytes) -> str:
    """Bytes as the gateway writes them."""
    return b64encode(data).decode()


def data(item: Mapping[str, Any], name: str) -> bytes:
    """A field of bytes; the gateway leaves an empty one out."""
    return b64decode(item.get(name, ""))


def put(key: bytes, value: bytes) -> Json:
    """The request that sets a key."""
    return {"request_put": {"key": text(key), "value": text(value)}}


def get(key: bytes, end: bytes | None = None, *, limit: int = 0, descend: bool = False, revision: int = 0, keys_only: bool = False) -> Json:
    """The request for a key, or for all keys from `key` up to `end` (not included); linearizable unless of an old `revision`."""
    request: Json = {"key": text(key)}
    if end is not None:
        request["range_end"] = text(end)
        request |= {"limit": str(limit), "sort_target": "KEY", "sort_order": "DESCEND" if descend else "ASCEND"}
    if revision:
        request["revision"] = str(revision)
    if keys_only:
        request["keys_only"] = True
    return {"request_range": request}


def delete(key: bytes, end: bytes | None = None) -> Json:
    """The request that removes a key, or all keys up to `end`."""
    request = {"key": text(key)}
    if end is not None:
        request["range_end"] = text(end)
    return {"request_delete_range": request}


def nested(compare: Sequence[Json], success: Sequence[Json], failure: Sequence[Json]) -> Json:
    """A transaction within one."""
    return {"request_txn": {"compare": list(compare), "success": list(success), "failure": list(failure)}}


def holds(key: bytes, value: bytes) -> Json:
    """The comparison: the key has this value."""
    return {"key": text(key), "target": "VALUE", "result": "EQUAL", "value": text(value)}


def absent(key: bytes) -> Json:
    """The comparison: there is no such key."""
    return {"key": text(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}


def unchanged(key: bytes, revision: int) -> Json:
    """The comparison: the key was last written at this revision."""
    return {"key": text(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}


def items(answer: Json) -> list[Json]:
    """The keys and values that a range found."""
    found: list[Json] = answer.get("response_range", answer).get("kvs", [])
    return found


def prefix_end(prefix: bytes) -> bytes:
    """The first key that does not begin with `prefix`."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,))
