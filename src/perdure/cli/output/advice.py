"""What to do after an error, in the words of the shell: the library's own advice names arguments that a command line does not have."""

from __future__ import annotations

from cyclopts import CoercionError, CycloptsError, MissingArgumentError, UnusedCliTokensError

from perdure.errors import AlreadyExists, Conflict, Deleted, Error, Invalid, NotFound, Unavailable, Unknown, Unsupported

_PLACE = ": open the store with archive="
"""What the library says to do about commits that are elsewhere."""


def advised(error: Error) -> str:
    """What happened, and what to do next where there is something to do."""
    detail = error.detail
    if not detail:
        return str(error)
    match error:
        case Unsupported() if _PLACE in detail:
            what, _, how = detail.partition(_PLACE)
            dropped = ", or pass --drop" if "drop" in how else ""
            return f"{what}: name it with --archive or PERDURE_ARCHIVE, for a service where its nodes are started{dropped}."
        case Invalid() | Unsupported():
            return detail  # it names what is wrong, and what would be right
        case NotFound():
            return detail + (" `perdure ls` shows which there are; --tenant and --url choose where." if "no session" in detail else "")
        case Deleted():
            return f"{detail} `perdure append --recreate` starts its next life."
        case AlreadyExists():
            return f"{detail} Nothing was written. " + (
                "Leave --expect out to write to it." if "version" in error.facts else "Choose another id."
            )
        case Conflict():
            return f"{detail} Nothing was written. Look at it with `perdure log`, then decide again."
        case Unknown():
            return f"{detail} Run the same command again with its --key; if it had none, look with `perdure log` first."
        case Unavailable():
            return f"{detail} Try again later, or run `perdure doctor` on its URL."
        case _:
            return str(error)


REMEDIES = {
    "invalid": "check --url or PERDURE_URL, and the options in the URL",
    "unavailable": "start the server, or check the host and the port in the URL",
    "unauthorized": "check the user, the password and their rights",
    "not_found": "check --url or PERDURE_URL; the first write makes a store",
    "corrupt": "stop writing and restore the store from a backup",
}
"""What to do about a store that does not open."""
_WANTED = {int: "a whole number", float: "a number"}


def wrong_usage(error: Exception) -> str:
    """What is wrong with a command line."""
    if isinstance(error, CoercionError) and error.token is not None and error.target_type in _WANTED:
        name = error.token.keyword or (error.argument.name.upper() if error.argument is not None else "The argument")
        return f"{name} takes {_WANTED[error.target_type]}, not {error.token.value!r}."
    if isinstance(error, UnusedCliTokensError):
        return f"There is more than the command takes: {' '.join(map(repr, error.unused_tokens or ()))}."
    if isinstance(error, MissingArgumentError) and error.argument is not None and error.command_chain:
        return f"`perdure {' '.join(error.command_chain)}` needs {error.argument.name}."
    return str(error).strip()


def where_help_is(error: Exception, command: str | None) -> str:
    """The help that says how the command is written. `command` is the one that was called, if it began."""
    chain = (error.command_chain or ()) if isinstance(error, CycloptsError) else (command,) if command else ()
    return " ".join(["perdure", *chain, "--help"])
