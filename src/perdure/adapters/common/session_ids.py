"""Session ids made of a framework's ids: readable, reversible, and never two sessions under one id."""

from __future__ import annotations

import re
from urllib.parse import unquote

from perdure.errors import Invalid
from perdure.model.ids import NAME_BYTES_MAX

_UNSAFE = re.compile("[%/\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def escape(part: str) -> str:
    """The part with `%`, `/`, control characters and lone surrogates written as percent and hexadecimal digits. Nothing else changes."""
    if part.isalnum():  # most are, and the search costs more than the question
        return part
    return _UNSAFE.sub(lambda found: "".join([f"%{byte:02X}" for byte in found[0].encode(errors="surrogatepass")]), part)


def unescape(text: str) -> str | None:
    """The part that `escape` makes this text of, or `None` if there is no such part."""
    try:
        part = unquote(text, errors="surrogatepass")
    except UnicodeDecodeError:
        return None
    return part if escape(part) == text else None


def is_name(text: str) -> bool:
    """Whether the store takes a text that is not empty as a name as it is."""
    return text.isprintable() and len(text.encode(errors="replace")) <= NAME_BYTES_MAX


def actor_name(author: str | None) -> str | None:
    """The author as a commit's actor, where it can be one."""
    return author if author and is_name(author) else None


def compose(what: str, *parts: object) -> str:
    """The session id of these parts, escaped and joined by `/`. Raises `Invalid` for what is no string, or too long together."""
    for part in parts:
        if not isinstance(part, str):
            raise Invalid(f"{what} is made of strings, not of {type(part).__name__}.")
    id = "/".join([escape(str(part)) for part in parts])
    size = len(id) if id.isascii() else len(id.encode())
    if size > NAME_BYTES_MAX:
        raise Invalid(f"{what} needs {size} bytes as a session id ({id[:60]}…); at most {NAME_BYTES_MAX} are possible: use shorter ids.")
    return id


def decompose(id: str, count: int) -> tuple[str, ...] | None:
    """The `count` parts that `compose` made this id of, or `None` if it is not such an id."""
    parts = [unescape(text) for text in id.split("/")]
    if len(parts) != count:
        return None
    return tuple([part for part in parts if part is not None]) if None not in parts else None
