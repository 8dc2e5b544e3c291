"""What weakens durability on a PostgreSQL server, and how to fix it."""

from __future__ import annotations

from perdure.backends.postgresql.connections import Connections
from perdure.backends.spi import Checkup, Finding

_ASKED = ("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names", "data_checksums", "server_version")
_LONG_SECONDS = 600
"""A transaction open for longer than this is worth a warning: the feed waits for it, and vacuum too."""


def ahead(ns: str) -> str:
    """What is wrong where records name transactions that this server has not begun."""
    return (
        f"Records in {ns} were restored from another server, and name transactions that this one has yet to begin: the feed would miss them"
    )


def renumber(ns: str) -> str:
    """What to do about it."""
    statement = f"UPDATE {ns}.log SET xid = '3' WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())"
    return f"run `{statement}` while nothing uses the store, then let each consumer of changes start again from the beginning"


async def checkup(connections: Connections) -> Checkup:
    """Ask the server; see `spi.Examined`."""
    settings = dict(await connections.fetch("SELECT name, setting FROM pg_settings WHERE name = ANY(%(names)s)", {"names": list(_ASKED)}))
    ((oldest,),) = await connections.fetch(
        "SELECT coalesce(max(extract(epoch FROM now() - xact_start)), 0)::bigint FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    facts = {"server": f"PostgreSQL {settings.pop('server_version')}"} | {name: value or "none" for name, value in settings.items()}
    facts["pooler"] = "seen" if connections.pooled else "none seen"
    facts["prepared statements"] = "yes" if connections.prepares else "no"
    findings = []
    if settings["fsync"] == "off":
        findings.append(
            Finding(
                "bad", "unavailable", "fsync is off: a power cut can lose commits, and the whole database.", "set fsync = on, and restart"
            )
        )
    if settings["full_page_writes"] == "off":
        what = "full_page_writes is off: a power cut can leave torn pages."
        findings.append(Finding("bad", "corrupt", what, "set full_page_writes = on, unless the file system writes pages whole (ZFS)"))
    if settings["synchronous_standby_names"] and settings["synchronous_commit"] in ("off", "local", "remote_write"):
        what = f"synchronous_commit is {settings['synchronous_commit']}: commits do not wait for the standby's disk."
        findings.append(Finding("warning", "unavailable", what, "set synchronous_commit = on, or ask for durability=quorum"))
    if settings["data_checksums"] == "off":
        what = "Data checksums are off: a damaged page may be found late, by `perdure verify`."
        findings.append(Finding("warning", "corrupt", what, "stop the server and run pg_checksums --enable"))
    if oldest > _LONG_SECONDS:
        what = f"A transaction has been open for {oldest:,} s: watchers do not see newer commits before it ends."
        findings.append(Finding("warning", "unavailable", what, "find it in pg_stat_activity (xact_start) and end it"))
    return Checkup(facts, findings)
