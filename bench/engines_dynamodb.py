"""Turns a second of 64 sessions at once on DynamoDB: Perdure, and a bare aiobotocore client that does the conditional write alone.

The server is MiniStack, an emulator in Python on the same machine: the figures say what the client costs, not what AWS does. A turn is one
append of two messages of 400 bytes. The bare client puts an item with the version expected and the turn, and nothing else: one request
for each, over as many connections.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from _harness import alternate, machine, run, small, table, turn
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

import perdure
from perdure import Event
from tests.servers.ministack import MiniStack

SESSIONS = 64
CONNECTIONS = 32
TURNS = 2 if small() else 40
ROUNDS = 1 if small() else 5


async def together(session: Callable[[int, int], Awaitable[None]], turns: int) -> float:
    """Turns a second of all sessions."""
    start = time.perf_counter()
    await asyncio.gather(*[session(number, turns) for number in range(SESSIONS)])
    return SESSIONS * turns / (time.perf_counter() - start)


async def perdure_turns(server: MiniStack) -> float:
    """Ours, through the public API."""
    async with perdure.open(f"{server.url}&pool={CONNECTIONS}") as store:

        async def session(number: int, turns: int) -> None:
            for count in range(turns):
                await store.append(f"s{number}", *[Event("message", message) for message in turn(count)])

        await together(session, 2)
        return await together(session, TURNS)


async def bare_turns(server: MiniStack) -> float:
    """The bare client: the chain is one item a turn, and each replaces the version that the one before has left."""
    config = AioConfig(max_pool_connections=CONNECTIONS, retries={"total_max_attempts": 1}, parameter_validation=False)
    login = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "eu-west-1"}
    async with AioSession().create_client("dynamodb", endpoint_url=server.endpoint, config=config, **login) as client:
        await client.create_table(
            TableName="bare",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        done, room = [0] * SESSIONS, asyncio.Semaphore(CONNECTIONS)

        async def session(number: int, turns: int) -> None:
            for count in range(turns):
                version = done[number]
                item = {"id": {"S": f"s{number}"}, "version": {"N": str(version + 1)}, "turn": {"B": msgspec.json.encode(turn(count))}}
                condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(id)"}
                if version:
                    values = {":v": {"N": str(version)}}
                    condition = {"ConditionExpression": "version = :v", "ExpressionAttributeValues": values}
                async with room:
                    await client.put_item(TableName="bare", Item=item, **condition)
                done[number] = version + 1

        await together(session, 2)
        return await together(session, TURNS)


SYSTEMS = {"Perdure": perdure_turns, "bare aiobotocore, a conditional put": bare_turns}


def main() -> None:
    """Print the table."""
    machine()

    def measured(name: str) -> Callable[[Path], float]:
        def measure(place: Path) -> float:
            server = MiniStack(place)
            server.start()
            try:
                return asyncio.run(SYSTEMS[name](server))
            finally:
                server.stop()

        return measure

    figures = alternate({name: measured(name) for name in SYSTEMS}, ROUNDS)
    mine = figures["Perdure"]
    rows = [(name, f"{figure:,.0f}", f"{mine / figure:.2f} x") for name, figure in figures.items()]
    table("DynamoDB (MiniStack), 64 sessions at once", [("turns/s", "", "Perdure is"), *rows])


if __name__ == "__main__":
    run(main)
