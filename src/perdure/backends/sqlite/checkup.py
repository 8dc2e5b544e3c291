"""Examining a SQLite file from outside: read-only, and not opened at all while it may be somebody else's."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import apsw

from perdure.backends.common.schema import older_schema
from perdure.backends.common.store_header import check_schema
from perdure.backends.spi import SCHEMA_VERSION, Finding
from perdure.backends.sqlite.schema import APPLICATION_ID, check_library, read_min_writer
from perdure.errors import Corrupt, Unsupported

MAGIC = b"SQLite format 3\0"
NETWORK = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "smb2", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.glusterfs")
)
"""File systems on which SQLite's shared memory, and so its write-ahead log, cannot be relied on."""
FORGETFUL = frozenset(("tmpfs", "ramfs"))
"""File systems that are gone with the machine's power."""
WAL_BYTES_MAX = 256 << 20
"""A write-ahead log above this is not being folded into the file: writers keep it near 64 MiB."""
DISK_FREE_BYTES_MIN = 256 << 20
"""Less free space than this is worth a warning."""


def examine(path: Path, *, deep: bool) -> tuple[dict[str, Any], list[Finding]]:
    """Facts about the file (fields of the doctor's answer) and what is wrong with it. Nothing is written."""
    facts: dict[str, Any] = {"path": str(path), "sqlite": apsw.sqlite_lib_version(), "sqlite_wal_reset_fixed": True}
    found: list[Finding] = []
    try:
        check_library(apsw.sqlite_lib_version())
    except Unsupported as error:
        facts["sqlite_wal_reset_fixed"] = False
        found.append(Finding("bad", "unsupported", error.detail, "pip install --force-reinstall --only-binary apsw apsw"))
    folder = path.absolute().parent
    if folder.is_dir():
        found += _place(folder, facts)
    wrong = _identity(path)
    if wrong is not None:
        return facts, [*found, wrong]
    wal = path.with_name(path.name + "-wal")
    facts |= {"file_bytes": path.stat().st_size, "wal_bytes": wal.stat().st_size if wal.exists() else 0}
    if facts["wal_bytes"] > WAL_BYTES_MAX:
        fix = "end the process that has been reading for long (a debugger, a backup, an open cursor); the next writer folds the log in"
        found.append(Finding("warning", "unavailable", f"The write-ahead log has {facts['wal_bytes']:,} bytes.", fix))
    if not os.access(path, os.W_OK) or not os.access(folder, os.W_OK):
        fix = f"give this user the right to write the file and its folder {folder}, in which the write-ahead log is made"
        found.append(Finding("bad", "invalid", f"{path} cannot be written by this user.", fix))
        return facts, found
    try:
        found += _look_inside(path, facts, deep=deep)
    except (apsw.BusyError, apsw.LockedError) as error:
        found.append(Finding("bad", "unavailable", f"{path} is locked: {error}.", "find the process that locks it (fuser, lsof), end it"))
    except apsw.Error as error:
        found.append(Finding("bad", "corrupt", f"{path} cannot be read: {error}.", "stop writing and restore the file from a backup"))
    return facts, found


def _place(folder: Path, facts: dict[str, Any]) -> list[Finding]:
    found: list[Finding] = []
    free = facts["disk_free_bytes"] = shutil.disk_usage(folder).free
    if free < DISK_FREE_BYTES_MIN:
        found.append(Finding("warning", "unavailable", f"Only {free:,} bytes are free in {folder}.", "free some space, or move the store"))
    kind = facts["file_system"] = file_system(folder)
    if kind in NETWORK:
        fix = "move the store to a local disk; to share it between machines use a server's engine"
        found.append(
            Finding("bad", "unsupported", f"{folder} is on a network file system ({kind}): locks and shared memory may fail.", fix)
        )
    if kind in FORGETFUL:
        fix = "move the store to a disk if it is to outlive the machine"
        found.append(Finding("warning", "unsupported", f"{folder} is in memory ({kind}): a commit does not survive a power cut.", fix))
    return found


def file_system(folder: Path) -> str | None:
    """The type of the file system that holds the folder; `None` where the system does not say (it does on Linux)."""
    if sys.platform != "linux":
        return None
    best, kind = -1, None
    with contextlib.suppress(OSError):
        place = str(folder.resolve())
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, mount, type, *_ = line.split(" ")
            mount = mount.encode().decode("unicode_escape").rstrip("/")
            if (place == mount or place.startswith(mount + "/")) and len(mount) >= best:
                best, kind = len(mount), type
    return kind


def _identity(path: Path) -> Finding | None:
    """What is wrong with taking this file for a store, by its first bytes alone."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return Finding("bad", "not_found", f"{path} does not exist.", "check --url or PERDURE_URL; the first write makes the file")
    except OSError as error:
        return Finding("bad", "invalid", f"{path} cannot be read: {error.strerror}.", "check the path and the rights of this user")
    if not header:
        return Finding("bad", "not_found", f"{path} is empty.", "check --url or PERDURE_URL; the first write makes a store of it")
    if len(header) < 100 or not header.startswith(MAGIC):
        return Finding("bad", "corrupt", f"{path} is no SQLite database.", "check --url; if a store was there, restore it from a backup")
    # The mark of a young store may still be in its write-ahead log alone; without one, the file itself has the last word.
    wal = path.with_name(path.name + "-wal")
    if int.from_bytes(header[68:72]) != APPLICATION_ID and not (wal.exists() and wal.stat().st_size):
        return Finding("bad", "invalid", f"{path} is a SQLite database, but no store of Perdure.", "check --url; it was left as it is")
    return None


def _look_inside(path: Path, facts: dict[str, Any], *, deep: bool) -> list[Finding]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.set_busy_timeout(5_000)
        connection.execute("BEGIN")  # everything below is as of one moment
        application, schema = connection.pragma("application_id"), connection.pragma("user_version")
        if application != APPLICATION_ID:
            return [
                Finding("bad", "invalid", f"{path} is a SQLite database, but no store of Perdure.", "check --url; it was left as it is")
            ]
        facts |= {
            "schema": schema,
            "journal_mode": connection.pragma("journal_mode"),
            "pages": connection.pragma("page_count"),
            "page_bytes": connection.pragma("page_size"),
            "free_pages": connection.pragma("freelist_count"),
        }
        try:
            check_schema(schema, SCHEMA_VERSION, read_min_writer(connection, str(path)))
        except Unsupported as error:
            return [Finding("bad", "unsupported", error.detail, "upgrade perdure")]
        except Corrupt as error:
            return [Finding("bad", "corrupt", error.detail, "stop writing and restore the file from a backup")]
        facts["sessions"] = connection.execute("SELECT count(*) FROM session").get
        facts["commits"] = connection.execute("SELECT count(*) FROM log").get
        # Not stored in the file: every writer of Perdure sets it on its connection before it writes.
        facts["synchronous"] = "full"
        found = older_schema(schema)
        if facts["journal_mode"] != "wal":
            fix = "nothing to do: the next writer turns the write-ahead log on; find out which program turned it off"
            found.append(Finding("warning", "unsupported", f"The journal mode is {facts['journal_mode']}, not wal.", fix))
        if deep:
            facts["deep"] = "; ".join(str(line) for (line,) in connection.execute("PRAGMA quick_check(10)"))
            if facts["deep"] != "ok":
                fix = "stop writing, keep a copy, restore from a backup; `perdure verify` says which sessions are whole"
                found.append(Finding("bad", "corrupt", f"The file is damaged: {facts['deep']}.", fix))
        return found
    finally:
        connection.close()
