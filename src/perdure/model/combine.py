"""The table of how two operations on one state combine, as data: the rebase looks answers up in it, the documentation prints it.

Rows are about operations as they act, so that nine kinds become eight: `merge` stands for the sets and removes of its leaves, and what
acts on an element's place in its list (removing it, setting `-`) stands for the `splice` or `append` that it is.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Combine(StrEnum):
    """How mine combines with theirs, theirs being committed already."""

    commutes = "commutes"
    """Equal either way round."""
    ordered = "ordered"
    """Both survive; theirs comes first, and the other order would have given another result."""
    conflict = "conflict"
    """One would undo the other: a person or a policy decides."""


class Rule(NamedTuple):
    """One line of the table: any of `mine` with any of `theirs` in any of `relations`; with the sides swapped too, unless `one_way`."""

    mine: tuple[str, ...]
    theirs: tuple[str, ...]
    relations: tuple[str, ...]
    answer: Combine
    reason: str
    one_way: bool = False


class Row(NamedTuple):
    """One line of the table as it is printed."""

    mine: str
    theirs: str
    relation: str
    answer: str
    reason: str


RELATIONS = {
    "disjoint": "neither path leads through the other's target",
    "equal": "one target, and either order leaves the same there; for a test: it still holds",
    "taken": "one target, which both sides take out or overwrite alike, and one of them keeps what was there",
    "same": "one target, and the order matters",
    "kept": "the target of init was there already, and is not taken away",
    "above": "my target contains theirs",
    "below": "my target lies in theirs",
    "apart": "other places of one list, one of them perhaps inside an element",
    "adjacent": "new elements at one place of a list, or of equal value in a union",
    "overlap": "elements of a list that one side takes out, or relies on, and the other touches",
}
"""How the targets of two operations lie to each other."""

_PUT = ("set", "remove", "init")
_LIST = ("append", "splice", "union")
_WRITE = (*_PUT, *_LIST, "add")
_TEST = ("test",)
_ALL = (*_WRITE, *_TEST)
_ANYHOW = ("equal", "taken", "same", "kept", "above", "below", "apart", "adjacent", "overlap")
_YES, _IN_ORDER, _NO = Combine.commutes, Combine.ordered, Combine.conflict

RULES = (
    Rule(_ALL, _ALL, ("disjoint",), _YES, "They touch different places."),
    Rule(_TEST, _TEST, _ANYHOW, _YES, "A test changes nothing."),
    Rule(_TEST, _WRITE, ("equal", "apart"), _YES, "What I tested still holds.", one_way=True),
    Rule(_TEST, _WRITE, ("same", "above", "below", "overlap"), _NO, "What I tested no longer holds.", one_way=True),
    Rule(_WRITE, _TEST, _ANYHOW, _IN_ORDER, "Their test was decided before I write.", one_way=True),
    Rule((*_PUT, "add"), _WRITE, ("above",), _NO, "One replaces or removes what the other changes a part of."),
    Rule(("set",), ("set", "init"), ("equal",), _YES, "Both put the same value."),
    Rule(("init",), ("init",), ("equal",), _YES, "Both put the same value."),
    Rule(("set",), ("set", "init"), ("same",), _NO, "Each puts another value."),
    Rule(("init",), ("init",), ("same",), _NO, "Each puts another value."),
    Rule(("remove",), ("remove",), ("equal",), _YES, "Gone is gone."),
    Rule(("remove",), ("remove",), ("taken",), _NO, "One keeps what the other takes out too: only one can have it."),
    Rule(("set",), ("set", "init"), ("taken",), _NO, "One keeps what both overwrite: only one can have it."),
    Rule(("remove",), ("set", "init"), ("same",), _NO, "One takes away what the other puts or relies on."),
    Rule(("init",), _WRITE, ("kept",), _YES, "The target was there, so init changes nothing."),
    Rule(("init",), ("append", "union", "add"), ("equal",), _YES, "init puts the empty list or the zero that the other starts from."),
    Rule(_PUT, (*_LIST, "add"), ("same",), _NO, "One replaces or removes what the other builds on."),
    Rule(("add",), _LIST, ("same",), _NO, "One value cannot be both a number and a list."),
    Rule(("add",), ("add",), ("equal",), _YES, "Sums of integers are exact."),
    Rule(("add",), ("add",), ("same",), _IN_ORDER, "Sums of floats are rounded, so their order shows."),
    Rule(_LIST, _WRITE, ("apart",), _YES, "Indices after the change shift."),
    Rule(_LIST, _LIST, ("adjacent",), _IN_ORDER, "Both sides' elements stay, theirs in front; a union does not repeat what is there."),
    Rule(("union",), _WRITE, ("adjacent",), _IN_ORDER, "The change may make an element equal to one that the union would add."),
    Rule(("splice",), ("splice",), ("equal",), _YES, "Both take out the same elements and put none in."),
    Rule(("splice",), ("splice",), ("taken",), _NO, "One keeps elements that the other takes out too: only one can have them."),
    Rule(("union",), ("union",), ("equal",), _YES, "Either order gives the same list."),
    Rule(_LIST, _WRITE, ("overlap",), _NO, "One touches elements that the other takes out or relies on."),
)
"""The table as written. `TABLE` is the same, expanded; where two rules name one cell they agree."""

_MIRROR = {"above": "below", "below": "above"}


def _expand() -> dict[tuple[str, str, str], Combine]:
    table: dict[tuple[str, str, str], Combine] = {}
    for rule in RULES:
        for mine in rule.mine:
            for theirs in rule.theirs:
                for relation in rule.relations:
                    table[mine, theirs, relation] = rule.answer
                    if not rule.one_way:
                        table[theirs, mine, _MIRROR.get(relation, relation)] = rule.answer
    return table


TABLE = _expand()
"""(my kind, their kind, relation of the targets) → how they combine. A missing cell cannot occur."""


def describe() -> tuple[Row, ...]:
    """The table as lines to print, each with its reason."""
    return tuple(
        Row(" / ".join(rule.mine), " / ".join(rule.theirs), " / ".join(rule.relations), rule.answer.value, rule.reason) for rule in RULES
    )
