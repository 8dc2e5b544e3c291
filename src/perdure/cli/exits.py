"""Exit codes by kind of error: stable, so that scripts can rely on them."""

from __future__ import annotations

from perdure.errors import Error

OK, OTHER, USAGE = 0, 1, 2
BY_CODE = {
    "not_found": 3,
    "deleted": 3,
    "truncated": 3,
    "conflict": 4,
    "already_exists": 4,
    "rewound": 4,
    "fenced": 5,
    "invalid": 6,
    "too_large": 6,
    "unsupported": 6,
    "corrupt": 7,
    "unavailable": 8,
    "unknown": 8,
    "moved": 8,
    "unauthorized": 9,
    "quota_exceeded": 9,
}
"""Exit code by an error's `code`; 1 is everything else, 2 a command line that makes no sense, 130 an interrupt."""


def exit_code(error: Error) -> int:
    """The exit code of an error."""
    return BY_CODE.get(error.code, OTHER)
