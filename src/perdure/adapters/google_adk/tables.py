"""The tables of ADK's own session services, read as they are: SqliteSessionService's, and both schemas of DatabaseSessionService.

Schema 1 keeps an event as JSON. Schema 0 keeps it in columns, its actions pickled: these go through ADK's own restricted unpickler,
which makes ADK's action classes and plain data and refuses everything else by name.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from google.adk.events.event import Event as AdkEvent
from google.adk.events.event_actions import EventActions
from pydantic import ValidationError

from perdure.adapters.google_adk.names import Names
from perdure.errors import Error, Invalid, NotFound, Unavailable, Unsupported

Row = Mapping[str, Any]
Ask = Callable[[str, Mapping[str, Any]], tuple[list[str], list[Row]]]
"""Runs a query with `:name` parameters: the names of its columns, and its rows."""

SCHEMAS = ("0", "1")
"""The versions that ADK wrote down so far, in `adk_internal_metadata`."""
OF_SESSION = "WHERE app_name = :app AND user_id = :user AND {id} = :id"
COLUMNS_OF_JSON = frozenset(
    {
        "content",
        "grounding_metadata",
        "custom_metadata",
        "usage_metadata",
        "citation_metadata",
        "input_transcription",
        "output_transcription",
    }
)
"""The columns of schema 0 that hold JSON."""
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
"""By a URL's dialect: what it is read with, since ADK's own drivers are asynchronous."""


class StoredSession(NamedTuple):
    """A row of `sessions`: its own state, and when it was created (s)."""

    state: dict[str, Any]
    created: float


class Tables:
    """An open database. Its queries block."""

    def __init__(self, ask: Ask, tie: str, close: Callable[[], None]) -> None:
        """`tie`: the column that orders events of the same time."""
        self._ask, self._tie, self.close = ask, tie, close
        columns, _ = ask("SELECT * FROM events WHERE 1 = 0", {})
        self._pickled = "actions" in columns and "event_data" not in columns
        ask("SELECT app_name, user_id, id, state, create_time FROM sessions WHERE 1 = 0", {})

    def sessions(self) -> list[tuple[str, str, str]]:
        """App, user and id of each session."""
        return [(row["app_name"], row["user_id"], row["id"]) for row in self._ask("SELECT app_name, user_id, id FROM sessions", {})[1]]

    def session(self, found: Names) -> StoredSession | None:
        """One session, or `None`."""
        _, rows = self._ask(f"SELECT state, create_time FROM sessions {OF_SESSION.format(id='id')}", _of(found))  # noqa: S608  # ours
        return StoredSession(_object(rows[0]["state"], found), _seconds(rows[0]["create_time"])) if rows else None

    def shared(self, found: Names) -> list[tuple[str, dict[str, Any]]]:
        """What the session's app and its user share, each with the Perdure session that it goes to."""
        queries = {"app:": "app_states WHERE app_name = :app", "user:": "user_states WHERE app_name = :app AND user_id = :user"}
        states = []
        for prefix, scope in found.scopes():
            _, rows = self._ask(f"SELECT state FROM {queries[prefix]}", _of(found))  # noqa: S608  # ours
            states += [(scope, _object(row["state"], found)) for row in rows]
        return states

    def events(self, found: Names) -> list[AdkEvent]:
        """The events of a session, in the order in which ADK gives them. Raises `Invalid`, `Unsupported`."""
        query = f"SELECT * FROM events {OF_SESSION.format(id='session_id')} ORDER BY timestamp, {self._tie}"  # noqa: S608  # ours
        read = _from_columns if self._pickled else _from_json
        return [_event(read, row) for row in self._ask(query, _of(found))[1]]


def _of(found: Names) -> dict[str, str]:
    return {"app": found.app, "user": found.user, "id": found.id}


def _event(read: Callable[[Row], AdkEvent], row: Row) -> AdkEvent:
    try:
        return read(row)
    except Error:
        raise
    except ValidationError as error:
        raise Unsupported(f"Event {row['id']} of the source is none that this google-adk understands: {error}") from error
    except Exception as error:  # what an unpickler and a JSON parser raise has no common class
        raise Invalid(f"Event {row['id']} of the source cannot be read: {error}") from error


def _from_json(row: Row) -> AdkEvent:
    data = _decoded(row["event_data"])
    if not isinstance(data, dict):
        raise Invalid(f"Event {row['id']} of the source is no JSON object.")
    timestamp = data["timestamp"] if "timestamp" in data else _seconds(row["timestamp"])
    return AdkEvent.model_validate({**data, "id": row["id"], "invocation_id": row["invocation_id"], "timestamp": timestamp})


