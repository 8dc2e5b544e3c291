"""A JSON Patch evaluated on a state, one operation after another: what it does, as operations of the library.

What is copied is measured before it is copied, and counted each time it stands in the result: thirty copies that double ask for 2^30.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.errors import Conflict, Invalid, TooLarge
from perdure.model import ops as op
from perdure.model.ops import Op
from perdure.model.pointer import is_index, join, parse
from perdure.model.state import MISSING, Fold
from perdure.service.patch.parse import Step
from perdure.service.refusals import PreconditionRequired

WORK_MAX = 20_000_000
"""Most members of containers that are copied because a patch touches them."""
_VALUE_BYTES = 2
"""Least bytes of a value, with what separates it from the next."""


class Evaluated(msgspec.Struct, frozen=True):
    """What a patch does to the state that it was evaluated on."""

    ops: list[Op]
    reads: list[str]
    """Paths whose values it rests on: what it tested and copied."""


def evaluate(state: Any, steps: Sequence[Step], *, on_version: bool, copy_bytes: int) -> Evaluated:
    """Evaluate a patch. `on_version`: the client has said which version it means, so that indices mean what it saw. `copy_bytes`: most
    bytes that copies may add.

    Raises `Conflict` where an operation does not fit the state or a test does not hold (fact `operation`: its number),
    `PreconditionRequired` for indices, `move` and `copy` without a version, `TooLarge`.
    """
    return _Evaluation(state, on_version=on_version, copy_bytes=copy_bytes).run(steps)


class _Evaluation:
    def __init__(self, state: Any, *, on_version: bool, copy_bytes: int) -> None:
        self._fold, self._on_version, self._left = Fold(state), on_version, copy_bytes
        self._copy_bytes = copy_bytes
        self._ops: list[Op] = []
        self._reads: list[str] = []
        self._sizes: dict[int, tuple[Any, int]] = {}
        """The bytes of containers, with each container, so that its identity stays its own."""
        self._work = 0
        self._number = 0

    def run(self, steps: Sequence[Step]) -> Evaluated:
        for self._number, step in enumerate(steps):
            if step.op in ("move", "copy") and not self._on_version:
                raise PreconditionRequired(f"Operation {self._number} of the patch, {step.op}, rests on a version.")
            getattr(self, f"_{step.op}")(step)
        return Evaluated(self._ops, self._reads)

    def _add(self, step: Step) -> None:
        self._put(step.path, step.value)

    def _remove(self, step: Step) -> None:
        self._find(step.path)
        if not step.path:
            raise self._misfit(step.path, "the whole state can be replaced, not removed")
        self._do(op.remove(step.path))

    def _replace(self, step: Step) -> None:
        self._find(step.path)
        self._do(op.set(step.path, step.value))

    def _move(self, step: Step) -> None:
        value = self._settled(step.source)
        if step.source != step.path:
            self._do(op.remove(step.source, take=True))
            self._put(step.path, value)

    def _copy(self, step: Step) -> None:
        value = self._settled(step.source)
        size = self._size(value)
        if size > self._left:
            raise TooLarge(f"The copies of the patch would add more than {self._copy_bytes:,} bytes.", limit=self._copy_bytes)
        self._left -= size
        self._reads.append(step.source)
        self._put(step.path, value)

    def _test(self, step: Step) -> None:
        self._reads.append(step.path)
        if not equal(self._find(step.path), step.value):
            raise self._misfit(step.path, "the value is not the one that was tested for", test=step.path)

    def _put(self, path: str, value: Any) -> None:
        """Add a value as RFC 6902 says: into a list between its elements, into an object in place of what is there."""
        tokens = parse(path)
        if not tokens:
            self._do(op.set("", value))
            return
        parent, last = self._find(join(tokens[:-1])), tokens[-1]
        if isinstance(parent, dict):
            self._do(op.set(path, value))
        elif not isinstance(parent, list):
            raise self._misfit(path, "its parent is no container")
        elif last == "-":
            self._do(op.append(join(tokens[:-1]), [value]))
        elif is_index(last) and self._require_version(path) and len(last) < 10 and int(last) <= list.__len__(parent):
            self._do(op.splice(join(tokens[:-1]), int(last), 0, [value]))
        else:
            raise self._misfit(path, f"a list of {list.__len__(parent)} takes nothing at {last[:40]!r}")

    def _find(self, path: str) -> Any:
        """The value at a path. Raises `Conflict` where there is none."""
        node = self._fold.peek()
        for token in parse(path):
            if isinstance(node, dict):
                node = dict.get(node, token, MISSING)
            elif isinstance(node, list) and is_index(token):
                self._require_version(path)
                node = list.__getitem__(node, int(token)) if len(token) < 10 and int(token) < list.__len__(node) else MISSING
            else:
                node = MISSING
            if node is MISSING:
                raise self._misfit(path, "there is nothing")
        return node

    def _settled(self, path: str) -> Any:
        """The value at a path, which later operations leave as it is: they copy what they touch."""
        self._find(path)
        _ = self._fold.state
        return self._find(path)

    def _do(self, operation: Op) -> None:
        way, _ = self._fold.way(operation.path)
        self._work += sum(len(node) for node in way if isinstance(node, (dict, list)) and id(node) not in self._fold._owned)
        if self._work > WORK_MAX:
            raise TooLarge("The patch copies and changes wide containers again and again: send it in parts.", limit=WORK_MAX)
        try:
            self._fold.apply((operation,))
        except Invalid as error:
            raise self._misfit(operation.path, error.detail.rstrip(".")) from None
        self._ops.append(operation)

    def _size(self, value: Any) -> int:
        """About the bytes of a value as JSON. A container that stands there several times is measured once, and counts each time."""
        if isinstance(value, str):
            return len(value) + _VALUE_BYTES
        if not isinstance(value, (dict, list)):
            return len(str(value)) if type(value) is int and abs(value) > 1 << 63 else 4 + _VALUE_BYTES
        known = self._sizes.get(id(value))
        if known is None:
            if isinstance(value, dict):
                size = sum(len(name) + 3 + self._size(member) for name, member in dict.items(value))
            else:
                size = sum(map(self._size, list.__iter__(value)))
            known = self._sizes[id(value)] = value, size + _VALUE_BYTES
        return known[1]

    def _require_version(self, path: str) -> bool:
        if not self._on_version:
            raise PreconditionRequired(f"Operation {self._number} of the patch has an index in {path[:80]!r}, which rests on a version.")
        return True

    def _misfit(self, path: str, why: str, **facts: Any) -> Conflict:
        return Conflict(
            f"Operation {self._number} of the patch does not fit the state at {path[:80]!r}: {why}.",
            operation=self._number,
            paths=(path,),
            advice="Nothing was written. Read the session, then decide again.",
            **facts,
        )


def equal(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal as RFC 6902 has it: numbers by their value, objects without order; a boolean is no number."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(member, b[name]) for name, member in dict.items(a))
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(equal, list.__iter__(a), list.__iter__(b)))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return bool(a == b)
