"""Sends plain appends together: those that are ready at once, each one statement of a batch.

In one transaction sessions would share their fate. In a batch of statements each is done or refused by itself, at the price of a write by
itself; only a lost answer is lost to all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from perdure.backends.dynamodb.table import BATCH_STATEMENTS, Refusal, Table
from perdure.backends.dynamodb.writes import Request
from perdure.errors import Error, Unauthorized, Unavailable, Unsupported

_Waiting = tuple[Request, asyncio.Future[None]]


class StatementBatcher:
    """While `lanes` requests are under way, what comes waits and goes with the next one."""

    def __init__(self, table: Table, lanes: int) -> None:
        self._table, self._lanes = table, lanes
        self._waiting: deque[_Waiting] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._batches = True
        """Whether this endpoint knows statements, and this login may send them."""

    async def send(self, request: Request) -> None:
        """An update of a header item. Raises as `Table.ask`."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._pump)  # After all that are about to be sent in this turn of the loop.
        self._waiting.append((request, future))
        await future

    def _pump(self) -> None:
        most = BATCH_STATEMENTS if self._batches else 1
        while self._waiting and len(self._under_way) < (self._lanes if self._batches else self._table.pool):
            batch = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            task = asyncio.get_running_loop().create_task(self._send(batch))
            self._under_way.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._pump()

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        results: Sequence[BaseException | None]
        if len(batch) == 1:
            results = [await self._alone(batch[0][0])]
        else:
            results = await self._send_batch([request for request, _ in batch])
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():  # Its caller was cancelled.
                continue
            if result is None:
                future.set_result(None)
            else:
                future.set_exception(result)

    async def _send_batch(self, requests: Sequence[Request]) -> Sequence[BaseException | None]:
        results: Sequence[Refusal | Error | None]
        try:
            results = await self._table.execute([request.statement for request in requests])
        except (Unauthorized, Unsupported) as error:
            results = [error] * len(requests)
        except BaseException as error:  # noqa: BLE001 - the callers get it: none of them may wait for ever
            return [error] * len(requests)
        self._batches &= not any(isinstance(result, Unauthorized | Unsupported) for result in results)
        return await asyncio.gather(*[self._or_alone(request, result) for request, result in zip(requests, results, strict=True)])

    async def _or_alone(self, request: Request, result: Refusal | Error | None) -> BaseException | None:
        """What was certainly not done is sent alone: throttling and conflicts are waited out there."""
        return await self._alone(request) if isinstance(result, Unauthorized | Unsupported | Unavailable) else result

    async def _alone(self, request: Request) -> BaseException | None:
        try:
            await self._table.ask("update_item", writes=True, **request.parts[0]["Update"])
        except BaseException as error:  # noqa: BLE001 - see above
            return error
        return None
