"""Operations: the nine ways to change a state. Users reach the constructors as `perdure.op.set(path, value)` and so on.

Every path is a JSON Pointer. A constructor checks its arguments and raises `Invalid`; whether the operation fits the state
(its parent is there, the target has the right type) is decided where it is applied.

The constructors keep the names that users type, so inside this module `set` is not the builtin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from perdure.errors import Invalid
from perdure.model.pointer import parse
from perdure.model.values import check, spoken

KINDS = ("set", "remove", "init", "append", "splice", "add", "union", "merge", "test")
"""Every kind of operation. The names are stored: never change one."""


TAKE = "take"
"""The mark of an operation that takes. It is stored, and an operation without it is stored as if there were no marks."""
TAKING = ("set", "remove", "splice")
"""The kinds that can take: those that take something out."""


class Op(msgspec.Struct, frozen=True, array_like=True):
    """One change to the state, on the wire `[kind, path, value]`.

    `path` is a JSON Pointer. `value` is what the kind needs: a value (`set`, `init`, `test`), nothing (`remove`), a list
    (`append`, `union`), a number (`add`), an object (`merge`), or `[index, out, items]` (`splice`).
    """

    kind: str
    path: str
    value: Any = None

    @property
    def taken(self) -> bool:
        """Whether somebody keeps what this operation takes out: it must still be there, unchanged, when others wrote first."""
        return False


class TakingOp(Op, frozen=True, array_like=True):
    """An operation that takes out what somebody keeps, on the wire `[kind, path, value, "take"]`.

    It acts as the same operation without the mark does. The mark decides how it combines: of two that take one thing, one gets it.
    """

    take: str = TAKE

    @property
    def taken(self) -> bool:
        return True


def taking(op: Op) -> Op:
    """The same operation, with the mark."""
    return TakingOp(op.kind, op.path, op.value)


def remake(op: Op, path: str, value: Any) -> Op:
    """The operation at another path or with another value, marked as it was."""
    return type(op)(op.kind, path, value)


def set(path: str, value: Any, *, take: bool = False) -> Op:
    """Put `value` at `path`, replacing what is there. The parent must exist; in a list, `-` puts it after the last element.

    With `take`, what was there is kept by you (see `remove`).
    """
    return _made("set", path, value, take)


def remove(path: str, *, take: bool = False) -> Op:
    """Take away what is at `path`, which must exist. In a list the later elements move up by one.

    Two writers that both remove one thing agree: gone is gone. With `take` you keep what you remove, as a worker keeps a job:
    if another writer removed or changed it first, this is a `Conflict`.
    """
    return _made("remove", path, None, take)


def init(path: str, value: Any) -> Op:
    """Put `value` at `path` if nothing is there; else change nothing. This is what `setdefault` records."""
    return _made("init", path, value)


def append(path: str, items: Iterable[Any]) -> Op:
    """Extend the list at `path` by `items`. A missing list is created."""
    return _made("append", path, _listed("append", items))


def splice(path: str, index: int, out: int = 0, items: Iterable[Any] = (), *, take: bool = False) -> Op:
    """In the list at `path`, at `index` (0 to its length), take `out` elements out and put `items` in their place.

    With `take`, what comes out is kept by you (see `remove`).
    """
    return _made("splice", path, [index, out, _listed("splice", items)], take)


def add(path: str, number: float) -> Op:
    """Add `number` to the number at `path`. A missing one is created from zero; a result that is not finite is `Invalid`."""
    return _made("add", path, number)


def union(path: str, items: Iterable[Any]) -> Op:
    """Append those of `items` that the list at `path` does not hold yet, in their order. A missing list is created."""
    return _made("union", path, _listed("union", items))


def merge(path: str, patch: Mapping[str, Any]) -> Op:
    """Merge the object `patch` into what is at `path` as RFC 7396 says: a member that is None is removed, an object is merged, else set."""
    return _made("merge", path, dict(patch) if isinstance(patch, Mapping) else patch)


def test(path: str, value: Any) -> Op:
    """Change nothing, and refuse the whole commit unless what is at `path` equals `value` (typed: `1`, `1.0` and `true` differ)."""
    return _made("test", path, value)


# pytest would take an imported `test` for a test of its own.
test.__test__ = False  # type: ignore[attr-defined]


def check_op(op: Op) -> None:
    """Raise `Invalid` unless `op` is well formed: a known kind, a sound path, and the value that the kind needs."""
    parse(op.path)
    shape = _SHAPES.get(op.kind) if isinstance(op.kind, str) else None
    if shape is None:
        raise Invalid(f"There is no operation {str(op.kind)[:40]!r}; the kinds are {', '.join(KINDS)}.")
    shape(op.kind, op.value)
    if isinstance(op, TakingOp) and (op.kind not in TAKING or op.take != TAKE):
        raise Invalid(f"{op.kind} takes nothing out: only {', '.join(TAKING)} can be marked, and with {TAKE!r}.")
    if op.value is not None:
        check(op.value)


def _made(kind: str, path: str, value: Any, take: bool = False) -> Op:
    op = TakingOp(kind, path, value) if take else Op(kind, path, value)
    check_op(op)
    return op


def _listed(kind: str, items: Any) -> Any:
    """A list of the items, so that a generator or tuple will do; a string or a mapping is a mistake, not a sequence."""
    if isinstance(items, (str, bytes, bytearray, Mapping)) or not isinstance(items, Iterable):
        raise Invalid(f"{kind} takes a list of items, not {spoken(items)}. For one item write [item].")
    return list(items)


def _any(_kind: str, _value: Any) -> None:
    """Every JSON value will do."""


def _nothing(kind: str, value: Any) -> None:
    if value is not None:
        raise Invalid(f"{kind} takes a path and no value.")


def _list(kind: str, value: Any) -> None:
    if not isinstance(value, list):
        raise Invalid(f"{kind} takes a list of items, not {spoken(value)}. For one item write [item].")


def _number(kind: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Invalid(f"{kind} takes a number, not {spoken(value)}.")


def _object(kind: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise Invalid(f"{kind} takes an object, not {spoken(value)}; to replace the whole value use set.")


def _splice(kind: str, value: Any) -> None:
    if not isinstance(value, list) or len(value) != 3:
        raise Invalid("splice takes [index, out, items].")
    index, out, items = value
    if type(index) is not int or type(out) is not int or index < 0 or out < 0:
        raise Invalid(f"splice takes an index and a count of 0 or more, not {index!r:.40} and {out!r:.40}.")
    _list(kind, items)


_SHAPES: dict[str, Callable[[str, Any], None]] = {
    "set": _any,
    "remove": _nothing,
    "init": _any,
    "append": _list,
    "splice": _splice,
    "add": _number,
    "union": _list,
    "merge": _object,
    "test": _any,
}
