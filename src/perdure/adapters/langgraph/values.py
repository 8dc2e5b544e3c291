"""LangGraph's values as JSON that a person can read, and back.

    plain JSON                   as it is
    dict, list, tuple, set, …    member by member; a dict with other keys than strings, or with the key "$", as a list of pairs
    bytes, dates, paths, …       see `scalars`; numpy's numbers and arrays: `arrays`
    a message                    {"$": "human", "content": …}: its type and the fields that differ from their defaults; see `messages`
    an object of a data type     {"$": "module:Class", "fields": {…}}; see `objects`, and `classes` for which are taken
    a value that was sealed      {"$": "sealed", "type": …, "base64": …}; with "holds": "json" what is sealed is JSON of these forms

A value comes back equal and of the same type, or is refused when it is written. What cannot be made when it is read comes back as plain
data, which remembers what it was (`lost`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from perdure.adapters.langgraph.classes import Classes, Rules
from perdure.adapters.langgraph.decoding import Decoder
from perdure.adapters.langgraph.encoding import Encoder
from perdure.adapters.langgraph.memory import MessageCache, content_of
from perdure.adapters.langgraph.refusals import Refused
from perdure.adapters.langgraph.sealing import Sealer
from perdure.errors import Corrupt, Invalid


class Codec:
    """Values of one serialiser. Safe from any thread.

    The framework's JsonPlusSerializer says which classes are made: those of its list, or all data types that are imported if it allows
    all. `allow` are classes of that list as objects; with `None`, objects of other classes are taken too, and come back as plain data.
    With an EncryptedSerializer every list item and every other value is sealed. Any other serialiser writes and reads by itself, a
    subclass of the framework's only what is not known here.
    """

    def __init__(self, serde: SerializerProtocol, memory: MessageCache, allow: Sequence[Any] | None = ()) -> None:
        self._memory = memory
        inner = serde.serde if isinstance(serde, EncryptedSerializer) else serde
        listed = inner._allowed_msgpack_modules if isinstance(inner, JsonPlusSerializer) else None
        self._classes = Classes(
            [kind for kind in allow or () if isinstance(kind, type)],
            () if listed is True else listed or (),
            Rules.OPEN if listed is True else Rules.LENIENT if allow is None else Rules.CLOSED,
        )
        self._sealer = Sealer(serde)
        self._foreign = None if type(inner) is JsonPlusSerializer else self._sealer
        self._sealing = not isinstance(serde, JsonPlusSerializer)
        self._inner = MessageCache() if self._sealing else memory
        """What is remembered of messages in plain form: never their sealed form."""

    def encode(self, value: Any, where: str) -> Any:
        """The value as JSON; `where` names it in messages. Raises `Invalid` for what would not come back as it is."""
        try:
            if not self._sealing or value is None:
                return self._encoder().encode(value)
            if type(value) is not list:
                return self._sealed(value)
            items: list[Any] = []
            try:
                for item in value:
                    items.append(self._sealed(item))  # noqa: PERF401 - how many there are says which was refused
            except Refused as refused:
                raise refused.within(f"[{len(items)}]") from None
            return items
        except Refused as refused:
            raise refused.error(where) from None

    def plain(self, value: Any, where: str) -> Any:
        """As `encode`, but readable with every serialiser: for metadata and versions, which are searched."""
        try:
            return self._encoder().encode(value)
        except Refused as refused:
            raise refused.error(where) from None

    def decode(self, value: Any, shared: dict[int, Any] | None = None) -> Any:
        """The value that was encoded. Raises `Corrupt` for what no encoder wrote, `Unsupported` for what only a newer one writes, `Invalid`
        for what the serialiser cannot open.

        `shared` maps messages (by the identity of their JSON, which the caller keeps alive) to objects: with it each is made once.
        """
        return self._decoder(shared).decode(value)

    def _encoder(self) -> Encoder:
        return Encoder(self._classes, self._inner, self._foreign, self._unsealed if self._foreign else None)

    def _decoder(self, shared: dict[int, Any] | None) -> Decoder:
        return Decoder(self._classes, self._inner, shared, unseal=self._unsealed if self._sealing or self._foreign else None)

    def _sealed(self, value: Any) -> Any:
        message = isinstance(value, BaseMessage)
        known = self._memory.get(value) if message else None
        if known is not None:
            return known
        content = content_of(value) if message else None
        if self._foreign is None:
            sealed = self._sealer.seal(msgspec.json.encode(self._encoder().encode(value))) | {"holds": "json"}
        else:
            sealed = self._foreign.seal(value)
        if message:
            self._memory.put(value, sealed, content)
        return sealed

    def _unsealed(self, stored: dict[str, Any]) -> Any:
        made = self._sealer.unseal(stored)
        if stored.get("holds") == "json":
            try:
                made = self._decoder({}).decode(msgspec.json.decode(made))
            except msgspec.MsgspecError as error:
                raise Corrupt(f"A sealed value is not what was written ({error}).") from error
        if isinstance(made, BaseMessage):
            self._memory.put(made, stored, content_of(made))
        return made


def serialiser(allow: Sequence[type] | None) -> JsonPlusSerializer:
    """The framework's serialiser for what `allow` lists; without it all data types, under LANGGRAPH_STRICT_MSGPACK the safe ones."""
    if allow is None:
        return JsonPlusSerializer()
    for kind in allow:
        if not isinstance(kind, (type, tuple)):
            raise Invalid(f"allow is a list of classes; {kind!r:.100} is none.")
    return JsonPlusSerializer(allowed_msgpack_modules=tuple(allow) or None)
