"""Requests to one table, and the one place where DynamoDB's errors become ours.

The client's own retries are off. What DynamoDB certainly did not do (throttled, in conflict with a transaction) is sent again here, within
the time-out, and so are reads that broke off; a write whose answer is lost never is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import Any

import aiohttp
from botocore import exceptions as boto

from perdure.backends.dynamodb.layout import FEED_INDEX, Item
from perdure.errors import Error, Invalid, TooLarge, Unauthorized, Unavailable, Unknown, Unsupported

REFUSED_AFTER = (0.02, 0.05, 0.1, 0.2)
"""Seconds before a request that was not done is sent again, give or take a half; the last one repeats."""
_REFUSED = {
    "ProvisionedThroughputExceededException", "ProvisionedThroughputExceeded", "ThrottlingException", "ThrottlingError", "Throttling",
    "RequestLimitExceeded", "TransactionConflictException", "TransactionConflict", "ReplicatedWriteConflictException",
}  # fmt: skip
"""Errors, and reasons of a cancelled transaction, that mean: nothing was done, try again."""
_STRANGERS = {
    "AccessDeniedException", "ExpiredTokenException", "IncompleteSignatureException", "InvalidClientTokenId", "InvalidSignatureException",
    "MissingAuthenticationTokenException", "NotAuthorized", "OptInRequired", "SignatureDoesNotMatch", "UnrecognizedClientException",
}  # fmt: skip
_NO_LOGIN = (
    boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.TokenRetrievalError,
    boto.SSOError, boto.NoAuthTokenError,
)  # fmt: skip
_NOT_CONNECTED = (boto.ConnectTimeoutError, boto.ProxyConnectionError, boto.SSLError)
_CUT = (boto.ConnectionClosedError, boto.EndpointConnectionError)
"""A connection that broke; often an idle one that the server had closed. A read goes out again."""
BATCH_KEYS, BATCH_STATEMENTS = 100, 25
"""Most items that one request reads by key, and most statements in one."""
_UNDONE = {
    "RequestLimitExceeded", "ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict", "ItemCollectionSizeLimitExceeded",
    "ResourceNotFound", "ValidationError",
}  # fmt: skip
"""Errors of a statement in a batch that mean: it was not done."""


class Refusal(Exception):
    """A condition did not hold; nothing was written. `items`: for each part of the request the item whose condition failed, as it is
    (empty where there is none), or `None` where the condition held."""

    def __init__(self, items: Sequence[Item | None]) -> None:
        super().__init__("a condition did not hold")
        self.items = items


class _RefusedError(Exception):
    """Certainly not done, or a read: may be sent again."""


class Table:
    """Sends requests, `pool` at once. Time-outs in seconds. `client` is an aiobotocore client."""

    def __init__(self, client: Any, name: str, place: str, *, pool: int, timeout: float) -> None:
        self.client, self.name, self.pool, self._place, self._timeout = client, name, pool, place, timeout
        self._room = asyncio.Semaphore(pool)
        self.requests = 0
        """How many were sent, for tests that count them."""

    async def ask(self, operation: str, *, writes: bool = False, **parameters: Any) -> dict[str, Any]:
        """One request, by the name of its method. Raises `Refusal`, or `Unknown` instead of `Unavailable` where a write was sent."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout
        for wait in chain(REFUSED_AFTER, repeat(REFUSED_AFTER[-1])):
            try:
                return await self._ask(operation, parameters, writes=writes)
            except _RefusedError as error:
                if loop.time() + wait > until:
                    raise Unavailable(f"DynamoDB at {self._place} refused for {self._timeout:g} s: {error}.") from error
                await asyncio.sleep(wait * random.uniform(0.5, 1.5))
        raise AssertionError  # the loop returns or raises

    async def _ask(self, operation: str, parameters: Mapping[str, Any], *, writes: bool) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._timeout):
                await self._room.acquire()
        except TimeoutError:
            raise Unavailable(f"All connections to DynamoDB at {self._place} were in use for {self._timeout:g} s.") from None
        lost: type[Error] = Unknown if writes else Unavailable
        try:
            self.requests += 1
            async with asyncio.timeout(self._timeout):
                answer: dict[str, Any] = await getattr(self.client, operation)(**parameters)
        except boto.ClientError as error:
            raise self._refused(error, writes=writes) from error
        except _NO_LOGIN as error:
            raise Unauthorized(f"No usable AWS credentials were found: {_word(error)}.") from error
        except (boto.BotoCoreError, boto.HTTPClientError, OSError, TimeoutError) as error:
            if isinstance(error, _NOT_CONNECTED) or _unsent(error):
                raise Unavailable(f"DynamoDB at {self._place} cannot be reached: {_word(error)}.") from error
            if not writes and isinstance(error, _CUT):
                raise _RefusedError(_word(error)) from error
            raise lost(f"DynamoDB at {self._place} did not answer: {_word(error)}.") from error
        except Exception as error:  # What no parser of the client foresaw.
            raise lost(f"What answers at {self._place} is no DynamoDB: {_word(error)}.") from error
        finally:
            self._room.release()
        if "json" not in answer["ResponseMetadata"]["HTTPHeaders"].get(
            "content-type", ""
        ):  # The client takes any page for an empty answer.
            raise lost(f"What answers at {self._place} is no DynamoDB.")
        return answer

    def _refused(self, error: boto.ClientError, *, writes: bool) -> Exception:
        said = error.response.get("Error", {})
        code, message = str(said.get("Code", "")), str(said.get("Message", "")) or "no message"
        if code == "ConditionalCheckFailedException":
            return Refusal([error.response.get("Item", {})])
        if code == "TransactionCanceledException":
            return self._cancelled(error.response.get("CancellationReasons", []), message)
        if code in _REFUSED:
            return _RefusedError(f"{code}: {message}")
        text = f"DynamoDB at {self._place} answered {code}: {message}".rstrip(".")
        if code in _STRANGERS:
            return Unauthorized(f"{text}.")
        if code == "ResourceNotFoundException":
            return Invalid(
                f"There is no table {self.name!r} at {self._place}. Make it once with ?create=true, or with: {self.command}",
                missing="table",
            )
        if code == "ValidationException" and "size" in message and "exceed" in message:
            return TooLarge(f"{text}.")
        if code == "ValidationException" and "index" in message:
            return Invalid(f"{text}. The table needs the index {FEED_INDEX!r}; a table of Perdure is made with: {self.command}")
        if code == "ValidationException":
            return Invalid(f"{text}. A table of Perdure has the string keys pk and sk; it is made with: {self.command}")
        if code == "UnknownOperationException":
            return Unsupported(f"{text}.")
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if status >= 500 or code == "TransactionInProgressException":
            return Unknown(f"{text}.") if writes else _RefusedError(f"{code}: {message}")
        return Unavailable(f"{text}.")

    def _cancelled(self, reasons: Sequence[Mapping[str, Any]], message: str) -> Exception:
        codes = [str(reason.get("Code", "None")) for reason in reasons]
        if refused := _REFUSED.intersection(codes):
            return _RefusedError(", ".join(sorted(refused)))
        if "ConditionalCheckFailed" in codes:
            return Refusal(
                [reason.get("Item", {}) if code == "ConditionalCheckFailed" else None for code, reason in zip(codes, reasons, strict=True)]
            )
        said = next((str(reason.get("Message")) for reason in reasons if reason.get("Message")), message)
        return (TooLarge if "size" in said.lower() else Invalid)(f"DynamoDB at {self._place} cancelled a transaction: {said.rstrip('.')}.")

    @property
    def command(self) -> str:
        """The command that makes the table."""
        attributes = " ".join(f"AttributeName={name},AttributeType=S" for name in ("pk", "sk", "d"))
        index = f"IndexName={FEED_INDEX},KeySchema=[{{AttributeName=d,KeyType=HASH}},{{AttributeName=pk,KeyType=RANGE}}]"
        return (
            f"aws dynamodb create-table --table-name {self.name} --billing-mode PAY_PER_REQUEST"
            f" --attribute-definitions {attributes}"
            " --key-schema AttributeName=pk,KeyType=HASH AttributeName=sk,KeyType=RANGE"
            f" --global-secondary-indexes '{index},Projection={{ProjectionType=KEYS_ONLY}}' --deletion-protection-enabled"
        )

    async def get(self, key: Item) -> Item | None:
        """An item, as of now."""
        answer = await self.ask("get_item", TableName=self.name, Key=key, ConsistentRead=True)
        item: Item | None = answer.get("Item")
        return item

    async def get_many(self, keys: Sequence[Item], only: str) -> dict[tuple[str, str], Item]:
        """Items as of now, by pk and sk, with the attributes `only` (and their keys); 100 a request."""
        wanted = {(key["pk"]["S"], key["sk"]["S"]): key for key in keys}
        found: dict[tuple[str, str], Item] = {}
        waiting = list(wanted.values())
        for wait in chain(REFUSED_AFTER, repeat(REFUSED_AFTER[-1], int(self._timeout / REFUSED_AFTER[-1]) + 1)):
            pages = [waiting[start : start + BATCH_KEYS] for start in range(0, len(waiting), BATCH_KEYS)]
            answers = await asyncio.gather(*[self._get_page(page, only) for page in pages])
            waiting = []
            for answer in answers:
                for item in answer["Responses"].get(self.name, []):
                    found[item["pk"]["S"], item["sk"]["S"]] = item
                waiting += answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])
            if not waiting:
                return found
            await asyncio.sleep(wait * random.uniform(0.5, 1.5))
        raise Unavailable(f"DynamoDB at {self._place} left {len(waiting)} items unread: it is throttled.")

    async def _get_page(self, keys: Sequence[Item], only: str) -> dict[str, Any]:
        request = {"Keys": keys, "ConsistentRead": True, "ProjectionExpression": f"pk,sk,{only}"}
        return await self.ask("batch_get_item", RequestItems={self.name: request})

    async def execute(self, statements: Sequence[Item]) -> list[Refusal | Error | None]:
        """Statements that each change an item, `BATCH_STATEMENTS` at most, in one request: what became of each; `Unavailable`: not done."""
        answer = await self.ask("batch_execute_statement", writes=True, Statements=statements)
        results = [self._result(response.get("Error")) for response in answer.get("Responses", [])]
        if len(results) != len(statements):
            raise Unknown(f"DynamoDB at {self._place} answered {len(results)} of {len(statements)} statements.")
        return results

    def _result(self, error: Mapping[str, Any] | None) -> Refusal | Error | None:
        if error is None:
            return None
        code, text = error.get("Code"), f"DynamoDB at {self._place} answered {error.get('Code')}: {error.get('Message')}".rstrip(".")
        if code == "ConditionalCheckFailed":
            return Refusal([error.get("Item", {})])
        if code == "AccessDenied":
            return Unauthorized(f"{text}.")
        return Unavailable(f"{text}.") if code in _UNDONE else Unknown(f"{text}.")

    async def change(self, requests: Sequence[Item], size: int = 25) -> None:
        """Put and delete without conditions, `size` a request. None of it is seen by anyone, or all may be done again."""
        starts = range(0, len(requests), size)
        await asyncio.gather(*[self._change(requests[start : start + size]) for start in starts])

    async def _change(self, waiting: Sequence[Item]) -> None:
        for wait in chain(REFUSED_AFTER, repeat(REFUSED_AFTER[-1], int(self._timeout / REFUSED_AFTER[-1]) + 1)):
            answer = await self.ask("batch_write_item", RequestItems={self.name: waiting})
            waiting = answer.get("UnprocessedItems", {}).get(self.name, [])
            if not waiting:
                return
            await asyncio.sleep(wait * random.uniform(0.5, 1.5))
        raise Unavailable(f"DynamoDB at {self._place} left {len(waiting)} items unwritten: it is throttled.")

    async def query(
        self,
        pk: str,
        low: str,
        high: str,
        *,
        limit: int,
        reverse: bool = False,
        only: str = "",
        index: str = "",
        start: Item | None = None,
    ) -> tuple[list[Item], Item | None]:
        """A page of a partition from `low` to `high`, both included, and where the next starts. As of now; of an index, as of lately."""
        names = ("d", "pk") if index else ("pk", "sk")
        request: dict[str, Any] = {
            "TableName": self.name,
            "KeyConditionExpression": f"{names[0]} = :p AND {names[1]} BETWEEN :l AND :h",
            "ExpressionAttributeValues": {":p": {"S": pk}, ":l": {"S": low}, ":h": {"S": high}},
            "ScanIndexForward": not reverse,
            "Limit": limit,
        }
        request |= {"IndexName": index} if index else {"ConsistentRead": True}
        if only:
            request["ProjectionExpression"] = only
        if start:
            request["ExclusiveStartKey"] = start
        answer = await self.ask("query", **request)
        return answer["Items"], answer.get("LastEvaluatedKey")

    async def query_all(self, pk: str, low: str, high: str, *, only: str = "") -> list[Item]:
        """All pages of a partition from `low` to `high`."""
        items, start = await self.query(pk, low, high, limit=1000, only=only)
        while start:
            more, start = await self.query(pk, low, high, limit=1000, only=only, start=start)
            items += more
        return items


def _unsent(error: BaseException) -> bool:
    """Whether the connection was never made. The client says so by the same class for one that broke after the request was sent."""
    inner = getattr(error, "kwargs", {}).get("error")
    return isinstance(error, boto.EndpointConnectionError) and isinstance(inner, aiohttp.ClientConnectorError)


def _word(error: BaseException) -> str:
    return f"{type(error).__name__} {error}".strip().rstrip(".")
