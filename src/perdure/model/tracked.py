"""What was done to a draft's state, as operations: the calls that were seen, and the comparison that finds the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from perdure.errors import Invalid
from perdure.model.containers import TrackedDict, TrackedList, origin, track
from perdure.model.diff import compare
from perdure.model.identity import NamedFold, Names, Note
from perdure.model.in_place import InPlace
from perdure.model.moves import mark
from perdure.model.ops import Op, remake, taking
from perdure.model.pairs import Pairs
from perdure.model.pointer import PATH_TOKENS_MAX
from perdure.model.state import MISSING, TestFailed, apply, lookup
from perdure.model.values import DEPTH_MAX, FrozenDict, FrozenList, check, freeze, same, thaw

__all__ = ["TrackedDict", "TrackedList", "Tracker"]


class Tracker:
    """Follows what happens to one state. In Python it costs what changes; a container that is touched is copied and compared in C.

    Until somebody asks for the state, operations cost what they cost in a fold: one copy of each container on their paths.
    """

    def __init__(self, base: Any) -> None:
        """`base` is frozen already, or it is copied whole. It never changes."""
        self.names = Names(origin)
        self.handed: dict[int, Any] = {}
        self._base = freeze(base)
        self._root: Any = None
        self._unseen: NamedFold | None = NamedFold(self._base, self.names)
        """What was done while nobody has seen the state: then no container is handed out, and there is nothing to compare."""
        self._doing = InPlace()
        self._noted: list[Note] = []
        self.after = self._base
        """What `ops` led to, when they were last asked for. It is frozen, and shares with the base what is untouched."""

    @property
    def root(self) -> Any:
        """The state as the user sees and changes it."""
        if self._unseen is not None:
            self._unseen, self._root = None, track(self._base, self)
            for note in self._noted:
                self._root = self._doing.do(self._root, note.op)
        return self._root

    def replace(self, value: Any) -> None:
        """Make `value` the whole document: what differs is found at commit, so it may still be changed until then."""
        self._unseen, self._root = None, value

    def note(self, note: Note) -> None:
        """Take down an operation that was done to what the user sees."""
        self._noted.append(note)

    def do(self, op: Op) -> None:
        """Perform an operation on what the user sees, and keep it as it is.

        Raises `Invalid` if it does not fit and `TestFailed` if it is a test that does not hold; then nothing changed.
        """
        op = remake(op, op.path, self.names.freeze(op.value))
        if self._unseen is not None:
            self._unseen.apply((op,))
        else:
            self._root = self._doing.do(self._root, op)
        self._noted.append(Note(op, explicit=True))

    def ops(self) -> tuple[Op, ...]:
        """The operations that make the base into what the user sees now; none if that is the base.

        What was noted comes first, in its order, then what only the comparison found. Tests are kept if there is anything else.
        Raises `Invalid`, naming the place, for a value that JSON cannot say.
        """
        noted = tidy(self._noted)
        notes = self._explain(noted)
        if notes is None:
            notes = self._explain([note for note in noted if note.op.kind == "test" and _holds(self._base, note.op)])
        if notes is None:
            raise AssertionError("The difference of two states does not lead from one to the other.")
        changes = [note.op for note in notes if note.op.kind != "test"]
        if not changes or (noted and _unchanged(self._base, self.after, changes[-1].path)):
            self.after = self._base
            return ()
        ops = tuple([remake(note.op, note.op.path, thaw(note.op.value)) for note in mark(notes, self._root, self.names, self.handed)])
        for op in ops:
            check(op.value, what="the state", at=op.path)
        return ops

    def close(self) -> None:
        """Forget the containers that the user holds; they note nothing from now on. They refer to one another, so wide ones would otherwise
        stay in memory until the next garbage collection."""
        for container in self.handed.values():
            container._up = None
        self.handed.clear()
        self._noted.clear()
        self._root, self._unseen, self._doing, self.names = None, None, InPlace(), Names(origin)

    def _explain(self, noted: list[Note]) -> list[Note] | None:
        """What was noted and the rest, or None if what was noted does not lead here."""
        if self._unseen is not None and len(noted) == len(self._noted):
            self.after = self._unseen.state
            return noted
        fold = NamedFold(self._base, self.names)
        if not _fits(fold, noted):
            return None
        pairs = Pairs()
        state = self.after = fold.state
        if self._unseen is not None:
            return noted
        # Paths may lead as deep as values may nest, and there a value may stand: below both nothing was stored before.
        pairs.check(state, self._root, what="the state", depth=PATH_TOKENS_MAX + DEPTH_MAX, trust=(FrozenDict, FrozenList))
        rest = compare(state, self._root, "", self.names, pairs)
        if not rest:
            return noted
        if not _fits(fold, rest):
            return None
        self.after = fold.state
        return [*noted, *rest] if same(self.after, self._root) else None


def _fits(fold: NamedFold, notes: Iterable[Note]) -> bool:
    try:
        return all(map(fold.note, notes))
    except (Invalid, TestFailed):
        return False


def _unchanged(base: Any, after: Any, path: str) -> bool:
    """Whether two states are the same, of which the operation at `path` made the second: there a difference shows first."""
    return same(_at(base, path), _at(after, path)) and same(base, after)


def _at(state: Any, path: str) -> Any:
    try:
        return lookup(state, path)
    except KeyError:
        return MISSING


def _holds(state: Any, op: Op) -> bool:
    try:
        apply(state, (op,))
    except (Invalid, TestFailed):
        return False
    return True


def tidy(notes: Iterable[Note]) -> list[Note]:
    """The same change in fewer operations: what was put into one list in a row, or taken out of it, becomes one operation, and a value
    that is set again before it is used is left out."""
    made: list[Note | None] = []
    joined = False
    last_set: dict[str, int] = {}
    used: dict[str, int] = {}
    moved: dict[str, int] = {}
    for note in notes:
        op, last = note.op, made[-1] if made else None
        after_last = op.path.endswith("/-")  # Names another place each time.
        if last is not None and last.op.path == op.path and not after_last and (more := _joined(last, note, own=joined)) is not None:
            made[-1], joined = more, True
            continue
        joined = False
        number, above = len(made), _ancestors(op.path)
        before = last_set.pop(op.path, -1)
        if op.kind == "set" and not after_last:
            dropped = made[before] if before >= 0 else None
            if dropped is not None and used.get(op.path, -1) < before and all(moved.get(path, -1) < before for path in above):
                made[before] = None
                made.append(replace(note, gone=(*dropped.gone, *note.gone), op=taking(op) if dropped.op.taken else op))
            else:
                made.append(note)
            last_set[op.path] = number
        else:
            used[op.path] = moved[op.path] = number
            if op.kind == "remove" and above:
                moved[above[0]] = number
            made.append(note)
        for path in above:
            used[path] = number
    return [note for note in made if note is not None]


def _joined(last: Note, note: Note, *, own: bool) -> Note | None:
    """Two notes on one list as one, or None. What `last` holds is changed if it is our own."""
    op, before = note.op, last.op
    if op.kind == before.kind == "append":
        if not own:
            last = replace(last, op=Op("append", op.path, list(before.value)))
        last.op.value.extend(op.value)
        return last
    if not op.kind == before.kind == "splice" or op.taken is not before.taken or note.explicit or last.explicit:
        return None
    (first, out, items), (index, more, put) = before.value, op.value
    if not out and not more and first <= index <= first + len(items):
        value = before.value if own else [first, 0, list(items)]
        value[2][index - first : index - first] = put
        return last if own else replace(last, op=remake(op, op.path, value))
    # Removals that take nothing stay single: each of them combines with the same removal by others.
    if not op.taken or items or put or index not in (first, first - more):
        return None
    gone = last.gone if own and isinstance(last.gone, list) else list(last.gone)
    place = len(gone) if index == first else 0
    gone[place:place] = note.gone
    return replace(last, op=remake(op, op.path, [index, out + more, []]), gone=gone)


def _ancestors(path: str) -> list[str]:
    """The pointers above a pointer, nearest first."""
    above: list[str] = []
    while path:
        path = path.rpartition("/")[0]
        above.append(path)
    return above
