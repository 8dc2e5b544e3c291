"""Opening a spool's file: is it ours, is it whole, and does it belong to this store."""

from __future__ import annotations

from importlib import resources

import apsw

from perdure.backends.sqlite.schema import Options, errors
from perdure.errors import Corrupt, Invalid, NotFound, Unsupported

APPLICATION_ID = 0x50455253
"""Marks a SQLite file as a spool of Perdure's ("PERS")."""
SPOOL_VERSION = 1
"""The schema of the file."""


def prepare(connection: apsw.Connection, options: Options, store_id: str | None, *, create: bool) -> str:
    """Check the file, or make it for this store where it is empty; the id of the store that it belongs to. It can be written afterwards.

    `store_id=None`: of any store. Raises `Invalid` for a spool of another store and for a file that is none, `Corrupt`, `Unsupported`,
    `NotFound` for an empty file without `create`.
    """
    place = options.place
    with errors(place):
        connection.execute("BEGIN IMMEDIATE")
        try:
            belongs = _read(connection, place)
            if belongs is None:
                if not create or store_id is None:
                    raise NotFound(f"There is no spool in {place}, and nothing was made.", missing="schema")
                _create(connection, store_id)
                belongs = store_id
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        if (found := connection.execute("PRAGMA quick_check(1)").get) != "ok":
            raise Corrupt(f"The spool {place} is damaged ({found}).")
    if store_id not in (None, belongs):
        raise Invalid(
            f"The spool {place} belongs to the store {belongs}, and this is the store {store_id}: what it holds is not for this one.",
            advice="Open the store that it belongs to, or choose another file; `perdure spool ls` shows what it holds.",
        )
    return belongs


def _read(connection: apsw.Connection, place: str) -> str | None:
    """The id of the store that the spool belongs to; `None` for an empty file."""
    version, application = connection.pragma("user_version"), connection.pragma("application_id")
    if application != APPLICATION_ID:
        if connection.execute("SELECT count(*) FROM sqlite_schema").get:
            raise Invalid(f"{place} is a database of something else, and no spool: choose another file.")
        return None
    if version > SPOOL_VERSION:
        raise Unsupported(f"The spool {place} was made by a newer Perdure (schema {version}; this one knows {SPOOL_VERSION}): upgrade it.")
    if version < 1:
        raise Corrupt(f"The spool {place} says that it has schema {version}: there is none.")
    belongs = connection.execute("SELECT value FROM spool WHERE name = 'store_id'").get
    if type(belongs) is not str:
        raise Corrupt(f"The spool {place} does not say which store it belongs to.")
    return belongs


def _create(connection: apsw.Connection, store_id: str) -> None:
    connection.execute(resources.files(__package__).joinpath("schema.sql").read_text())
    connection.execute("INSERT INTO spool (name, value) VALUES ('store_id', ?)", (store_id,))
    connection.pragma("application_id", APPLICATION_ID)
    connection.pragma("user_version", SPOOL_VERSION)
