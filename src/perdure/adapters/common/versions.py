"""A check, when an adapter is imported, that the framework is installed in a version that the adapter was made for."""

from __future__ import annotations

import re
from importlib import metadata

from perdure.config import install
from perdure.errors import Unsupported


def require(package: str, low: str, high: str, extra: str) -> None:
    """Raise `Unsupported` unless `package` is installed in a version with `low <= version < high`, naming the line that installs it."""
    advice = install(extra)
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        raise Unsupported(f"This adapter needs {package}>={low},<{high}, which is not installed: {advice}.") from None
    if not _numbers(low) <= _numbers(version) < _numbers(high):
        raise Unsupported(f"This adapter works with {package}>={low},<{high}, and {version} is installed: {advice}.")


def _numbers(version: str) -> tuple[int, ...]:
    """The release as numbers, without zeros at its end: pre-releases count as their release."""
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
