"""A session's long life: what its parts cost. Each part is a module of its own."""

from __future__ import annotations

from _harness import machine, run
from _life_spool import spool
from _life_sweep import sweeping


def main() -> None:
    """Print the table of each part."""
    machine()
    spool()
    sweeping()


if __name__ == "__main__":
    run(main)
