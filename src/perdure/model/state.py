"""The fold: what operations make of a state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from math import isfinite
from typing import Any, NoReturn

from perdure.errors import Invalid
from perdure.model.ops import Op
from perdure.model.pointer import is_index, parse
from perdure.model.values import INT_END, FrozenDict, FrozenList, freeze, key, same, spoken, thaw


class _Missing(Enum):
    MISSING = "nothing"


MISSING = _Missing.MISSING
"""No value at all. JSON's null is a value, which is None in Python."""
_GONE = object()
_AFTER_LAST = "-"
_COPIED_AT_ONCE = (dict, list, FrozenDict, FrozenList)
"""Classes that leave it to C how their members are copied."""
_FEW = 4
"""So many values are looked for in a list one by one before its keys are made."""


FOLD_VERSION = 1
"""Raised when the same commits give another state than before: states that were kept outside of the store count for nothing then."""


class TestFailed(Exception):
    """A `test` did not hold at `path`. It stays inside the model: the code that applies operations raises its own error for it."""

    __test__ = False  # pytest would take it for a test class.

    def __init__(self, path: str) -> None:
        super().__init__(f"The value at {path!a} is not the one that was tested for.")
        self.path = path


def apply(state: Any, ops: Iterable[Op]) -> Any:
    """The state after `ops`. Pure: containers on the paths that are touched are copied, all else is shared with `state`.

    If `state` is frozen the result is; else it is plain, and shares no container with the operations.
    Raises `Invalid` (an operation does not fit, named with its path and what is there) or `TestFailed`.
    """
    fold = Fold(state)
    fold.apply(ops)
    return fold.state


def lookup(state: Any, path: str) -> Any:
    """The value at `path`. Raises `KeyError` where there is none, `Invalid` for a malformed path."""
    node = state
    for token in parse(path):
        if isinstance(node, dict):
            node = dict.get(node, token, MISSING)
        elif isinstance(node, list) and is_index(token) and int(token) < list.__len__(node):
            node = list.__getitem__(node, int(token))
        else:
            node = MISSING
        if node is MISSING:
            raise KeyError(path)
    return node


