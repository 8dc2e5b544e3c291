"""`perdure doctor`: what a store is, how durable it is, what is wrong with it, and how to mend that."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import apsw
import msgspec

from perdure import sync
from perdure.backends.sqlite.schema import SCHEMA_VERSION, check_library, errors, known_id, parse_url
from perdure.cli.common import Common, opened, show_rows
from perdure.errors import Error

DISK_FREE_MIN = 256 << 20
"""Bytes of free disk below which doctor warns."""
WAL_BYTES_MAX = 256 << 20
"""Size of the write-ahead log above which doctor warns."""
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "afs"}


class Finding(msgspec.Struct, frozen=True):
    """`check` names what was looked at, `verdict` is ok, warning or error, `found` says what is, `mend` what to do."""

    check: str
    verdict: Literal["ok", "warning", "error"]
    found: str
    mend: str = ""


def doctor(*, deep: bool = False, common: Common | None = None) -> int:
    """Examine a store. Exit code 0 when nothing is wrong, 1 with warnings or errors.

    Parameters
    ----------
    deep
        Read the whole file: SQLite's quick check, and `verify` on every session of the tenant.
    """
    common = common or Common()
    findings = list(_examine(common, deep))
    show_rows(common, findings, ["verdict", "check", "found", "mend"])
    return int(any(finding.verdict != "ok" for finding in findings))


def _examine(common: Common, deep: bool) -> Iterator[Finding]:
    try:
        with opened(common) as store:
            yield Finding("open", "ok", f"{common.store_url}, store {store.id}, tenant {store.tenant}")
            durability = store.capabilities.durability.name
            yield Finding("durability", "ok" if durability != "memory" else "warning", f"acknowledged writes are {durability}")
            if common.store_url.startswith("sqlite:"):
                yield from _file(common.store_url, deep)
            if deep:
                yield from _sessions(store)
    except Error as error:
        yield Finding("open", "error", f"{error.code}: {error.detail or error}", " ".join(str(error).removeprefix(error.detail).split()))


def _file(url: str, deep: bool) -> Iterator[Finding]:
    options = parse_url(url)
    path = Path(options.path)
    library = apsw.sqlite_lib_version()
    check_library(library)
    yield Finding("library", "ok", f"SQLite {library}, with the fix of the log that loses a commit when it is reset")
    with errors(options.path):
        connection = apsw.Connection(options.path, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            yield Finding("schema", "ok" if known_id(connection, options.path) else "error", f"schema {SCHEMA_VERSION}")
            mode = connection.pragma("journal_mode")
            yield Finding(
                "journal", "ok" if mode == "wal" else "error", f"journal mode {mode}", "" if mode == "wal" else "open it for writing once"
            )
            sessions = connection.execute("SELECT count(*) FROM session").get
            yield Finding("size", "ok", f"{sessions:,} sessions of all tenants in {path.stat().st_size:,} bytes")
            if deep:
                verdict = connection.pragma("quick_check")
                yield Finding(
                    "file", "ok" if verdict == "ok" else "error", f"quick check: {verdict}", "" if verdict == "ok" else "restore a backup"
                )
        finally:
            connection.close()
    yield from _place(path)


def _place(path: Path) -> Iterator[Finding]:
    log = path.with_name(path.name + "-wal")
    size = log.stat().st_size if log.exists() else 0
    mend = "a reader keeps an old snapshot open: end long reads" if size > WAL_BYTES_MAX else ""
    yield Finding("log", "warning" if mend else "ok", f"write-ahead log of {size:,} bytes", mend)
    free = shutil.disk_usage(path.absolute().parent).free
    mend = "free some disk: a full one refuses writes" if free < DISK_FREE_MIN else ""
    yield Finding("disk", "warning" if mend else "ok", f"{free:,} bytes free", mend)
    kind = _file_system(path.absolute())
    mend = "move the file to a local disk: locks and syncs are not reliable there" if kind in _NETWORK else ""
    yield Finding("file system", "error" if mend else "ok", kind or "unknown", mend)
    writable = os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK)
    yield Finding("rights", "ok" if writable else "error", "writable" if writable else "read-only", "" if writable else "chmod u+w")


def _file_system(path: Path) -> str:
    """The kind of file system, by the longest mount point above the path (Linux; elsewhere empty)."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    mounts = [line.split()[1:3] for line in lines]
    above = [(len(point), kind) for point, kind in mounts if path.is_relative_to(point)]
    return max(above)[1] if above else ""


def _sessions(store: sync.Store) -> Iterator[Finding]:
    count = 0
    for info in store.list():
        try:
            store.verify(info.session)
        except Error as error:
            yield Finding("chain", "error", f"{info.session}: {error.detail}", "restore it from a backup")
        else:
            count += 1
    yield Finding("chains", "ok", f"{count:,} sessions verified")
