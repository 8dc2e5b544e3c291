"""Pydantic's values as JSON that can be stored, and back: exactly, or `Invalid` says why not.

Left to itself, pydantic writes U+FFFD in place of lone surrogates in keys, raises errors of several kinds for what JSON cannot say, and
only warns of a field that holds what its type forbids, which cannot be read later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter

from perdure.adapters.common.surrogates import escape, is_plain, unescape
from perdure.errors import Invalid

T = TypeVar("T")

FAILURES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What serializers and validators raise for a value that they cannot handle. Pydantic's own errors are ValueErrors."""
_REPLACED = "\ufffd\ufffd\ufffd"
"""What pydantic makes of a lone surrogate in a key."""


def model_json(model: BaseModel, what: str, **options: Any) -> dict[str, Any]:
    """The model as JSON, its text escaped (see `surrogates`); `options` as for `model_dump`. Raises `Invalid`."""
    if not isinstance(model, BaseModel):
        raise Invalid(f"{what} is a pydantic model, not {type(model).__name__}.")
    data: dict[str, Any] = _json(
        what, lambda: model.model_dump(mode="json", warnings="error", **options), lambda: _escaped(model).model_dump(mode="json", **options)
    )
    return data


def adapter_json(adapter: TypeAdapter[T], value: T, what: str, **options: Any) -> Any:
    """The value as JSON, its text escaped; `options` as for `TypeAdapter.dump_python`. Raises `Invalid`."""

    def escaped() -> Any:
        again = adapter.validate_python(escape(adapter.dump_python(value, warnings=False)))
        return adapter.dump_python(again, mode="json", **options)

    return _json(what, lambda: adapter.dump_python(value, mode="json", warnings="error", **options), escaped)


def adapter_value(adapter: TypeAdapter[T], load: Callable[[], T], data: Any) -> T:
    """What `load` makes of stored JSON, with the text that was escaped in it. Raises as `load` does."""
    value = load()
    return value if is_plain(data) else adapter.validate_python(unescape(adapter.dump_python(value)))


def _escaped(model: BaseModel) -> BaseModel:
    return type(model).model_validate(escape(model.model_dump(warnings=False)))


def _json(what: str, dump: Callable[[], Any], escaped: Callable[[], Any]) -> Any:
    try:
        data = dump()
    except FAILURES:
        pass
    else:
        if is_plain(data, also=_REPLACED):
            return data
    try:
        return escaped()
    except FAILURES as error:
        raise Invalid(f"{what} cannot be stored as JSON: {error!s:.2000}.") from error
