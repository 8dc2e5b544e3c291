"""Opening a file: is it ours, is it whole, is its schema one that we know; and the errors of SQLite in Perdure's words."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import apsw
import msgspec

from perdure.backends.common.store_header import StoreHeader, check_schema, new_store_id
from perdure.backends.spi import SCHEMA_VERSION
from perdure.backends.sqlite.reader import as_of_one_moment
from perdure.clock import Clock
from perdure.config import mistake
from perdure.errors import Corrupt, Invalid, NotFound, Unavailable, Unsupported
from perdure.redaction import option_named, shown_path, shown_url

APPLICATION_ID = 0x50455244
"""Marks a SQLite file as Perdure's ("PERD")."""
_WAL_FIXED = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
"""SQLite versions in which a checkpoint that resets the log can no longer lose a commit: the first, and the backports."""


class Options(msgspec.Struct, frozen=True):
    """What a `sqlite:///` URL says. `busy_timeout` in seconds, `cache_kib` a connection."""

    path: str
    vfs: str = ""
    busy_timeout: float = 30.0
    readers: int = 4
    cache_kib: int = 16_384

    @property
    def place(self) -> str:
        """The path as messages show it."""
        return shown_path(self.path)


def parse_url(url: str) -> Options:
    """`sqlite:///relative`, `sqlite:////absolute`, with `?busy_timeout=&readers=&cache_kib=&vfs=`. Raises `Invalid`."""
    shown = shown_url(url)
    match = re.fullmatch(r"sqlite:///([^?#]+)(?:\?([^#]*))?", url)
    if match is None:
        raise Invalid(
            f"{shown!r} is no SQLite URL: write sqlite:///file.db for a relative path, sqlite:////folder/file.db for an absolute one."
        )
    path = unquote(match[1])
    if not path.isprintable() or "\N{REPLACEMENT CHARACTER}" in path:
        raise Invalid(f"{shown!r} names a path with characters that no file should have.")
    if ":memory:" in path:
        raise Invalid("A store in memory has the URL 'memory:'.")
    options = parse_qsl(match[2] or "", keep_blank_values=True)
    try:
        found = msgspec.convert({**dict(options), "path": path}, Options, strict=False)
    except msgspec.ValidationError:
        raise Invalid(f"{shown!r}: {mistake(Options, dict(options), strict=False, show=False)}.") from None
    for number, (name, _) in enumerate(options):
        if name not in Options.__struct_fields__[1:]:
            raise Invalid(
                f"{shown!r} has no option {option_named(url, options, number)}; there are busy_timeout, readers, cache_kib and vfs."
            )
    if not 0 <= found.busy_timeout <= 86_400 or not 1 <= found.readers <= 64 or found.cache_kib < 64:
        raise Invalid(f"{shown!r}: busy_timeout must be 0 to 86,400 seconds, readers 1 to 64, cache_kib at least 64.")
    return found


def settled(options: Options) -> Options:
    """The options with an absolute path: connections are made when they are needed, and the process may change its folder before."""
    with errors(options.place):
        return options if options.vfs else msgspec.structs.replace(options, path=str(Path(options.path).absolute()))


@contextlib.contextmanager
def errors(path: str) -> Iterator[None]:
    """SQLite's errors in Perdure's words. What failed inside a transaction was not written."""
    try:
        yield
    except (apsw.BusyError, apsw.LockedError) as error:
        raise Unavailable(f"{path} is locked by another process for longer than busy_timeout ({error}).") from error
    except apsw.FullError as error:
        raise Unavailable(f"The disk of {path} is full ({error}); nothing was written.") from error
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise Corrupt(f"{path} is not a whole SQLite database ({error}).") from error
    except (apsw.SQLError, UnicodeDecodeError, msgspec.DecodeError, TypeError) as error:
        raise Corrupt(f"{path} has tables or rows that are not as they were written ({error}).") from error
    except (apsw.ReadOnlyError, apsw.PermissionsError) as error:
        raise Invalid(f"{path} cannot be written ({error}): check the rights of the file and of its folder.") from error
    except apsw.CantOpenError as error:
        raise Invalid(f"{path} cannot be opened ({error}): does its folder exist, and may it be written?") from error
    except OSError as error:
        raise Invalid(f"{path} cannot be used ({error.strerror}): choose another path.") from error
    except apsw.Error as error:
        raise Unavailable(f"SQLite failed on {path}: {type(error).__name__}: {error}.") from error


