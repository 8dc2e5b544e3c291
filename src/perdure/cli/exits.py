"""Exit codes: one per class of outcome, documented, never given another meaning."""

from __future__ import annotations

from typing import NamedTuple

OK, OTHER, USAGE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141


class UsageError(Exception):
    """The command line asks for something that does not make sense; the message says what would."""


class Exit(NamedTuple):
    """One exit status, the error codes that lead to it, and what a script may conclude."""

    status: int
    codes: tuple[str, ...]
    meaning: str


EXITS = (
    Exit(OK, (), "done, and what was asked about is sound"),
    Exit(OTHER, ("error", "closed"), "something else failed"),
    Exit(USAGE, ("usage",), "the command line is wrong; nothing was opened"),
    Exit(3, ("not_found", "deleted", "moved", "truncated"), "what was asked for is not there, or no longer"),
    Exit(4, ("conflict", "already_exists", "rewound"), "others came first; nothing was written: read again, then decide"),
    Exit(5, ("fenced", "held"), "another worker holds the lease; nothing was written"),
    Exit(6, ("invalid", "too_large"), "the input was refused; nothing was changed"),
    Exit(7, ("corrupt",), "stored bytes are not what was written"),
    Exit(8, ("unavailable", "unknown", "busy"), "the engine did not answer, or others were faster: try again, with the same --key"),
    Exit(9, ("unsupported",), "this engine, build or version cannot do that"),
    Exit(10, ("unauthorized", "quota_exceeded"), "refused for who asks, or for how much"),
    Exit(INTERRUPTED, (), "Ctrl-C"),
    Exit(BROKEN_PIPE, (), "the reader of the output went away"),
)

_STATUS = {code: exit.status for exit in EXITS for code in exit.codes}


def status_of(code: str) -> int:
    """The exit status for an error's code; 1 for one that has no class of its own."""
    return _STATUS.get(code, OTHER)


def table() -> str:
    """The exit codes as `perdure --help` shows them: what each means, or the error codes that lead to it."""
    return "\n".join(f"{exit.status:>3}  {', '.join(exit.codes) or exit.meaning}" for exit in EXITS)
