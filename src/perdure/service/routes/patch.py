"""PATCH of a state: JSON Patch and JSON Merge Patch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from perdure.engine.write.drafts import EDITED, Draft
from perdure.errors import Conflict
from perdure.model import ops as op
from perdure.service.answers import Answer, json_answer
from perdure.service.bodies import Level, ReceiptBody
from perdure.service.call import Call
from perdure.service.conditions import Condition, condition_of, etag, parse_number, version_of
from perdure.service.hooks import Scope
from perdure.service.leases import lease_of
from perdure.service.patch.evaluate import Evaluated, evaluate
from perdure.service.patch.parse import parse_patch
from perdure.service.routes.commits import KEY, LEASE, TRACE
from perdure.service.table import Header, Reply, Route
from perdure.wire import JSON_PATCH, MERGE_PATCH


class PatchQuery(msgspec.Struct, frozen=True):
    """How the patch is written."""

    base: str | None = None
    """The version on which it was made, alone or with its hash: it is merged over what followed."""
    actor: str | None = None
    """Who does it."""
    durability: Level | None = None
    """The least level that the receipt may name."""


class PatchStep(msgspec.Struct):
    """One operation of a JSON Patch (RFC 6902)."""

    op: str
    path: Annotated[str, Meta(description="A JSON Pointer.")]
    value: Any = None
    source: str | None = msgspec.field(default=None, name="from")


PatchBody = list[PatchStep] | dict[str, Any]


async def patch(call: Call) -> Answer:
    """Evaluate a patch on the session's state and write what it does, as one commit."""
    session, query = call.session, call.query(PatchQuery)
    media = call.media(JSON_PATCH, MERGE_PATCH)
    document: Any = await call.decoded(await call.body(), Any)
    number = query.base is not None and query.base.isdecimal()
    condition = condition_of(call, session, parse_number(query.base or "", "base") if number else query.base)
    limit = call.node.options.max_body
    if media == MERGE_PATCH:
        operation = op.merge("", document) if isinstance(document, dict) else op.set("", document)
        work = _Work(call, session, query, condition, media, document, lambda _: Evaluated([operation], []))
    else:
        steps, on_version = parse_patch(document), condition.names_version
        work = _Work(
            call, session, query, condition, media, document, lambda state: evaluate(state, steps, on_version=on_version, copy_bytes=limit)
        )
    with condition.checked():
        return await work.run()


class _Work:
    """One patch on its way."""

    def __init__(
        self,
        call: Call,
        session: str,
        query: PatchQuery,
        condition: Condition,
        media: str,
        document: Any,
        evaluate: Callable[[Any], Evaluated],
    ) -> None:
        self._call, self._session, self._query, self._condition = call, session, query, condition
        self._payload = {"media": media, "patch": document}
        self._evaluate = evaluate
        self._version = 0

    async def run(self) -> Answer:
        """Write it; 204 where it changes nothing."""
        options: dict[str, Any] = {
            "key": self._call.key,
            "actor": self._call.actor(self._query.actor),
            "durability": self._query.durability,
            "create": False,
            "payload": self._payload,
            "lease": await lease_of(self._call, self._session),
        }
        store, session, expect = self._call.store, self._session, self._condition.expect
        if self._condition.names_version and not self._condition.strict:
            async with store.edit(session, expect=expect, **options) as draft:
                if draft.receipt is None:
                    self._apply(draft)
            receipt = draft.receipt
        else:
            try:
                receipt, _ = await store.update(session, self._apply, expect=expect, **options)
            except Conflict as error:
                if expect or "operation" not in error.facts:
                    raise
                await store.read(session)  # The state that refused it may have been old: from now on it is not.
                receipt, _ = await store.update(session, self._apply, expect=expect, **options)
        if receipt is not None:
            return json_answer(receipt.to_dict(), headers=etag(receipt.version, receipt.hash))
        newest = version_of(await store.token(session))
        return Answer(204, headers=etag(newest.number, newest.hash) if newest.number == self._version else [])

    def _apply(self, draft: Draft) -> None:
        self._version = draft.version
        found = self._evaluate(draft.base)
        draft.do(*found.ops)
        for path in found.reads:
            draft.require(path)
        if self._call.key is not None:
            draft.event(EDITED)  # So that the key is used up even where nothing changes.


CONDITIONS = (
    Header("If-Match", "The ETag of the version that it was made on: no data commit may have followed, else 412."),
    KEY,
    LEASE,
    TRACE,
)
ROUTES = (
    Route(
        method="PATCH",
        path="/v1/sessions/{id}",
        scope=Scope.append,
        handle=patch,
        name="patchState",
        summary="Patch a session's state",
        about="A JSON Patch is evaluated one operation after another, on the very state that its commit follows. Array indices, `move` and"
        " `copy` need `If-Match` or `base`, else 428. What does not fit the state is 409. The session has to exist.",
        query=PatchQuery,
        headers=CONDITIONS,
        body=PatchBody,
        media=(JSON_PATCH, MERGE_PATCH),
        replies=(Reply(200, "It is stored.", ReceiptBody, headers=("ETag",)), Reply(204, "It changes nothing.", headers=("ETag",))),
        example="""-X PATCH $URL/v1/sessions/trip-42 -H 'Content-Type: application/merge-patch+json' -d '{"status": "booked"}'""",
    ),
)
