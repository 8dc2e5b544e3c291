"""From one schema to the next: one transaction, so that a kill at any point leaves the old schema or the new one."""

from __future__ import annotations

from perdure.backends.postgresql.connections import Connections
from perdure.backends.spi import Progress
from perdure.errors import Busy

LOCK = 0x70657264
"""The advisory lock under which a schema is made, and upgraded."""
LOCK_SECONDS = 10
"""How long an upgrade waits for those that use the tables."""

_CELLS = (
    "ALTER TABLE {ns}.session ADD COLUMN due_at bigint, ADD COLUMN control bytea NOT NULL DEFAULT '',"
    " ADD COLUMN size_bytes bigint NOT NULL DEFAULT 0"
)
_TO_2 = (
    ("times that are due, control cells and sizes", _CELLS),
    ("the index of what is due", "CREATE INDEX session_due ON {ns}.session (due_at, tenant, id) WHERE due_at IS NOT NULL"),
)
_STEPS = {1: _TO_2}
"""By the schema that they start from: what each adds, and the statement."""
_READ = "SELECT value::int FROM {ns}.store WHERE name = 'schema'"
_REQUIRE = (
    "INSERT INTO {ns}.store (name, value) VALUES ('min_writer', '{version}')"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE {ns}.store.value::int < {version}"
)


async def migrate(connections: Connections, ns: str, from_version: int, progress: Progress) -> None:
    """See `spi.Versioned.migrate`. Raises `Unavailable` where the tables are in use for too long."""
    steps, to = _STEPS[from_version], from_version + 1
    async with connections.transaction() as run:
        await run(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        if not (await run(f"SELECT pg_try_advisory_xact_lock({LOCK})"))[0][0]:
            raise Busy("Another upgrade of this store is at work: wait for it.", advice="")
        if (await run(_READ.format(ns=ns)))[0][0] > from_version:
            return
        for number, (what, statement) in enumerate(steps):
            progress(what, number, len(steps))
            await run(statement.format(ns=ns))
        await run(_REQUIRE.format(ns=ns, version=to))
        await run(f"UPDATE {ns}.store SET value = '{to}' WHERE name = 'schema'")
        progress("writing it down", len(steps), len(steps))


async def require_writer(connections: Connections, ns: str, version: int) -> None:
    """See `spi.Versioned.require_writer`. Waits for the writes that are under way; later ones see what it stored."""
    async with connections.transaction() as run:
        await run(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        await run(f"LOCK TABLE {ns}.session IN SHARE MODE")
        await run(_REQUIRE.format(ns=ns, version=int(version)))