def _from_columns(row: Row) -> AdkEvent:
    try:
        from google.adk.sessions import _restricted_pickle
    except ImportError:
        raise Unsupported("This google-adk cannot read its old schema safely: upgrade it, or run `adk migrate session` first.") from None
    fields = {name: _decoded(row[name]) if name in COLUMNS_OF_JSON else row[name] for name in AdkEvent.model_fields if name in row}
    fields = {name: value for name, value in fields.items() if value is not None}
    actions = _restricted_pickle.loads(bytes(row["actions"])) if row["actions"] else EventActions()
    fields["actions"] = EventActions.model_validate(actions.model_dump())  # of an older class, perhaps with fewer fields
    fields["long_running_tool_ids"] = set(_decoded(row.get("long_running_tool_ids_json")) or ())
    return AdkEvent.model_validate({**fields, "timestamp": _seconds(row["timestamp"])})


def _decoded(value: Any) -> Any:
    """JSON that a driver may have decoded already."""
    return json.loads(value) if isinstance(value, (str, bytes)) else value


def _object(value: Any, found: Names) -> dict[str, Any]:
    try:
        state = _decoded(value)
    except ValueError as error:
        raise Invalid(f"A state of {found.session!r} in the source is no JSON: {error}.") from error
    if not isinstance(state, dict):
        raise Invalid(f"A state of {found.session!r} in the source is no JSON object.")
    return state


def _seconds(value: Any) -> float:
    """A time as seconds since 1970. What has no time zone is UTC, as ADK reads it."""
    if isinstance(value, (int, float)):
        return float(value)
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return float((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


def open_tables(address: str) -> Tables:
    """Open a database, read-only. See `importing.open_source`."""
    scheme, _, rest = address.partition("://")
    dialect = scheme.partition("+")[0]
    if not rest or dialect == "sqlite":
        return _checked(*_open_file(Path(rest.removeprefix("/") if rest else address)))
    if dialect not in DRIVERS:
        raise Invalid(f"ADK's sessions are read from SQLite, PostgreSQL and MySQL, not from {dialect!r:.40}.")
    return _checked(*_open_url(f"{DRIVERS[dialect]}://{rest}"))


def _checked(ask: Ask, tie: str, close: Callable[[], None]) -> Tables:
    try:
        tables = Tables(ask, tie, close)
        try:
            _, rows = ask("SELECT * FROM adk_internal_metadata", {})
        except Invalid:  # the table is newer than the first schemas
            rows = []
        version = next((row["value"] for row in rows if row["key"] == "schema_version"), "1")
        if version not in SCHEMAS:
            raise Unsupported(f"The source has ADK's schema {version!r:.40}; this adapter knows {' and '.join(SCHEMAS)}: upgrade perdure.")
    except BaseException:
        close()
        raise
    return tables


def _open_file(path: Path) -> tuple[Ask, str, Callable[[], None]]:
    if not path.is_file():
        raise NotFound(f"There is no file {str(path)!r}.")
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)
    connection.row_factory = sqlite3.Row

    def ask(query: str, values: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
        try:
            cursor = connection.execute(query, values)
            return [column[0] for column in cursor.description], [dict(row) for row in cursor]
        except sqlite3.Error as error:
            raise Invalid(f"{str(path)!r} is no database of ADK's sessions ({error}).") from None

    return ask, "rowid", connection.close


def _open_url(url: str) -> tuple[Ask, str, Callable[[], None]]:
    try:
        import sqlalchemy
        from sqlalchemy.exc import DBAPIError, OperationalError

        engine = sqlalchemy.create_engine(url)
    except ImportError as error:
        raise Unsupported(f"Reading this database needs sqlalchemy and a driver ({error}).") from None
    try:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except OperationalError as error:
        engine.dispose()
        raise Unavailable(f"The source does not answer ({error.orig}).") from None

    def ask(query: str, values: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
        try:
            result = connection.execute(sqlalchemy.text(query), values)
            return list(result.keys()), [dict(row) for row in result.mappings()]
        except DBAPIError as error:
            raise Invalid(f"There is no database of ADK's sessions at this URL ({error.orig}).") from None

    def close() -> None:
        connection.close()
        engine.dispose()

    return ask, "id", close
