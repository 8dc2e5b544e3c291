"""A session's long life: what its parts cost. Each part is a module of its own."""

from __future__ import annotations

from _harness import machine, run
from _life_archive import archive
from _life_leases import leases
from _life_reads import reads
from _life_spool import spool
from _life_sweep import sweeping


def main() -> None:
    """Print the table of each part."""
    machine()
    reads()
    leases()
    spool()
    archive()
    sweeping()


if __name__ == "__main__":
    run(main)
