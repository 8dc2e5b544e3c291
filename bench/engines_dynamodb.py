"""Turns a second of 64 sessions at once on DynamoDB: Perdure, and a bare aiobotocore client that does the conditional write alone.

The server is MiniStack, an emulator in Python on the same machine: the figures say what the client costs, not what AWS does. A turn is one
append of two messages of 400 bytes. The bare client puts an item with the version expected and the turn, and nothing else: one request
for each, over as many connections.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from _harness import alternate, machine, run, served, small, turn, versus
from _turns import SESSIONS, perdure_turns, warmed
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from tests.servers.ministack import MiniStack

CONNECTIONS = 32
TURNS = 2 if small() else 40
ROUNDS = 1 if small() else 5


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

        return await warmed(session, TURNS)


def main() -> None:
    """Print the table."""
    machine()
    systems = {
        "Perdure": served(MiniStack, lambda server: perdure_turns(f"{server.url}&pool={CONNECTIONS}", TURNS)),
        "bare aiobotocore, a conditional put": served(MiniStack, bare_turns),
    }
    versus("DynamoDB (MiniStack), 64 sessions at once", "turns/s", alternate(systems, ROUNDS))


if __name__ == "__main__":
    run(main)
