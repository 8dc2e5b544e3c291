"""Other values, bits and types in every column of a SQLite file: the right answer or `Corrupt`, and `verify` finds them all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest

import perdure
from tests.support.engine.flipped import READS, WRITES, Action, fill, others, outcome, verified


def changes(path: Path) -> list[tuple[str, int, str, Any]]:
    """Every column of every row but the store's own: (table, its row, column, another value)."""
    found = []
    connection = apsw.Connection(str(path))
    keys = {"session": "n", "tag": "id", "log": "pos", "key": "n, key", "snapshot": "n, version"}
    for table, key in keys.items():
        columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})") if (table, name) != ("log", "pos")]
        for number, row in enumerate(connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {key}").fetchall()):
            for column, value in zip(columns, row, strict=True):
                found += [(table, number, column, other) for other in others(value)]
    connection.close()
    return found


def change(path: Path, table: str, number: int, column: str, value: Any) -> bool:
    """Put another value there; false where a constraint forbids it."""
    connection = apsw.Connection(str(path))
    keys = {"session": "n", "tag": "id", "log": "pos", "key": "n, key", "snapshot": "n, version"}
    identity = "rowid" if table in ("session", "log", "snapshot") else keys[table].replace("id", "tenant, name, value, id")
    row = connection.execute(f"SELECT {identity} FROM {table} ORDER BY {keys[table]} LIMIT 1 OFFSET {number}").fetchone()
    where = " AND ".join(f"{name} = ?" for name in identity.split(", "))
    try:
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (value, *row))
    except (apsw.ConstraintError, apsw.MismatchError):
        return False
    finally:
        connection.close()
    return True


UNSEEN = {
    ("session", "tenant"),
    ("session", "id"),
    ("session", "n"),
    ("log", "n"),
    ("log", "version"),
    ("key", "n"),
    ("key", "key"),
    ("tag", "tenant"),
    ("tag", "id"),
    ("tag", "name"),
    ("tag", "value"),
}
"""What a row is found by. A row that is gone under its name is seen by `verify`, and by whom its new name leads to it."""


UNPROVEN = {("session", "due_at"), ("session", "control"), ("session", "size_bytes")}
"""What no commit says: cells that the engine holds for others. One that could not have been written so is `Corrupt`; another value of its
type is believed, and no read or write goes by it."""


async def suffer(folder: Path, part: slice) -> tuple[int, list[str], list[str]]:
    """Make some of all the changes, each on a copy: how many there were, what was answered wrongly, and what `verify` did not find."""
    whole, file = folder / "whole.db", folder / "file.db"
    url = f"sqlite:///{file}"
    await fill(f"sqlite:///{whole}")
    truth: dict[str, Any] = {}
    wrong: list[str] = []
    unfound: list[str] = []

    async def check(actions: dict[str, Action], where: str, *, seen: bool) -> None:
        async with perdure.open(url, durability="buffered") as store:
            for name, action in actions.items():
                answer = await outcome(action, store)
                if seen and answer not in (truth[name], perdure.Corrupt):
                    wrong.append(f"{where}: {name} answers {answer!r} instead of {truth[name]!r}")

    for name, action in (READS | WRITES).items():
        shutil.copy(whole, file)
        async with perdure.open(url, durability="buffered") as store:
            truth[name] = await outcome(action, store)
    count = 0
    for table, number, column, value in changes(whole)[part]:
        seen = (table, column) not in UNSEEN
        where = f"{table}[{number}].{column} = {value!r:.60}"
        shutil.copy(whole, file)
        if change(file, table, number, column, value):
            count += 1
            await check(READS, where, seen=seen)
            if await verified(url) and (table, column) not in UNPROVEN:
                unfound.append(where)
            for name, action in WRITES.items():
                shutil.copy(whole, file)
                change(file, table, number, column, value)
                await check({name: action}, where, seen=seen)
    return count, wrong, unfound


def judge(found: tuple[int, list[str], list[str]], least: int) -> None:
    count, wrong, unfound = found
    assert count >= least
    assert not wrong, "\n".join(wrong[:30])
    assert not unfound, "\n".join(unfound[:30])


async def test_some_columns_of_some_rows(tmp_path: Path) -> None:
    """What the next test claims of every change, of one in fifty."""
    judge(await suffer(tmp_path, slice(None, None, 53)), 20)


@pytest.mark.slow("thousands of damaged files")
@pytest.mark.timeout(1800)
async def test_every_column_of_every_row(tmp_path: Path) -> None:
    """Whatever one column of one row is changed to: reads, listings, writes answer as before or with `Corrupt`, and `verify` finds it."""
    judge(await suffer(tmp_path, slice(None)), 1_000)
