"""Explicit operations on a draft's state. The fold works on a copy; here the containers that the user holds are changed."""

from __future__ import annotations

from operator import is_
from typing import Any

from perdure.model.containers import TrackedDict, TrackedList
from perdure.model.ops import Op
from perdure.model.pointer import is_index, parse
from perdure.model.state import MISSING, Fold
from perdure.model.values import CONTAINERS, FrozenDict, FrozenList, freeze, key, thaw

_LISTS = ("append", "splice", "union")


class InPlace(Fold):
    """A fold that owns every container on its way: they are handed out first, so that none of them is frozen.

    What is put into a tracked container stays frozen until it is asked for, as the rest of the state does; a plain container, which
    nobody follows, gets plain copies. An operation that raises changes nothing.
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        super().__init__({})
        # Lists that unions were put into: the list, what it held then, and the keys of that.
        self._seen: dict[int, tuple[list[Any], list[Any], dict[object, int]]] = {}

    def do(self, state: Any, op: Op) -> Any:
        """Perform the operation on `state`, and return what is the state then. Raises as `Fold.apply` does."""
        self._state = state
        parent, target = self._reach(op)
        receiver = target if op.kind in _LISTS else parent
        self._take = freeze if isinstance(receiver, (TrackedDict, TrackedList)) and op.kind != "merge" else thaw
        self._apply_one(op)
        if op.kind == "union":
            self._remember(target)
        return self._state

    def _reach(self, op: Op) -> tuple[Any, Any]:
        """Have the containers on the path handed out, and those that a merge leads into. What holds the target, and the target."""
        node, parent = self._state, MISSING
        for token in parse(op.path):
            parent, node = node, _member(node, token)
            if node is MISSING:
                break
        if op.kind == "merge":
            _reach_into(node, op.value)
        return parent, node

    def _own(self, node: Any) -> Any:
        return node

    def keys(self, target: list[Any]) -> dict[object, int]:
        """As for a fold. They are remembered while the list holds the very objects that it held, none of which can change."""
        found = self._seen.get(id(target))
        if found is not None and found[0] is target and len(found[1]) == len(target) and all(map(is_, found[1], list.__iter__(target))):
            return found[2]
        held = list.copy(target)
        keys: dict[object, int] = {}
        for place, item in enumerate(held):
            keys.setdefault(key(item), place)
        if all(map(_is_stable, held)):
            self._seen[id(target)] = target, held, keys
        else:
            self._seen.pop(id(target), None)
        return keys

    def _remember(self, target: Any) -> None:
        """Take what a union added into what is remembered of the list."""
        found = self._seen.get(id(target))
        if found is not None and found[0] is target:
            new = list.__getitem__(target, slice(len(found[1]), None))
            if all(map(_is_stable, new)):
                found[1].extend(new)


def _is_stable(value: Any) -> bool:
    return not isinstance(value, CONTAINERS) or type(value) is FrozenDict or type(value) is FrozenList


def _member(node: Any, token: str) -> Any:
    """The member as the user would reach it, handed out."""
    if isinstance(node, dict):
        return node.get(token, MISSING)
    if isinstance(node, list) and is_index(token) and int(token) < len(node):
        return node[int(token)]
    return MISSING


def _reach_into(node: Any, patch: Any) -> None:
    if isinstance(node, dict) and isinstance(patch, dict):
        for name, value in dict.items(patch):
            if isinstance(value, dict):
                _reach_into(node.get(name, MISSING), value)