class Fold:
    """Applies operations one after another, like `apply`, in time linear in the operations.

    A container is copied when it is first touched and belongs to the fold until `state` is read: what was handed out, and what was
    given, never changes. When an operation raises, those before it stay applied.
    """

    __slots__ = ("_keys", "_owned", "_state", "_take")

    def __init__(self, state: Any) -> None:
        self._state = state
        self._take: Callable[[Any], Any] = freeze if isinstance(state, (FrozenDict, FrozenList)) else thaw
        # The containers themselves, not only their ids: an id is used again when its object is gone.
        self._owned: dict[int, Any] = {}
        # Of lists that belong to the fold, what they hold and where it first stands; none before a second union asks for it.
        self._keys: dict[int, dict[object, int] | None] = {}

    @property
    def state(self) -> Any:
        """The state so far."""
        self._owned.clear()
        self._keys.clear()
        return self._state

    def peek(self) -> Any:
        """The state so far, to look at: what comes next may change it."""
        return self._state

    def apply(self, ops: Iterable[Op]) -> None:
        """Fold the operations in. Raises as `apply` of this module does."""
        for op in ops:
            self._apply_one(op)

    def way(self, path: str) -> tuple[list[Any], int]:
        """The values on a path, from the document to as far as there are any, and the path's last token as an index (0 if it is none)."""
        node, tokens = self._state, parse(path)
        way = [node]
        for token in tokens:
            if isinstance(node, dict) and dict.__contains__(node, token):
                node = dict.__getitem__(node, token)
            elif isinstance(node, list) and is_index(token) and int(token) < list.__len__(node):
                node = list.__getitem__(node, int(token))
            else:
                break
            way.append(node)
        return way, int(tokens[-1]) if tokens and is_index(tokens[-1]) else 0

    def _apply_one(self, op: Op) -> None:
        kind = op.kind
        if kind == "test":
            self._test(op)
            return
        act = _ACTS.get(kind)
        if act is None:
            raise Invalid(f"There is no operation {str(kind)[:40]!r}.")
        nodes: list[Any] = []
        keys: list[Any] = []
        node = self._state
        tokens = parse(op.path)
        for token in tokens:
            nodes.append(node)
            if isinstance(node, dict):
                keys.append(token)
                node = dict.get(node, token, MISSING)
            elif isinstance(node, list):
                size = list.__len__(node)
                if self._keys:  # One of its elements may change.
                    self._keys.pop(id(node), None)
                if token == _AFTER_LAST:
                    keys.append(size)
                    node = MISSING
                elif is_index(token) and int(token) < size:
                    keys.append(int(token))
                    node = list.__getitem__(node, int(token))
                else:
                    raise Invalid(f"{kind} at {op.path!a} does not fit: there is a list of {size}, without element {token[:40]!a}.")
            else:
                _misfit(op, f"its parent is {_found(node)}")
        value = act(self, op, node)
        if value is not node:
            self._put(op, nodes, keys, value)

    def _test(self, op: Op) -> None:
        try:
            holds = same(lookup(self._state, op.path), op.value)
        except KeyError:
            holds = False
        if not holds:
            raise TestFailed(op.path)

    def _put(self, op: Op, nodes: list[Any], keys: list[Any], value: Any) -> None:
        """Put `value` (or nothing, if it is gone) at the end of the path, owning every container on the way."""
        if not nodes:
            if value is _GONE:
                _misfit(op, "the whole document can be replaced, not removed")
            self._state = value
            return
        parent = self._state = self._own(nodes[0])
        for token, node in zip(keys, nodes[1:], strict=False):
            child = self._own(node)
            if child is not node:
                _store(parent, token, child)
            parent = child
        token = keys[-1]
        if value is not _GONE:
            _store(parent, token, value)
        elif isinstance(parent, dict):
            dict.__delitem__(parent, token)
        else:
            list.__delitem__(parent, token)

    def _own(self, node: Any) -> Any:
        """The container itself if it belongs to the fold, else a shallow copy that does."""
        if id(node) in self._owned:
            return node
        frozen = self._take is freeze
        copy: Any
        if isinstance(node, dict):
            members = node if type(node) in _COPIED_AT_ONCE else dict.items(node)
            copy = FrozenDict(members) if frozen else dict(members)
        elif frozen:
            copy = list.__new__(FrozenList)
            list.extend(copy, node if type(node) in _COPIED_AT_ONCE else list.__iter__(node))
        else:
            copy = list.copy(node)
        self._owned[id(copy)] = copy
        return copy

    def _set(self, op: Op, _: Any) -> Any:
        return self._take(op.value)

    def _remove(self, op: Op, node: Any) -> Any:
        if node is MISSING:
            _misfit(op, "there is nothing")
        return _GONE

    def _init(self, op: Op, node: Any) -> Any:
        return self._take(op.value) if node is MISSING else node

    def _append(self, op: Op, node: Any) -> Any:
        target = self._list(op, node, op.value)
        keys = self._keys.get(id(target)) if self._keys else None
        if keys is not None:
            for place, item in enumerate(op.value, list.__len__(target)):
                keys.setdefault(key(item), place)
        list.extend(target, self._items(op.value))
        return target

    def _union(self, op: Op, node: Any) -> Any:
        items = op.value
        target = self._list(op, node, items)
        if list.__len__(items) <= _FEW and id(target) not in self._keys:
            self._keys[id(target)] = None
            for item in items:
                # `in` is fast and finds a bit too much (1 == 1.0 == True), never too little.
                if not list.__contains__(target, item) or not any(same(item, held) for held in list.__iter__(target)):
                    list.append(target, self._take(item))
            return target
        keys = self.keys(target)
        for item in items:
            place = list.__len__(target)
            if keys.setdefault(key(item), place) == place:
                list.append(target, self._take(item))
        return target

    def keys(self, target: list[Any]) -> dict[object, int]:
        """What a list that belongs to the fold holds, by `values.key`, and where each value first stands."""
        keys = self._keys.get(id(target))
        if keys is None:
            keys = self._keys[id(target)] = {}
            for place, held in enumerate(list.__iter__(target)):
                keys.setdefault(key(held), place)
        return keys

    def _splice(self, op: Op, node: Any) -> Any:
        value = op.value
        if not isinstance(value, list) or len(value) != 3 or type(value[0]) is not int or type(value[1]) is not int:
            _misfit(op, "its value must be [index, out, items]")
        index, out, items = value
        if node is MISSING:
            _misfit(op, "there is nothing")
        if isinstance(node, list) and (index < 0 or out < 0 or index + out > list.__len__(node)):
            _misfit(op, f"elements {index} to {index + out} of a list of {list.__len__(node)} are not there")
        target = self._list(op, node, items)
        self._keys.pop(id(target), None)
        list.__setitem__(target, slice(index, index + out), self._items(items))
        return target

    def _list(self, op: Op, node: Any, items: Any) -> Any:
        """The list to be changed in place; a new one where there is nothing."""
        if not isinstance(items, list):
            _misfit(op, f"it takes a list of items, not {spoken(items)}")
        if node is not MISSING and not isinstance(node, list):
            _misfit(op, f"there is {_found(node)}, not a list")
        return self._own([] if node is MISSING else node)

    def _items(self, items: list[Any]) -> list[Any]:
        take = self._take
        return [take(item) for item in items]

    def _add(self, op: Op, node: Any) -> Any:
        number = op.value
        if type(number) is not int and type(number) is not float:
            _misfit(op, f"it takes a number, not {spoken(number)}")
        if node is MISSING:
            return number
        if type(node) is not int and type(node) is not float:
            _misfit(op, f"there is {_found(node)}, not a number")
        try:
            total = node + number
        except OverflowError:
            _misfit(op, "the integer is too large to be added to a float")
        if not (isfinite(total) if type(total) is float else -INT_END < total < INT_END):
            _misfit(op, "the sum is too large")
        return total

    def _merge(self, op: Op, node: Any) -> Any:
        if not isinstance(op.value, dict):
            _misfit(op, f"it takes an object, not {spoken(op.value)}")
        return self._merged(node, op.value)

    def _merged(self, node: Any, patch: dict[str, Any]) -> Any:
        """RFC 7396: a member of the patch that is null is removed, an object is merged, anything else replaces."""
        target = self._own(node if isinstance(node, dict) else {})
        for name, value in dict.items(patch):
            if value is None:
                if dict.__contains__(target, name):
                    dict.__delitem__(target, name)
            elif isinstance(value, dict):
                dict.__setitem__(target, name, self._merged(dict.get(target, name), value))
            else:
                dict.__setitem__(target, name, self._take(value))
        return target


_ACTS: dict[str, Callable[[Fold, Op, Any], Any]] = {
    "set": Fold._set,
    "remove": Fold._remove,
    "init": Fold._init,
    "append": Fold._append,
    "splice": Fold._splice,
    "add": Fold._add,
    "union": Fold._union,
    "merge": Fold._merge,
}
"""Each takes the operation and what stands at its path, and gives what shall stand there, or `_GONE`."""


def _store(parent: Any, key: Any, value: Any) -> None:
    if isinstance(parent, dict):
        dict.__setitem__(parent, key, value)
    elif key < list.__len__(parent):
        list.__setitem__(parent, key, value)
    else:
        list.append(parent, value)


def _found(node: Any) -> str:
    return "not there" if node is MISSING else spoken(node)


def _misfit(op: Op, why: str) -> NoReturn:
    raise Invalid(f"{op.kind} at {op.path!a} does not fit: {why}.", path=op.path)
