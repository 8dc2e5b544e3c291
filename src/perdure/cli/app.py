"""The program: its commands, its help, its version."""

from __future__ import annotations

from typing import Literal

from cyclopts import App

import perdure
from perdure.cli import append, bench, diff, doctor, fork, import_, log, ls, show, tour, verify, watch
from perdure.cli.exits import table
from perdure.cli.terminal import make_console

app = App(
    name="perdure",
    help="Session state for long-running agents, from the shell.",
    help_epilogue=f"Exit codes, by the code of the error:\n\n{table()}",
    help_format="plaintext",
    version=perdure.__version__,
    console=make_console(),
)
for command in (
    tour.tour, ls.ls, show.show, log.log, watch.watch, diff.diff, append.append, fork.fork, verify.verify, doctor.doctor, bench.bench,
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
