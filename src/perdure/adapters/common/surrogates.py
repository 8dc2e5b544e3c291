"""Any text as text that can be stored. Half of a surrogate pair, as in a tool's output that was cut, is kept.

Python's strings may hold lone surrogates (U+D800 to U+DFFF), UTF-8 and JSON may not. In the store each is written as U+FDD0, its four
hexadecimal digits, U+FDD1: two characters that Unicode keeps out of texts for uses like this. A U+FDD0 in the text is written in
the same way, so every string comes back as it was. All other text is stored as it is and costs one check: whether it is ASCII.

    the text "cut ", then U+D83D    becomes    the text "cut ", then U+FDD0, "d83d", U+FDD1
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from perdure.model.values import DEPTH_MAX

T = TypeVar("T")

MARK, END = "\ufdd0", "\ufdd1"
_ODD = re.compile(f"[\ud800-\udfff{MARK}]")
_ESCAPED = re.compile(f"{MARK}(d[89a-f][0-9a-f]{{2}}|fdd0){END}")
_CONTAINERS = (dict, list, tuple, set, frozenset)


def escape(value: T) -> T:
    """The value as it is stored: a string, or containers of strings (keys too) and of anything else. The very same one if all is plain.

    What no store takes, such as a container that holds itself, is refused by the store's own check.
    """
    return value if is_plain(value) else _rebuilt(value, _escaped, DEPTH_MAX, {})


def unescape(value: T) -> T:
    """The value of which `escape` made this one."""
    return value if is_plain(value) else _rebuilt(value, _unescaped, DEPTH_MAX, {})


def is_plain(value: Any, *, also: str = "") -> bool:
    """Whether neither `escape` nor `unescape` would change the value, and no string in it, key or other, holds `also`."""
    rest: list[Any] = [[value]]
    seen: set[int] = set()
    while rest:
        node = rest.pop()
        if isinstance(node, dict):
            for key in node if type(node) is dict else dict.__iter__(node):
                if type(key) is str and not (key.isascii() or _is_plain_text(key, also)):
                    return False
            node = dict.values(node)
        for item in node:
            if type(item) is str:
                if not (item.isascii() or _is_plain_text(item, also)):
                    return False
            elif isinstance(item, _CONTAINERS) and id(item) not in seen:
                seen.add(id(item))
                rest.append(item)
    return True


def _is_plain_text(text: str, also: str) -> bool:
    if MARK in text or (also and also in text):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escaped(text: str) -> str:
    return _ODD.sub(lambda found: f"{MARK}{ord(found[0]):04x}{END}", text)


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def _rebuilt(node: Any, text: Callable[[str], str], room: int, made: dict[int, Any]) -> Any:
    """The node with each string replaced, every container once. Below `room` containers it stays as it is: no store takes it."""
    if type(node) is str:
        return text(node)
    if not isinstance(node, _CONTAINERS) or room <= 0:
        return node
    if id(node) not in made:
        made[id(node)] = node  # for one that holds itself
        if isinstance(node, dict):
            made[id(node)] = {
                text(key) if type(key) is str else key: _rebuilt(item, text, room - 1, made) for key, item in dict.items(node)
            }
        else:
            items = [_rebuilt(item, text, room - 1, made) for item in node]
            kind = list if isinstance(node, list) else type(node)
            made[id(node)] = kind(items) if kind in {list, tuple, set, frozenset} else node
    return made[id(node)]
