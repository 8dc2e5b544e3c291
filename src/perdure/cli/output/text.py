"""Text for terminals and machines: nothing that was stored may steer a terminal, and every line fits the encoding of its stream."""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import Any

import msgspec

_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters that control a terminal, change the direction of text, or break lines."""
_JOINED = re.compile("(?<=[\u0600-\U0010ffff])[\u200c\u200d](?=[\u0600-\U0010ffff])")
"""Joiners between letters of scripts that need them, and between the parts of an emoji."""
_PLAIN = {"…": "...", "·": "-", "→": "->", "–": "-", "×": "x", "█": "#"}
"""What our own signs are where the stream's encoding lacks them."""
ERRORS = "perdure.escape"
"""The name of the error handler that writes what an encoding lacks as JSON escapes."""


def clean(text: str, keep: str = "", *, as_json: bool = False) -> str:
    """The text without what could steer a terminal: such characters are shown as escapes, those of `keep` excepted."""
    if text.isprintable():
        return text
    joined = {found.start() for found in _JOINED.finditer(text)}
    shown = escape if as_json else ascii_escape
    return "".join(
        shown(char) if unicodedata.category(char) in _STEERING and char not in keep and place not in joined else char
        for place, char in enumerate(text)
    )


def ascii_escape(char: str) -> str:
    """A character as Python escapes it."""
    return ascii(char)[1:-1]


def escape(char: str) -> str:
    """A character as JSON escapes it: one or two times four digits, so that it is valid there too."""
    number = ord(char)
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"


def json_line(value: Any) -> str:
    """The value as JSON on one line, every character that is not printable as an escape."""
    return _escaped(_encoded(value))


def json_shown(value: Any) -> str:
    """The value as JSON on one line, for people; still valid JSON."""
    return clean(_encoded(value), as_json=True)


def json_pages(value: Any) -> str:
    """The value as JSON over several lines, for people; still valid JSON."""
    return clean(msgspec.json.format(_encoded(value), indent=2), keep="\n", as_json=True)


def _encoded(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # half of a surrogate pair: from the command line's bytes, or from a text that was cut
        import json

        return json.dumps(msgspec.to_builtins(value), separators=(",", ":"))


def _escaped(text: str) -> str:
    return text if text.isprintable() else "".join(char if char.isprintable() else escape(char) for char in text)


def one_line(text: str, width: int | None = None) -> str:
    """Cleaned, on one line; at most `width` characters, cut with a sign."""
    if width is None:
        return clean(" ".join(text.split()))
    line = clean(" ".join(text[: width * 4].split()))
    return line if len(line) <= width and len(text) <= width * 4 else line[: width - 1] + "…"


def size(count: int) -> str:
    """Bytes for people."""
    value, units = float(count), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def _handle(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_PLAIN.get(char) or escape(char) for char in missing), error.end


codecs.register_error(ERRORS, _handle)
