"""Search by words, as ADK's in-memory memory service understands them."""

from __future__ import annotations

import re
import unicodedata
from itertools import groupby

_WORD = re.compile(r"\w+")


class SearchTerms:
    """The words of a query, to be counted in texts."""

    def __init__(self, query: str) -> None:
        self._words = _words(_normal(query))

    def count(self, text: str) -> int:
        """How many of the query's words the text has.

        A word counts as a whole. Where a script leaves no spaces between words, a word of it counts anywhere in the text, and
        a Latin word within such a script is a word of its own.
        """
        normal = _normal(text)
        held = _words(normal)
        for word in [word for word in held if not word.isascii()]:
            held.update("".join(run) for _, run in groupby(word, _is_latin))
        lower = normal.lower()
        return sum(word in held or (not word.isascii() and word in lower) for word in self._words)


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


def _is_latin(character: str) -> bool:
    if character.isascii():
        return True  # among the characters of a word: letters, digits and _
    return unicodedata.name(character, "").startswith("LATIN")
