"""`perdure doctor`: what a URL is, how safe its writes are, what is wrong and how to fix it. It changes nothing.

A file is looked at from outside first; a server is asked about itself. A place without a store stays as it is.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Literal

import msgspec
from rich.table import Table
from rich.text import Text

import perdure.sync
from perdure.backends.common.schema import older_schema
from perdure.backends.registry import open_backend
from perdure.backends.spi import Checkup, Durability, Examined, Finding, Versioned
from perdure.backends.sqlite.checkup import examine
from perdure.cli.common import COMMON, MAKES_NOTHING, Common, store_file
from perdure.cli.exits import OK, UsageError, status_of
from perdure.cli.output.advice import REMEDIES
from perdure.cli.output.terminal import Terminal
from perdure.cli.output.text import clean, size
from perdure.clock import SystemClock
from perdure.config import shown_url
from perdure.errors import Error


class FindingRow(msgspec.Struct, frozen=True):
    """Something that is wrong, or may become so."""

    level: Literal["bad", "warning"]
    """bad: not healthy, and the exit code says so; warning: worth knowing."""
    code: str
    """The code of the error that it is or would become."""
    what: str
    """What is wrong."""
    fix: str
    """What to do about it."""


class Diagnosis(msgspec.Struct, frozen=True):
    """What a URL is. Facts that do not apply, or could not be found out, are null. Sizes in bytes."""

    url: str
    """The URL asked about."""
    engine: str
    """Its scheme."""
    healthy: bool
    """Whether no finding is bad."""
    findings: list[FindingRow]
    """What is wrong, worst first."""
    durability: str | None = None
    """What an acknowledged commit survives by default: memory, buffered, local or quorum."""
    notification: bool | None = None
    """Whether the engine notifies watchers of what other processes write; else they ask every `watch_every` seconds."""
    failover_loses_leases: bool | None = None
    """Whether a failover of the engine may lose the commit that took a lease: then a fencing token orders nothing across a failover."""
    store_id: str | None = None
    """The identity of the data."""
    sessions: int | None = None
    """How many sessions it holds: of all tenants, deleted ones included, on SQLite; else this tenant's live ones."""
    commits: int | None = None
    """How many commits it holds."""
    server: dict[str, str] | None = None
    """What an engine's server says of itself, by name."""
    schema: int | None = None
    """Its schema's version."""
    path: str | None = None
    """Its file."""
    file_bytes: int | None = None
    """The size of the file."""
    wal_bytes: int | None = None
    """The size of the write-ahead log beside it."""
    pages: int | None = None
    """How many pages the database has."""
    page_bytes: int | None = None
    """The size of one."""
    free_pages: int | None = None
    """How many of them are unused."""
    sqlite: str | None = None
    """The version of the SQLite library in use."""
    sqlite_wal_reset_fixed: bool | None = None
    """Whether that version has the fix of the defect by which a reset of the write-ahead log can lose a commit."""
    journal_mode: str | None = None
    """The file's journal mode: wal is what Perdure uses."""
    synchronous: str | None = None
    """When a writer syncs: full is after every transaction."""
    file_system: str | None = None
    """The kind of file system it lies on, where the system says so."""
    disk_free_bytes: int | None = None
    """What is left on its disk."""
    deep: str | None = None
    """With --deep: what SQLite's quick_check said; "ok" if the file is whole."""


WORDS = {
    "sqlite_wal_reset_fixed": "WAL-reset fix",
    "sqlite": "SQLite",
    "wal_bytes": "write-ahead log",
    "disk_free_bytes": "disk free",
    "notification": "notifies",
    "failover_loses_leases": "a failover may lose leases",
}


