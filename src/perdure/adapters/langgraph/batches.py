"""Checks of a whole batch of LangGraph's store before any of it is carried out; and the texts of a value, for vectors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

import msgspec
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchOp,
    get_text_at_path,
)

from perdure.adapters.langgraph.filters import check_filter
from perdure.errors import Error, Invalid


class PartlyStored(Error):
    """A batch over several namespaces was stored in part, for each namespace is a session of its own. Send the whole batch again.

    Facts: `stored`, the namespaces whose puts were stored.
    """

    code, retryable, http_status = "partly_stored", True, 500


def checked(ops: Iterable[Op]) -> list[Op]:
    """The operations of a batch. Raises `Invalid`, or the framework's error for a namespace, if one of them is malformed."""
    todo = list(ops)
    for one in todo:
        if isinstance(one, (GetOp, PutOp)):
            _check_namespace(one.namespace)
            if not isinstance(one.key, str):
                raise Invalid(f"The key of an item must be a string, not {type(one.key).__name__}.")
            if isinstance(one, PutOp):
                _check_put(one)
        elif isinstance(one, SearchOp):
            _check_namespace(one.namespace_prefix)
            _check_page(one.limit, one.offset)
            check_filter(one.filter)
        elif isinstance(one, ListNamespacesOp):
            _check_page(one.limit, one.offset)
            _check_listing(one)
        else:
            raise Invalid(f"A batch holds the framework's operations, not {type(one).__name__}.")
    return todo


def _check_namespace(namespace: Sequence[Any]) -> None:
    if not isinstance(namespace, (tuple, list)):
        raise InvalidNamespaceError(f"A namespace is a tuple of labels, not {namespace!r:.200}.")
    if not all(isinstance(label, str) and label and "." not in label for label in namespace):
        raise InvalidNamespaceError(f"Labels of a namespace are strings that are not empty and have no '.': {namespace!r:.200}.")


def _check_put(put: PutOp) -> None:
    where = f"Item {put.key!r:.100} of {'.'.join(put.namespace)}"
    if not put.namespace:
        raise InvalidNamespaceError("An item needs a namespace with at least one label.")
    if put.value is None:
        return
    if not isinstance(put.value, Mapping):
        raise Invalid(f"{where} must be a dict, not {type(put.value).__name__}.")
    if not (put.index is None or put.index is False or _are_strings(put.index)):
        raise Invalid(f"{where}: index must be False or a list of field paths, not {put.index!r:.100}.")
    if put.ttl is not None and not _is_number(put.ttl):
        raise Invalid(f"{where}: ttl must be a finite number of minutes, or None for an item that does not expire; it is {put.ttl!r:.100}.")


def _are_strings(paths: Any) -> bool:
    return isinstance(paths, (list, tuple)) and all(isinstance(path, str) for path in paths)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _check_page(limit: Any, offset: Any) -> None:
    for name, value in (("limit", limit), ("offset", offset)):
        if type(value) is not int or value < 0:
            raise Invalid(f"{name} must be an integer from 0, not {value!r:.100}.")


def _check_listing(listing: ListNamespacesOp) -> None:
    if listing.max_depth is not None and (type(listing.max_depth) is not int or listing.max_depth < 1):
        raise Invalid(f"max_depth must be an integer from 1, or None, not {listing.max_depth!r:.100}.")
    for condition in listing.match_conditions or ():
        if not isinstance(condition, MatchCondition) or condition.match_type not in ("prefix", "suffix"):
            raise Invalid(f"A match condition is a prefix or a suffix, not {condition!r:.200}.")
        _check_namespace(condition.path)


def texts_of(value: Mapping[str, Any], paths: Sequence[str | list[str]]) -> list[str]:
    """The texts of a value that vectors are made of, in the framework's way. A value that JSON cannot hold counts as its text."""
    try:
        plain = _readable(dict(value))
    except RecursionError:
        raise Invalid("An item holds too many containers inside one another, or itself.") from None
    return [text for path in paths for text in get_text_at_path(plain, path)]


def _readable(value: Any) -> Any:
    try:
        json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        try:
            return msgspec.to_builtins(value, str_keys=True, enc_hook=_fields)
        except (TypeError, ValueError):
            return {str(key): _readable(item) if isinstance(item, dict) else str(item) for key, item in value.items()}
    return value


def _fields(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return str(value) if dump is None else dump()
