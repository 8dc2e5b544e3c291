"""The program: its commands, its help, its version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cyclopts import App

import perdure
from perdure.cli.commands import (
    append,
    archive,
    bench,
    changes,
    configure,
    consumers,
    delete,
    diff,
    doctor,
    due,
    find,
    fork,
    import_,
    lease,
    log,
    ls,
    merge,
    messages,
    purge,
    serve,
    show,
    spool,
    sweep,
    tag,
    tokens,
    tour,
    upgrade,
    verify,
    watch,
)
from perdure.cli.exits import table
from perdure.cli.output.terminal import make_console

VALUES, FLAGS = ("--url", "--tenant", "--archive"), ("--json", "--no-json", "--quiet", "-q")
"""The common options, with a value and without."""

app = App(
    name="perdure",
    help="Session state for long-running agents, from the shell.",
    help_epilogue=f"Exit codes, by the code of the error:\n\n{table()}",
    help_format="plaintext",
    version=perdure.__version__,
    version_flags=["--version", "-V"],
    console=make_console(),
)
for command in (
    tour.tour, ls.ls, show.show, log.log, messages.messages, watch.watch, changes.changes, diff.diff, append.append, find.find, tag.tag,
    configure.configure, due.due, sweep.sweep, fork.fork, merge.merge, delete.delete, purge.purge, archive.archive, archive.restore,
    lease.leases, lease.lease, verify.verify, consumers.consumers, spool.spool, serve.serve, tokens.tokens,
    doctor.doctor, upgrade.upgrade, bench.bench,
):  # fmt: skip
    app.command(command, help_epilogue="")
app.command(import_.import_, name="import", help_epilogue="")


@app.command(help_epilogue="")
def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the shell completion: `eval "$(perdure completion bash)"`.

    Parameters
    ----------
    shell
        For which shell.
    """
    print(app.generate_completion(prog_name="perdure", shell=shell))


def arrange(arguments: Sequence[str]) -> list[str]:
    """The arguments with the common options that stand before the command moved to just after it."""
    before: list[str] = []
    rest = list(arguments)
    while rest:
        name, equals, _ = rest[0].partition("=")
        if name in FLAGS or (name in VALUES and equals):
            before.append(rest.pop(0))
        elif name in VALUES and len(rest) > 1:
            before += [rest.pop(0), rest.pop(0)]
        else:
            break
    return [*rest[:1], *before, *rest[1:]]
