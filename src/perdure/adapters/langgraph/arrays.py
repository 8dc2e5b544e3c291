"""Numpy's arrays and numbers as JSON. Numpy is imported here only to read an array.

{"$": "numpy.array", "dtype": "<f8", "shape": [2, 3], "base64": …}      with "order": "F" and "readonly": true where it is so
{"$": "numpy.number", "dtype": "<i8", "value": 5}                       in base64 what JSON cannot say exactly
"""

from __future__ import annotations

import base64
import sys
from math import isfinite, prod
from typing import Any

from perdure.adapters.langgraph.messages import TAG
from perdure.adapters.langgraph.refusals import would_lose

ARRAY, NUMBER = "numpy.array", "numpy.number"
_PLAIN = "biufcmMSU"
"""The kinds of dtypes whose bytes hold the whole value."""


def encode(value: Any) -> dict[str, Any] | None:
    """An array or a number as JSON; `None` if the value is neither. Raises `Refused` for a value that its bytes do not hold."""
    numpy = sys.modules.get("numpy")
    kind = type(value)
    if numpy is None or not hasattr(numpy, "ndarray") or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return None
    dtype = value.dtype
    if dtype.kind not in _PLAIN or dtype.metadata:
        raise would_lose(kind, f"its dtype {dtype!s:.60} is more than the bytes of numbers")
    if isinstance(value, numpy.generic):
        if numpy.dtype(dtype.str).type is not kind:
            raise would_lose(kind, f"it would become a {numpy.dtype(dtype.str).type.__name__}")
        if dtype.kind == "b" or dtype.kind in "iu" or (dtype.kind == "f" and dtype.itemsize <= 8 and isfinite(value)):
            return {TAG: NUMBER, "dtype": dtype.str, "value": value.item()}
        return {TAG: NUMBER, "dtype": dtype.str, "base64": _text(value.tobytes())}
    if kind is not numpy.ndarray:
        raise would_lose(kind, "it would become a plain array")
    encoded = {TAG: ARRAY, "dtype": dtype.str, "shape": list(value.shape)}
    if value.flags.f_contiguous and not value.flags.c_contiguous:
        encoded["order"] = "F"
    if not value.flags.writeable:
        encoded["readonly"] = True
    return encoded | {"base64": _text(value.tobytes(order="F" if "order" in encoded else "C"))}


def decode(stored: dict[str, Any]) -> Any:
    """The array or number. Raises `ValueError` or `TypeError` for what `encode` never writes."""
    dtype, numpy = _dtype(stored["dtype"])
    if stored[TAG] == NUMBER:
        if "value" in stored:
            return dtype.type(stored["value"]) if dtype.isnative else numpy.array([stored["value"]], dtype)[0]
        return numpy.frombuffer(base64.b64decode(stored["base64"], validate=True), dtype, 1)[0]
    made = array(dtype.str, stored["shape"], stored.get("order", "C"), base64.b64decode(stored["base64"], validate=True))
    if stored.get("readonly"):
        made.flags.writeable = False
    return made


def array(dtype: str, shape: Any, order: str, data: bytes) -> Any:
    """An array with memory of its own, which can be written."""
    kind, numpy = _dtype(dtype)
    count = prod(shape)
    if count * kind.itemsize != len(data):
        raise ValueError(f"an array of shape {list(shape)!s:.60} has not {len(data)} bytes")
    flat = numpy.frombuffer(bytearray(data), kind) if data else numpy.zeros(count, kind)
    return flat.reshape(tuple(shape), order=order)


def _dtype(text: str) -> tuple[Any, Any]:
    import numpy as np

    kind = np.dtype(text)
    if kind.kind not in _PLAIN:
        raise ValueError(f"{text:.60} is no dtype of numbers")
    return kind, np


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
