"""The command `perdure`: a file per command, one way out for errors, exit codes that scripts can use."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main() -> None:
    """Run what the command line says and leave with its exit code (see `perdure.cli.exits`)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command in this process; its exit code. Errors of Perdure and of usage go to stderr as one line each."""
    from cyclopts import CycloptsError

    from perdure.cli.app import app
    from perdure.cli.exits import BROKEN_PIPE, INTERRUPTED, OK, USAGE, UsageError, status_of
    from perdure.cli.terminal import say_error
    from perdure.errors import Error

    try:
        status = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except (CycloptsError, UsageError) as error:
        say_error("usage", f"{str(error).strip()} See `perdure --help`.")
        return USAGE
    except Error as error:
        say_error(error.code, str(error))
        return status_of(error.code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader went away, as `head` does. The interpreter flushes stdout once more at its end: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return status if isinstance(status, int) else OK
