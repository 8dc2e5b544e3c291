"""The world outside of the store: a desk that books rooms. It is safe to ask twice, and refuses a worker that lost its lease."""

from __future__ import annotations

import sqlite3
from contextlib import closing


class Refused(Exception):
    """Somebody with a newer lease was here already."""


class Desk:
    """A booking service in a file, for several processes. It books each name once, and remembers the highest token it has seen."""

    def __init__(self, path: str) -> None:
        self.path = path
        with closing(self._connection()) as file, file:
            file.execute("CREATE TABLE IF NOT EXISTS booking (name TEXT PRIMARY KEY, total INTEGER, number INTEGER)")
            file.execute("CREATE TABLE IF NOT EXISTS asked (token INTEGER)")

    def _connection(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=60)

    def book(self, name: str, total: int, token: int) -> int:
        """Book, or find what was booked under this name; the booking's number."""
        with closing(self._connection()) as file, file:
            file.execute("BEGIN IMMEDIATE")
            if token < (file.execute("SELECT max(token) FROM asked").fetchone()[0] or 0):
                raise Refused(f"{token} is an old token.")
            file.execute("INSERT INTO asked VALUES (?)", (token,))
            number = 1 + file.execute("SELECT count(*) FROM booking").fetchone()[0]
            file.execute("INSERT OR IGNORE INTO booking VALUES (?, ?, ?)", (name, total, number))
            return int(file.execute("SELECT number FROM booking WHERE name = ?", (name,)).fetchone()[0])

    def booked(self) -> list[tuple[str, int, int]]:
        """All bookings: name, total, number."""
        with closing(self._connection()) as file:
            return file.execute("SELECT name, total, number FROM booking ORDER BY number").fetchall()
