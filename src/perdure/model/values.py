"""JSON values: what may be stored, when two are the same, and containers that nobody changes.

Containers are read here by the methods of `dict` and `list` themselves, never by a subclass's own: what is walked, compared and
copied is what an encoder written in C would see.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from math import copysign, isfinite
from operator import is_, length_hint
from types import TracebackType
from typing import Any, NoReturn, TypeAlias

import msgspec

from perdure.errors import Invalid, TooLarge
from perdure.model.pointer import escape

JSON: TypeAlias = dict[str, Any] | list[Any] | str | int | float | bool | None

DEPTH_MAX = 100
"""Deepest nesting of containers in one value."""
INT_DIGITS_MAX = 4300
"""Longest integer, in decimal digits: what Python turns into text and back by default."""
INT_END = 10**INT_DIGITS_MAX
"""The least positive integer that is too long."""
VALUES_MAX = 8 << 20
"""Most values that one value may hold when it is written out and some of its containers stand in it several times: 16 MiB, the largest
commit, have room for no more, at two bytes each. Without such containers the limits on bytes are the only ones."""
_FEW = 1 << 20
"""So many values are walked before anyone asks whether some containers stand there several times."""
_UNSOUND, _MANY = -1, -2

CONTAINERS = (dict, list)
_HASHED_INT_END = 1 << 60
"""Integers below this have hashes of their own; among larger ones anybody can find many that share one."""
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_SPOKEN = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null", int: "a number", float: "a number"}


def check(value: object, *, what: str = "data", at: str = "", depth: int = DEPTH_MAX, trust: tuple[type, ...] = ()) -> None:
    """Raise `Invalid`, naming the place (as fact `path` too), unless `value` is made of what JSON can say, and says it exactly.

    Allowed are dicts with string keys, lists, strings without lone surrogates, integers up to 4,300 digits, finite floats, booleans and
    None. Subclasses of dict and list count as what they hold; subclasses of str, int and float are refused, for they would come back
    as something else. `what` is the value's name in the message, `at` the pointer at which it stands, `depth` how many containers may
    be nested; containers of the types `trust` are not looked into. A container may stand in the value several times: it is written out
    each time, and a value that grows beyond `VALUES_MAX` by that is `TooLarge`. Time is linear in what is there, not in what is written.
    """
    try:
        left = _sound((value,), depth + 1, trust, _FEW)
    except RecursionError:  # The caller has little room left on its stack; the slow walk needs none.
        left = _MANY
    if left < 0:
        written, there = _walk(value, what, at, depth, trust)
        if left == _UNSOUND:
            raise Invalid(f"{what[:1].upper()}{what[1:]} was changed while it was being read.", path=at)
        if VALUES_MAX < written != there:
            raise TooLarge(
                f"{what[:1].upper()}{what[1:]} holds {there:,} values, some containers several times: written out they are "
                f"{_counted(written)}; the limit is {VALUES_MAX:,}.",
                size=written,
                limit=VALUES_MAX,
            )


def are_sound(values: Iterable[object]) -> bool:
    """Whether `check` would let each of these pass, found in one walk. `False` may also mean that there is too much to say so quickly."""
    try:
        return _sound(values, DEPTH_MAX + 1, (), _FEW) >= 0
    except RecursionError:
        return False


def _sound(values: Any, room: int, trust: tuple[type, ...], left: int) -> int:
    """How many more values may be walked when these are, which stand in a container that has `room` levels; `_UNSOUND` or `_MANY`
    otherwise. On the hot path of every write."""
    if left < 0:
        return _MANY
    for value in values:
        kind = type(value)
        if kind is str:
            if not (value.isascii() or _is_text(value)):
                return _UNSOUND
        elif kind is int:
            if not -INT_END < value < INT_END:
                return _UNSOUND
        elif kind is float:
            if not isfinite(value):
                return _UNSOUND
        elif kind is bool or value is None or kind in trust:
            continue
        elif room <= 1:
            return _UNSOUND
        elif kind is dict or isinstance(value, dict):
            for key in value if kind is dict else dict.__iter__(value):
                if type(key) is not str or not (key.isascii() or _is_text(key)):
                    return _UNSOUND
            left = _sound(dict.values(value), room - 1, trust, left - dict.__len__(value))
        elif isinstance(value, list):
            left = _sound(value if kind is list else list.__iter__(value), room - 1, trust, left - list.__len__(value))
        else:
            return _UNSOUND
        if left < 0:
            return left
    return left


def _counted(number: int) -> str:
    return f"{number:,}" if number < 10**15 else f"about 10^{len(str(number)) - 1}"


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(value: object, what: str, at: str, depth: int, trust: tuple[type, ...]) -> tuple[int, int]:
    """Walk slowly and without recursion, each container once for each depth at which it stands. Raise for the first culprit, or count
    the values that are written out and those that are there."""
    levels: list[tuple[object, Iterator[tuple[object, object]]]] = []
    tokens: list[str] = []
    entered: set[int] = set()
    fine: dict[int, tuple[int, int]] = {}  # Containers that were walked: how deep they stood, and how many values they hold written out.
    written = [0]
    there = 0
    node: object = value
    while True:
        trouble: tuple[str, str] | None = None
        written[-1] += 1
        if isinstance(node, CONTAINERS) and type(node) not in trust:
            deepest, size = fine.get(id(node), (-1, 0))
            if id(node) in entered:
                trouble = "a container that holds itself", ""
            elif len(levels) <= deepest:
                written[-1] += size
            elif len(levels) >= depth:
                trouble = f"more than {depth} containers inside one another", ""
            else:
                if deepest < 0:
                    there += dict.__len__(node) if isinstance(node, dict) else list.__len__(node)
                entered.add(id(node))
                levels.append((node, iter(dict.items(node)) if isinstance(node, dict) else enumerate(list.__iter__(node))))
                tokens.append("")
                written.append(0)
        elif type(node) not in trust:
            trouble = _trouble(node)
        pair = None
        while trouble is None and levels:
            pair = next(levels[-1][1], None)
            if pair is not None:
                break
            done, _ = levels.pop()
            entered.discard(id(done))
            tokens.pop()
            fine[id(done)] = len(levels), written[-1]
            size = written.pop()
            written[-1] += size
        key = pair[0] if pair is not None else ""
        if trouble is None and pair is not None and isinstance(levels[-1][0], dict) and (wrong := _key_trouble(key)):
            tokens.pop()
            trouble = wrong
        if trouble is not None:
            path = at + "".join(["/" + escape(token) for token in tokens])
            raise Invalid(f"{what[:1].upper()}{what[1:]} holds {trouble[0]}{_place(path)}{trouble[1]}.", path=path)
        if pair is None:
            return written[0], there + 1
        tokens[-1] = str(key)
        node = pair[1]


def _place(path: str) -> str:
    if not path:
        return " at its top"
    text = path if len(path) <= 120 else f"{path[:80]}…{path[-30:]}"
    return f" at {text!a}"


def _trouble(value: Any) -> tuple[str, str] | None:
    """What is wrong with a value that is no dict and no list, and why; None if nothing is."""
    kind = type(value)
    if kind is str:
        return None if _is_text(value) else ("a string with a lone surrogate", ", which no encoder can write")
    if kind is int:
        return None if -INT_END < value < INT_END else (f"an integer of more than {INT_DIGITS_MAX:,} digits", "")
    if kind is float:
        return None if isfinite(value) else (f"the number {value!r}", ", and JSON has finite ones only")
    if kind is bool or value is None:
        return None
    for plain in (str, int, float):
        if isinstance(value, plain):
            return f"a {kind.__name__}", f", which would come back as a plain {plain.__name__}: convert it"
    if isinstance(value, tuple):
        return f"a {kind.__name__}", ", which would come back as a list: convert it"
    return f"a {kind.__name__}", ", and JSON has objects, lists, strings, numbers, booleans and null only"


def _key_trouble(key: object) -> tuple[str, str] | None:
    if type(key) is not str:
        return f"a key of type {type(key).__name__}", ", and keys are strings"
    return None if _is_text(key) else ("a key with a lone surrogate", ", which no encoder can write")


def same(a: object, b: object) -> bool:
    """Whether two JSON values are one: a bool is no number, `1` is not `1.0`, `0.0` is not `-0.0`, objects have no order."""
    if a is b:
        return True
    if isinstance(a, dict):
        return isinstance(b, dict) and dict.__len__(a) == dict.__len__(b) and _same_members(a, b)
    if isinstance(a, list):
        if not isinstance(b, list) or list.__len__(a) != list.__len__(b):
            return False
        for place in differing(list.__iter__(a), list.__iter__(b), list.__len__(b)):
            if not same(list.__getitem__(a, place), list.__getitem__(b, place)):
                return False
        return True
    kind = type(a)
    if kind is not type(b) or a != b:
        return False
    return kind is not float or a != 0.0 or copysign(1.0, a) == copysign(1.0, b)  # type: ignore[arg-type]


def differing(left: Iterator[Any], right: Iterator[Any], size: int) -> Iterator[int]:
    """The places, rising, at which two rows of one length hold different objects. What is one object is passed over in C."""
    while not all(map(is_, left, right)):  # `all` stops right after each place.
        yield size - length_hint(right) - 1


def _same_members(a: dict[Any, Any], b: dict[Any, Any]) -> bool:
    for key, left in dict.items(a):
        right = dict.get(b, key, CONTAINERS)
        if left is not right and not same(left, right):
            return False
    return True


def key(value: object) -> object:
    """What stands for a JSON value in a set or a dict: two keys are equal exactly where `same` says that the values are one.

    Text and bytes are hashed with a secret of this process, so stored data cannot be made to collide.
    """
    kind = type(value)
    if kind is str or (kind is int and -_HASHED_INT_END < value < _HASHED_INT_END):  # type: ignore[operator]
        return value
    return _encode_sorted(value)


class _Room:
    """Around what goes as deep as a value does: where the caller's stack has no room for that, the error says so."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None and issubclass(kind, RecursionError):
            raise no_room() from None


