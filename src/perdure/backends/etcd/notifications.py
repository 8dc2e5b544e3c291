"""Notifications from etcd: a watch on all heads, from now on. What was missed while there was none is read by those who wait."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from perdure.backends.etcd import layout
from perdure.backends.etcd.gateway import Gateway, Json, get, prefix_end, text
from perdure.backends.etcd.layout import Layout
from perdure.backends.remote import Notice
from perdure.errors import Corrupt, Error, Unauthorized, Unavailable

_REFUSED = ("permission denied", "auth token", "user name is empty")


async def notices(gateway: Gateway, keys: Layout) -> AsyncGenerator[Notice, None]:
    """See `remote.NotificationSource`. etcd ends a watch that fell back so far that what it has not seen was compacted."""
    heads = keys.all(b"h")
    request = {"create_request": {"key": text(heads), "range_end": text(prefix_end(heads)), "filters": ["NODELETE"]}}
    async with aclosing(gateway.stream("watch", request, alive=get(keys.meta)["request_range"])) as answers:
        async for answer in answers:
            if answer.get("canceled"):
                raise _ended(answer)
            if answer.get("created"):
                yield None, 0
            for event in answer.get("events", ()):
                yield _notice(keys, event["kv"])


def _notice(keys: Layout, item: Json) -> Notice:
    try:
        return keys.session(item), layout.decode_head(item).version
    except ValueError as error:
        raise Corrupt(f"A key among the heads in etcd was not written by Perdure: {error}.") from error


def _ended(answer: Json) -> Error:
    reason = str(answer.get("cancel_reason") or f"compacted up to revision {answer.get('compact_revision')}")
    kind = Unauthorized if any(word in reason for word in _REFUSED) else Unavailable
    return kind(f"etcd ended a watch: {reason}.")