def doctor(url: str | None = None, /, *, deep: bool = False, common: Common = COMMON) -> int:
    """Examine a store: what it is, how safe its writes are, what is wrong and how to fix it. Changes nothing.

    Leaves with 0 only when the store is healthy, else with the exit code of the worst finding.

    Parameters
    ----------
    url
        The store's URL, as with --url.
    deep
        Also read all of the file and check its structure (SQLite's quick_check).
    """
    terminal = common.terminal()
    if url is not None:
        if common.url is not None:
            raise UsageError("Name the store once: as the argument, or with --url.")
        common = replace(common, url=url)
    diagnosis = _examine(common, deep=deep)
    if terminal.json:
        terminal.object(diagnosis)
    else:
        _print(terminal, diagnosis)
    bad = [finding for finding in diagnosis.findings if finding.level == "bad"]
    return status_of(bad[0].code) if bad else OK


def _examine(common: Common, *, deep: bool) -> Diagnosis:
    url = common.address
    facts: dict[str, Any] = {}
    findings: list[Finding] = []
    path = store_file(url)
    if path is not None:
        facts, findings = examine(path, deep=deep)
    if not any(finding.level == "bad" for finding in findings):
        try:
            facts |= _open(common, count=path is None)
            schema, said = _ask(url) if path is None else (None, None)
            if schema is not None:
                facts["schema"] = schema
                findings += older_schema(schema)
            if said is not None:
                facts["server"] = dict(said.facts)
                findings += said.findings
        except Error as error:
            what = error.detail.replace(MAKES_NOTHING, "")
            findings.append(Finding("bad", error.code, what, REMEDIES.get(error.code, "see what is wrong")))
    findings.sort(key=lambda finding: finding.level)
    healthy = not any(finding.level == "bad" for finding in findings)
    scheme, colon, _ = shown_url(url).partition(":")
    return Diagnosis(shown_url(url), scheme if colon else "unknown", healthy, [FindingRow(*finding) for finding in findings], **facts)


def _ask(url: str) -> tuple[int | None, Checkup | None]:
    """The store's schema, and what the engine's server says of itself; `None` from an engine that has nothing to say."""

    async def ask() -> tuple[int | None, Checkup | None]:
        backend = await open_backend(url, clock=SystemClock(), create=_in_memory(url))
        try:
            schema = (backend.schema or None) if isinstance(backend, Versioned) else None
            return schema, await backend.checkup() if isinstance(backend, Examined) else None
        finally:
            await backend.close()

    return asyncio.run(ask())


def _in_memory(url: str) -> bool:
    """Whether the store is made with the process, as nothing else is by looking."""
    return url == "memory:"


def _open(common: Common, *, count: bool) -> dict[str, Any]:
    with perdure.sync.open(common.address, tenant=common.tenant, blobs=common.place, create=_in_memory(common.address)) as store:
        able = store.capabilities
        facts: dict[str, Any] = {"store_id": store.id, "durability": min(Durability.local, able.durability).name}
        facts["notification"] = able.notification
        facts["failover_loses_leases"] = able.failover_loss is not None and able.failover_loss >= able.durability
        if count:
            facts["sessions"] = sum(1 for _ in store.list())
    return facts


def _print(terminal: Terminal, diagnosis: Diagnosis) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for field in diagnosis.__struct_fields__:
        value = getattr(diagnosis, field)
        if value is None or field in ("findings", "healthy"):
            continue
        if field == "server":
            for name, said in value.items():
                table.add_row(name.replace("_", " "), Text(clean(said)))
            continue
        name = WORDS.get(field, field.removesuffix("_bytes").replace("_", " "))
        table.add_row(name, Text(clean(_shown(value, in_bytes=field.endswith("_bytes")))))
    if not terminal.quiet:
        terminal.print(table)
    for finding in diagnosis.findings:
        terminal.print(Text(f"{finding.level}: ", style="bold red" if finding.level == "bad" else "bold yellow") + f"{clean(finding.what)}")
        terminal.print(Text(f"  fix: {clean(finding.fix)}"))
    if diagnosis.healthy and not terminal.quiet:
        terminal.print(Text("healthy", style="bold green"))


def _shown(value: Any, *, in_bytes: bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return size(value) if in_bytes else f"{value:,}" if isinstance(value, int) else str(value)