ROOM = _Room()


def no_room() -> Invalid:
    """The error for a call from too deep; nothing is wrong with what is stored."""
    return Invalid(
        f"Python's stack is nearly full here (its limit is {sys.getrecursionlimit():,} calls), and nothing was done: "
        "call from less deep, or raise the limit with sys.setrecursionlimit."
    )


def spoken(value: object) -> str:
    """What a value is, in JSON's words, for messages, such as `an object`."""
    for kind, name in _SPOKEN.items():
        if isinstance(value, kind):
            return name
    return f"a {type(value).__name__}"


def freeze(value: Any) -> Any:
    """The value with every container frozen. What is frozen already is returned as it is; nothing given is changed."""
    if isinstance(value, dict):
        if type(value) is FrozenDict:
            return value
        return FrozenDict({key: freeze(item) if isinstance(item, CONTAINERS) else item for key, item in dict.items(value)})
    if isinstance(value, list):
        if type(value) is FrozenList:
            return value
        return FrozenList([freeze(item) if isinstance(item, CONTAINERS) else item for item in list.__iter__(value)])
    return value


def thaw(value: Any) -> Any:
    """A deep copy in plain dicts and lists, which shares no container with the original."""
    if isinstance(value, dict):
        return {key: thaw(item) if isinstance(item, CONTAINERS) else item for key, item in dict.items(value)}
    if isinstance(value, list):
        return [thaw(item) if isinstance(item, CONTAINERS) else item for item in list.__iter__(value)]
    return value


def _refuse(*_: object, **__: object) -> NoReturn:
    raise Invalid("This value belongs to the store's cached state and is never changed; reach it through draft.state, or copy it.")


class FrozenDict(dict[str, Any]):
    """A real, filled dict that refuses to be changed. Its copies, also by pickle, are plain."""

    __slots__ = ()

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, memo: object) -> Any:
        return thaw(self)

    def __reduce_ex__(self, protocol: object) -> Any:
        return dict, (), None, None, iter(self.items())


class FrozenList(list[Any]):
    """A real, filled list that refuses to be changed. Its copies, also by pickle, are plain."""

    __slots__ = ()

    __setitem__ = __delitem__ = append = clear = extend = insert = pop = remove = _refuse
    reverse = sort = __iadd__ = __imul__ = _refuse

    def __copy__(self) -> list[Any]:
        return self[:]

    def __deepcopy__(self, memo: object) -> Any:
        return thaw(self)

    def __reduce_ex__(self, protocol: object) -> Any:
        return list, (), None, iter(self), None
