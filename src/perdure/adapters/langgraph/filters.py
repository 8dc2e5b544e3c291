"""Which items a search's filter chooses: as in the framework's stores where they agree; unknown operators are refused."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from perdure.errors import Invalid

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "$eq": operator.eq,
    "$ne": operator.ne,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


class InvalidFilter(Invalid, ValueError):
    """A search's filter names fields, with a value or operators for each; nothing was searched. Correct it and call again.

    A `ValueError` as well, which the framework's stores raise for an operator that they do not know.
    """


def check_filter(wanted: Any) -> None:
    """Raise `InvalidFilter` for what is no filter, and for unknown operators: an empty result would look like an answer."""
    if wanted is None:
        return
    if not isinstance(wanted, Mapping):
        raise InvalidFilter(f"A filter is a dict, not {type(wanted).__name__}.")
    for name, value in wanted.items():
        if not isinstance(name, str):
            raise InvalidFilter(f"A filter's fields are strings, not {name!r:.100}.")
        if name.startswith("$"):
            raise InvalidFilter(
                f"There is no filter operator {name!r:.100} over fields: all its fields must match. Search once for each alternative."
            )
        _check_value(value)


def _check_value(wanted: Any) -> None:
    if isinstance(wanted, dict):
        operators = any(isinstance(name, str) and name.startswith("$") for name in wanted)
        for name, value in wanted.items():
            if operators and name not in _COMPARE:
                raise InvalidFilter(f"There is no filter operator {name!r:.100}; there are {', '.join(_COMPARE)}.")
            if not operators:
                _check_value(value)
    elif isinstance(wanted, (list, tuple)):
        for value in wanted:
            _check_value(value)


def chosen(item: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    """Whether an item's value passes a search's filter. A name with periods that is no member leads through nested ones."""
    return all(matches(_member(item, name), value) for name, value in (wanted or {}).items())


def matches(value: Any, wanted: Any) -> bool:
    """Whether a value is what a filter asks for: equal, or each operator of {"$gt": 1} holds, or each member of a nested filter does.

    A missing member counts as `None`. A bool is no number.
    """
    if isinstance(wanted, (list, tuple)):
        return isinstance(value, (list, tuple)) and len(value) == len(wanted) and all(map(matches, value, wanted))
    if not isinstance(wanted, dict):
        return isinstance(value, bool) == isinstance(wanted, bool) and _holds(operator.eq, value, wanted)
    if not any(isinstance(name, str) and name.startswith("$") for name in wanted):
        return isinstance(value, dict) and all(matches(value.get(name), inner) for name, inner in wanted.items())
    return all(_holds(_COMPARE[name], value, operand) for name, operand in wanted.items())


def _holds(compare: Callable[[Any, Any], Any], value: Any, operand: Any) -> bool:
    try:
        return bool(compare(value, operand))
    except TypeError:
        return False
    except ValueError:
        raise InvalidFilter(f"Values of type {type(value).__name__} and {type(operand).__name__} cannot be compared.") from None


def _member(item: Any, name: str) -> Any:
    while isinstance(item, dict):
        if name in item:
            return item[name]
        first, _, name = name.partition(".")
        item = item.get(first) if name else None
    return None
