"""From one schema to the next: one transaction, so that a kill at any point leaves the old schema or the new one."""

from __future__ import annotations

import apsw

from perdure.backends.common.schema import check_migration
from perdure.backends.spi import Progress
from perdure.backends.sqlite.schema import errors, read_header, read_min_writer
from perdure.errors import Corrupt

_TO_2 = (
    ("times that are due", "ALTER TABLE session ADD COLUMN due_at INTEGER"),
    ("control cells", "ALTER TABLE session ADD COLUMN control BLOB NOT NULL DEFAULT x''"),
    ("sizes", "ALTER TABLE session ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0"),
    ("the index of what is due", "CREATE INDEX session_due ON session (due_at, tenant, id) WHERE due_at IS NOT NULL"),
)
_STEPS = {1: _TO_2}
"""By the schema that they start from: what each adds, and the statement."""
_REQUIRE = "INSERT INTO store (name, value) VALUES ('min_writer', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"


def migrate(connection: apsw.Connection, path: str, from_version: int, progress: Progress) -> None:
    """See `spi.Versioned.migrate`. Raises `Unavailable` where another process holds the file's lock for longer than `busy_timeout`."""
    check_migration(from_version)
    steps = _STEPS[from_version]
    with errors(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            header = read_header(connection, path)
            if header is None:
                raise Corrupt(f"{path} lost its schema while it was open.")
            if header.schema == from_version:
                for number, (what, statement) in enumerate(steps):
                    progress(what, number, len(steps))
                    connection.execute(statement)
                raise_min_writer(connection, path, from_version + 1)
                connection.pragma("user_version", from_version + 1)
                progress("writing it down", len(steps), len(steps))
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def raise_min_writer(connection: apsw.Connection, path: str, version: int) -> None:
    """Require this writer version, or a newer one that is required already. Inside a transaction."""
    if version > (read_min_writer(connection, path) or 1):
        connection.execute(_REQUIRE, (str(version),))
