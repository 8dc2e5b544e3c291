"""Names of objects: made of any texts, and safe as paths of every file system and as keys of every bucket."""

from __future__ import annotations

import hashlib
import re

from perdure.errors import Invalid

PART_MAX = 200
"""Most characters of a part of a name: a text that would take more is cut, and its SHA-256 follows."""
NAME_MAX = 900
"""Most characters of a name. A bucket takes 1,024 with its prefix."""
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)")
"""Names that Windows keeps for devices."""
_NAME = re.compile(r"[a-z0-9_=-][a-z0-9_=.-]*(?:/[a-z0-9_=-][a-z0-9_=.-]*)*")


def object_name(*texts: str) -> str:
    """One name of these texts, a part each: different texts have different names, and none is a part of another one's path.

    Small letters, digits, _ and - stay; every other byte of a text's UTF-8 becomes =XX in hexadecimal. So texts that differ in the case
    of a letter alone stay apart where file names do not.
    """
    return "/".join(map(_part, texts))


def _part(text: str) -> str:
    data = text.encode()
    plain = "".join(chr(byte) if byte in _PLAIN else f"={byte:02x}" for byte in data)
    if len(plain) > PART_MAX:
        return f"{plain[:100]}=={hashlib.sha256(data).hexdigest()}"
    if not plain or _RESERVED.fullmatch(plain):
        return f"={plain}="
    return plain


def check_object_name(name: str) -> str:
    """The name itself. Raises `Invalid` unless it could be one of `object_name`, with dots inside of parts."""
    if type(name) is not str or not _NAME.fullmatch(name) or len(name) > NAME_MAX or any(len(part) > 255 for part in name.split("/")):
        raise Invalid(f"{name!r} is no name of an object: make one with object_name.")
    return name
