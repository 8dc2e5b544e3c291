"""The command line: one file a command, one table of exit codes, the same rows for people and machines."""

from __future__ import annotations

import sys

from cyclopts import App, CycloptsError

from perdure.cli.exits import BY_CODE, OK, OTHER, USAGE, exit_code
from perdure.errors import Error


def make_app() -> App:
    """The program with all its commands."""
    from perdure import __version__
    from perdure.cli.append import append
    from perdure.cli.bench import bench
    from perdure.cli.diff import diff
    from perdure.cli.doctor import doctor
    from perdure.cli.fork import fork
    from perdure.cli.log import log
    from perdure.cli.ls import ls
    from perdure.cli.show import show
    from perdure.cli.tour import tour
    from perdure.cli.verify import verify

    app = App(name="perdure", version=__version__, help="Session state for long-running agents.\n\n" + _exits())
    for command in (tour, ls, show, log, diff, append, fork, verify, doctor, bench):
        app.command(command)
    app.register_install_completion_command()
    return app


def _exits() -> str:
    codes: dict[int, list[str]] = {}
    for name, code in BY_CODE.items():
        codes.setdefault(code, []).append(name)
    words = [f"{code} {', '.join(names)}" for code, names in sorted(codes.items())]
    return f"Exit codes: {OK} done, {OTHER} another error, {USAGE} wrong usage, {'; '.join(words)}, 130 interrupted."


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code. Errors go to standard error, a sentence each, without a traceback."""
    try:
        result = make_app()(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        print(f"perdure: usage: {error}", file=sys.stderr)
        return USAGE
    except Error as error:
        print(f"perdure: {error.code}: {error}", file=sys.stderr)
        return exit_code(error)
    except BrokenPipeError:
        sys.stderr.close()
        return OK
    except KeyboardInterrupt:
        return 130
    return result if isinstance(result, int) else OK
