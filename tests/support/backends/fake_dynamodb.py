"""What the tests of DynamoDB share: a URL with data of its own, a look at the raw items, faults thrown in by botocore's events."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from perdure.backends.conformance import behind
from perdure.backends.spi import Appended, Head
from perdure.model.ids import SessionKey
from tests.servers.ministack import MiniStack
from tests.support.backends.engines import Engine

ENGINE = Engine("dynamodb", MiniStack, survives=False)
S = SessionKey("acme", "s")


async def chain(backend: Any, session: SessionKey, count: int, **columns: Any) -> list[Head]:
    """`count` commits one after another."""
    heads = []
    for _ in range(count):
        (outcome,) = await backend.append([behind(session, **columns)])
        assert isinstance(outcome, Appended), outcome
        heads.append(outcome.head)
    return heads


async def items(backend: Any, part: str = "") -> list[dict[str, Any]]:
    """All items whose partition has `part` in it, as they lie in the table, of this namespace alone."""
    table, found, start = backend.driver.table, [], {}
    while True:
        page = await backend.run(table.ask("scan", TableName=table.name, ConsistentRead=True, **start))
        found += page["Items"]
        if "LastEvaluatedKey" not in page:
            mine = backend.driver._keys.sessions.removesuffix("s/")
            return [item for item in found if item["pk"]["S"].startswith(mine) and part in item["pk"]["S"]]
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


class Faults:
    """Answers requests of some operations itself, without sending them."""

    def __init__(self, backend: Any, *operations: str) -> None:
        self.left = 0
        """How many requests are still to be answered so."""
        self.thrown = 0
        self._answer: dict[str, Any] = {}
        self._status = 400
        for operation in operations:
            backend.driver.table.client.meta.events.register(f"before-call.dynamodb.{operation}", self._throw)

    def throw(self, code: str, times: int, *, status: int = 400, reasons: Sequence[str] = ()) -> None:
        """Answer the next requests so."""
        self._answer = {"Error": {"Code": code, "Message": "injected"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        if reasons:
            self._answer["CancellationReasons"] = [{"Code": reason, "Message": "injected"} for reason in reasons]
        self.left, self._status = times, status

    def answer(self, answer: dict[str, Any]) -> None:
        """Answer the next request with this."""
        headers = {"content-type": "application/x-amz-json-1.0"}
        self._answer = {"ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": headers}} | answer
        self.left, self._status = 1, 200

    def _throw(self, **_: Any) -> Any:
        if not self.left:
            return None
        self.left -= 1
        self.thrown += 1
        return SimpleNamespace(status_code=self._status), self._answer