def connect(options: Options, *, writing: bool, create: bool = True) -> apsw.Connection:
    """A connection with our settings; the file is made only with `create`.

    Raises `NotFound`, `Invalid`, `Unavailable`, `Corrupt`, `Unsupported`.
    """
    check_library(apsw.sqlite_lib_version())
    if options.vfs and options.vfs not in apsw.vfs_names():
        raise Invalid(f"The option vfs names no VFS of this process; there are {', '.join(apsw.vfs_names())}.")
    with errors(options.place):
        folder = Path(options.path).parent
        if not options.vfs and not folder.is_dir():
            raise Invalid(f"The folder {shown_path(str(folder))} does not exist: create it first.", missing="folder")
        connection = _opened(options, create=create)
        try:
            connection.set_busy_timeout(int(options.busy_timeout * 1000))
            connection.pragma("cache_size", -options.cache_kib)
            if writing:
                _prepare_writing(connection, options.place)
        except BaseException:
            connection.close()
            raise
    return connection


def _opened(options: Options, *, create: bool) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    try:
        return apsw.Connection(options.path, flags=flags, vfs=options.vfs or None)
    except apsw.CantOpenError as error:
        if create:
            raise
        if options.vfs or not Path(options.path).exists():
            raise NotFound(f"There is no file {options.place}, and nothing was made.", missing="file") from error
    return apsw.Connection(options.path, flags=flags)  # Another one may have made it between the two looks.


def _prepare_writing(connection: apsw.Connection, path: str) -> None:
    if connection.pragma("journal_mode", "wal") != "wal":
        raise Unsupported(f"{path} lies where SQLite's write-ahead log does not work, such as a network share: use a local disk.")
    connection.pragma("synchronous", "full")
    connection.pragma("journal_size_limit", 64 << 20)
    connection.pragma("wal_autocheckpoint", 4_000)
    connection.pragma("trusted_schema", 0)
    connection.pragma("secure_delete", 1)  # What a purge or a truncation drops is overwritten with zeros.
    if sys.platform == "darwin":
        connection.pragma("fullfsync", 1)


def read_header(connection: apsw.Connection, path: str) -> StoreHeader | None:
    """The header of a file that is ours, `None` if it is empty. Writes nothing.

    Raises `Unsupported` for a newer schema, `Invalid` for a database of something else.
    """
    with contextlib.nullcontext() if connection.in_transaction else as_of_one_moment(connection):  # Another process may be creating it.
        version, application = connection.pragma("user_version"), connection.pragma("application_id")
        if application != APPLICATION_ID:
            if connection.execute("SELECT count(*) FROM sqlite_schema").get:
                raise Invalid(f"{path} is a database of something else: choose another file.")
            return None
        if version < 1:
            raise Corrupt(f"{path} says that it has schema {version}: there is none.")
        min_writer = read_min_writer(connection, path)
        check_schema(version, SCHEMA_VERSION, min_writer)
        return StoreHeader(version, str(connection.execute("SELECT value FROM store WHERE name = 'id'").get), min_writer)


def read_min_writer(connection: apsw.Connection, path: str) -> int | None:
    """The least writer version that the file takes; `None` if it says none. Raises `Corrupt`."""
    value = connection.execute("SELECT value FROM store WHERE name = 'min_writer'").get
    if value is None:
        return None
    if type(value) is not str or not value.isdecimal():
        raise Corrupt(f"{path} has a least writer version that was not written so: {value!r:.40}.")
    return int(value)


def known_id(connection: apsw.Connection, path: str) -> str | None:
    """The store's id if the file is ours, `None` if it is empty. Raises what `read_header` does."""
    header = read_header(connection, path)
    return None if header is None else header.id


def check_library(version: str) -> None:
    """Raise `Unsupported` for a SQLite whose write-ahead log can lose a commit when it is reset."""
    number = tuple(int(part) for part in version.split("."))
    if number < _WAL_FIXED[0] and not any(number[:2] == fixed[:2] and number >= fixed for fixed in _WAL_FIXED[1:]):
        raise Unsupported(
            f"The linked SQLite {version} can lose a commit when its log is reset (fixed in 3.51.3): "
            "install apsw from its wheel, which brings its own SQLite."
        )


def initialise(connection: apsw.Connection, options: Options, clock: Clock) -> StoreHeader:
    """Create the schema in an empty file, or check that it is ours; its header. Several processes may do so at once."""
    with errors(options.place):
        header = read_header(connection, options.place)
        if header is None:
            connection.execute("BEGIN IMMEDIATE")
            try:
                header = read_header(connection, options.place) or _create(connection, clock)
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        return header


def _create(connection: apsw.Connection, clock: Clock) -> StoreHeader:
    id = new_store_id(clock)
    connection.execute(resources.files(__package__).joinpath("schema.sql").read_text())
    stored = (("id", id), ("min_writer", str(SCHEMA_VERSION)))
    connection.executemany("INSERT INTO store (name, value) VALUES (?, ?)", stored)
    connection.pragma("application_id", APPLICATION_ID)
    connection.pragma("user_version", SCHEMA_VERSION)
    return StoreHeader(SCHEMA_VERSION, id, SCHEMA_VERSION)
