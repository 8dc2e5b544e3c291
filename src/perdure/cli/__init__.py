"""The command `perdure`: a file per command, one way out for errors, exit codes that scripts can use."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any


def main() -> None:
    """Run what the command line says and leave with its exit code (see `perdure.cli.exits`)."""
    from perdure.cli.output.terminal import silence

    status = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        silence(sys.stdout)  # the reader went away, as `head` does, or the device is full
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run one command in this process; its exit code. Every failure goes to stderr as one line, with `--json` as one object."""
    from perdure.cli.exits import BROKEN_PIPE, INTERRUPTED, OK
    from perdure.cli.output.terminal import prepare_streams

    prepare_streams()
    try:
        from perdure.cli.app import app, arrange

        status = app(arrange(arguments), exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except Exception as error:
        if os.environ.get("PERDURE_TRACEBACK"):
            raise
        return _report(error, arguments)
    return status if isinstance(status, int) else OK


def _report(error: Exception, arguments: Sequence[str]) -> int:
    """Say what went wrong; the exit status for it."""
    from cyclopts import CycloptsError

    from perdure.cli.app import arrange
    from perdure.cli.exits import OTHER, USAGE, UsageError, status_of
    from perdure.cli.output.advice import advised, where_help_is, wrong_usage
    from perdure.cli.output.terminal import ErrorRow, say_error, write_error
    from perdure.cli.output.text import json_line, one_line
    from perdure.errors import Error

    json, command = "--json" in arguments, next(iter(arrange(arguments)), None)
    facts: dict[str, Any] = {}
    retryable = False
    match error:
        case CycloptsError() | UsageError():
            code, message, status = "usage", f"{wrong_usage(error)} See `{where_help_is(error, command)}`.", USAGE
        case Error():
            code, message, status, retryable = error.code, advised(error), status_of(error.code), error.retryable
            facts = {name: fact for name, fact in error.facts.items() if _is_plain(fact)}
        case OSError() if error.filename is None:
            code, message, status = "error", f"The output could not be written: {error.strerror or error}.", OTHER
        case _:
            code, status = "error", OTHER
            message = f"{type(error).__name__}: {error}. This is a defect of Perdure: PERDURE_TRACEBACK=1 in the environment shows where."
    if json:
        write_error(json_line(ErrorRow(code, one_line(message), retryable, status, facts)))
    else:
        say_error(code, message)
    return status


def _is_plain(fact: Any) -> bool:
    return isinstance(fact, (str, int, float, type(None))) or (isinstance(fact, (list, tuple)) and all(map(_is_plain, fact)))
