"""JSON Pointers (RFC 6901): the paths by which operations name a place in the state."""

from __future__ import annotations

import re
from collections.abc import Iterable

from perdure.errors import Invalid

PATH_BYTES_MAX = 4096
"""Longest pointer, in bytes of UTF-8."""
PATH_TOKENS_MAX = 100
"""Deepest pointer, in tokens."""

_BAD_ESCAPE = re.compile("~(?![01])")


def parse(path: object) -> tuple[str, ...]:
    """The pointer's tokens, unescaped; `()` for `""`, which names the whole document.

    Raises `Invalid` for anything but a string that is empty or starts with `/`, holds no `~` outside `~0` and `~1` and no lone
    surrogate, and has at most 4,096 bytes and 100 tokens.
    """
    if not isinstance(path, str):
        raise Invalid(f"A path must be a JSON Pointer string such as '/a/0', not {type(path).__name__}.")
    if path == "":
        return ()
    if path[0] != "/":
        raise Invalid(f"A path must be empty or start with '/'; this one is {path[:60]!r}.")
    if not path.isascii() or len(path) > PATH_BYTES_MAX:
        _check_size(path)
    tokens = path[1:].split("/")
    if len(tokens) > PATH_TOKENS_MAX:
        raise Invalid(f"A path may have at most {PATH_TOKENS_MAX} tokens; this one has {len(tokens)} and starts {path[:60]!r}.")
    if "~" not in path:
        return tuple(tokens)
    if _BAD_ESCAPE.search(path):
        raise Invalid(f"In a path '~' is written '~0' and '/' inside a key '~1'; {path[:60]!r} holds another '~'.")
    # "~1" goes first: "~01" means "~1", and must not be read once more as "/" (RFC 6901, section 4).
    return tuple([token.replace("~1", "/").replace("~0", "~") for token in tokens])


def join(tokens: Iterable[str]) -> str:
    """The pointer that `parse` takes apart into these tokens."""
    return "".join(["/" + escape(token) for token in tokens])


def escape(token: str) -> str:
    """One token as a pointer spells it."""
    return token.replace("~", "~0").replace("/", "~1") if "~" in token or "/" in token else token


def is_index(token: str) -> bool:
    """Whether the token can name an element of a list: `0`, or ASCII digits without a leading zero. `-` (after the last) cannot."""
    return token.isascii() and token.isdigit() and (token[0] != "0" or token == "0")


def _check_size(path: str) -> None:
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise Invalid(f"A path must be encodable as UTF-8; {path[:60]!r} holds a lone surrogate.") from None
    if size > PATH_BYTES_MAX:
        raise Invalid(f"A path may have at most {PATH_BYTES_MAX} bytes; this one has {size} and starts {path[:60]!r}.")
