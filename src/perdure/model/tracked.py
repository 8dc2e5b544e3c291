"""What was done to a draft's state, as operations: the calls that were seen, and the comparison that finds the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from perdure.errors import Invalid
from perdure.model.containers import TrackedDict, TrackedList, origin, track
from perdure.model.diff import diff
from perdure.model.ops import Op
from perdure.model.pointer import PATH_TOKENS_MAX, is_index, parse
from perdure.model.state import MISSING, Fold, TestFailed, apply
from perdure.model.values import CONTAINERS, DEPTH_MAX, FrozenDict, FrozenList, check, freeze, same, thaw

__all__ = ["TrackedDict", "TrackedList", "Tracker"]


class Tracker:
    """Follows what happens to one state. Cost: what changes, and the width of the containers that are touched."""

    def __init__(self, base: Any) -> None:
        """`base` is frozen already, or it is copied whole. It never changes."""
        self._base = freeze(base)
        self._root = track(self._base, self)
        self._noted: list[Op] = []

    @property
    def root(self) -> Any:
        """The state as the user sees and changes it."""
        return self._root

    def replace(self, value: Any) -> None:
        """Make `value` the whole document: what differs is found at commit, so it may still be changed until then."""
        self._root = value

    def note(self, op: Op) -> None:
        """Take down an operation that was done to what the user sees."""
        self._noted.append(op)

    def do(self, op: Op) -> None:
        """Perform an operation on what the user sees, and keep it as it is.

        Raises `Invalid` if it does not fit and `TestFailed` if it is a test that does not hold; then nothing changed.
        """
        tokens = parse(op.path)
        way = self._touch(tokens)
        fold = Fold(self._root)
        fold.apply((op,))
        if not tokens:
            self._root = _settle(self._root, fold.state, op.kind)
        elif op.kind != "test":
            _settle_below(way, tokens, fold.state, op.kind)
        self._noted.append(Op(op.kind, op.path, thaw(op.value)))

    def ops(self) -> tuple[Op, ...]:
        """The operations that make the base into what the user sees now; none if that is the base.

        What was noted comes first, in its order, then what only the comparison found. Tests are kept if there is anything else.
        Raises `Invalid`, naming the place, for a value that JSON cannot say.
        """
        # Paths may lead as deep as values may nest, and there a value may stand: below both nothing was stored before.
        check(self._root, what="the state", depth=PATH_TOKENS_MAX + DEPTH_MAX, trust=(FrozenDict, FrozenList))
        noted = tidy(self._noted)
        ops = self._explain(noted)
        if ops is None:
            tests = [op for op in noted if op.kind == "test" and _holds(self._base, op)]
            ops = [*tests, *diff(self._base, self._root, origin=origin)]
        if all(op.kind == "test" for op in ops) or (noted and same(self._base, self._root)):
            return ()
        for op in ops:
            check(op.value, what="the state", at=op.path)
        return tuple(ops)

    def _explain(self, noted: list[Op]) -> list[Op] | None:
        """What was noted and the rest, or None if what was noted does not lead here."""
        fold = Fold(self._base)
        try:
            fold.apply(noted)
            rest = diff(fold.state, self._root, origin=origin)
            if rest:
                fold.apply(rest)
                if diff(fold.state, self._root, origin=origin):
                    return None
        except (Invalid, TestFailed):
            return None
        return [*noted, *rest]

    def _touch(self, tokens: Sequence[str]) -> list[Any]:
        """The containers on the way, as the user would reach them; as many as there are."""
        way: list[Any] = []
        node = self._root
        for token in tokens:
            if not isinstance(node, CONTAINERS):
                break
            way.append(node)
            node = _member(node, token)
        if isinstance(node, CONTAINERS):
            way.append(node)
        return way


def _member(node: Any, token: str) -> Any:
    if isinstance(node, dict):
        return node.get(token, MISSING)
    if is_index(token) and int(token) < len(node):
        return node[int(token)]
    return MISSING


def _settle_below(way: list[Any], tokens: Sequence[str], after: Any, kind: str) -> None:
    """Bring what an operation made at the end of the path into the containers that the user holds."""
    for token in tokens[:-1]:
        after = after[token] if isinstance(after, dict) else list.__getitem__(after, int(token))
    parent, token = way[len(tokens) - 1], tokens[-1]
    if isinstance(parent, dict):
        value = dict.get(after, token, MISSING)
        if value is MISSING:
            dict.__delitem__(parent, token)
        else:
            dict.__setitem__(parent, token, _settle(dict.get(parent, token), value, kind))
    elif len(after) != len(parent) or not is_index(token):
        list.__setitem__(parent, slice(None), list.copy(after))
    else:
        place = int(token)
        list.__setitem__(parent, place, _settle(list.__getitem__(parent, place), list.__getitem__(after, place), kind))


def _settle(held: Any, made: Any, kind: str) -> Any:
    """What stands at a place where `held` was, after an operation made it into `made`: the same object, where it was changed in part."""
    if kind in ("append", "splice", "union") and isinstance(held, list):
        list.__setitem__(held, slice(None), made)
        return held
    if kind == "merge" and isinstance(held, dict) and isinstance(made, dict):
        for key in [key for key in held if key not in made]:
            dict.__delitem__(held, key)
        for key, value in dict.items(made):
            if dict.get(held, key, MISSING) is not value:
                dict.__setitem__(held, key, _settle(held.get(key), value, kind))
        return held
    return made


def _holds(state: Any, op: Op) -> bool:
    try:
        apply(state, (op,))
    except (Invalid, TestFailed):
        return False
    return True


def tidy(ops: Iterable[Op]) -> list[Op]:
    """The same change in fewer operations: appends in a row become one, and a value that is set again before it is used is left out."""
    made: list[Op | None] = []
    joined = False
    last_set: dict[str, int] = {}
    used: dict[str, int] = {}
    moved: dict[str, int] = {}
    for op in ops:
        last = made[-1] if made else None
        behind = op.path.endswith("/-")  # Names another place each time.
        if op.kind == "append" and last is not None and last.kind == "append" and last.path == op.path and not behind:
            if not joined:
                last = made[-1] = Op("append", op.path, list(last.value))
            last.value.extend(op.value)
            joined = True
            continue
        joined = False
        number, above = len(made), _ancestors(op.path)
        before = last_set.pop(op.path, -1)
        if op.kind == "set" and not behind:
            if before >= 0 and used.get(op.path, -1) < before and all(moved.get(path, -1) < before for path in above):
                made[before] = None
            last_set[op.path] = number
        else:
            used[op.path] = moved[op.path] = number
            if op.kind == "remove" and above:
                moved[above[0]] = number
        for path in above:
            used[path] = number
        made.append(op)
    return [op for op in made if op is not None]


def _ancestors(path: str) -> list[str]:
    """The pointers above a pointer, nearest first."""
    above: list[str] = []
    while path:
        path = path.rpartition("/")[0]
        above.append(path)
    return above
