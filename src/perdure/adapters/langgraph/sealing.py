"""Values as the bytes of a serialiser of the user's: encrypted values, and values that only its code can write and read."""

from __future__ import annotations

import base64
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from perdure.adapters.langgraph.compare import compare
from perdure.adapters.langgraph.memory import content_of
from perdure.adapters.langgraph.messages import TAG
from perdure.adapters.langgraph.refusals import Refused
from perdure.adapters.langgraph.scalars import from_base64
from perdure.errors import Corrupt, Invalid


class Sealer:
    """Seals values, {"$": "sealed", "type": …, "base64": …}, and opens them."""

    def __init__(self, serde: SerializerProtocol) -> None:
        self._serde = serde
        self._encrypts = isinstance(serde, EncryptedSerializer)

    def seal(self, value: Any) -> dict[str, Any]:
        """The value's bytes. What a serialiser makes of an object is read back. Raises `Refused`."""
        kind, by = type(value), type(self._serde).__name__
        held = content_of(value) if isinstance(value, BaseMessage) else None
        try:
            name, data = self._serde.dumps_typed(value)
            again = value if kind is bytes or name.startswith("pickle") else self._serde.loads_typed((name, data))
        except Exception as error:  # whatever the serialiser's code raises
            raise Refused(kind, f"cannot be written and read back by {by} ({error!r:.200})") from error
        if name.startswith("pickle"):
            raise Refused(kind, f"would be pickled by {by}, which is more than data")
        try:
            compare(value, again)
        except Refused:
            # The engine gives a message its id meanwhile, in another thread: what was sealed is the message before that.
            if held is None or content_of(value) == held:
                raise
        return {TAG: "sealed", "type": name, "base64": base64.b64encode(data).decode()}

    def unseal(self, stored: dict[str, Any]) -> Any:
        """The value. Raises `Corrupt` for one that an encrypting serialiser did not write, `Invalid` for one that cannot be opened."""
        name, data = stored["type"], from_base64(stored)
        if self._encrypts and "+" not in name:
            raise Corrupt(
                f"A sealed value has the type {name!r:.60}: it is not encrypted, and {type(self._serde).__name__} did not write it."
            )
        try:
            return self._serde.loads_typed((name, data))
        except Exception as error:  # a wrong key is an error of the cipher, of any type
            raise Invalid(
                f"A sealed value of type {name!r:.60} cannot be read by {type(self._serde).__name__} ({error!r:.200}): was it written with "
                "another key or serialiser?"
            ) from error
