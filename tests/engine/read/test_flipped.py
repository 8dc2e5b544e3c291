"""Other values, bits and types in every column of a SQLite file: the right answer or `Corrupt`, and `verify` finds them all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

import perdure
from perdure import Event, op

SESSIONS = ("s", "tagged", "dead", "again", "child", "bare")
STEP = Event("step", None, (op.add("/n", 1),))


async def fill(url: str) -> None:
    """Sessions of each kind: with keys and a snapshot, a control commit at the head, a tombstone, a second life, a fork, events alone."""
    async with perdure.open(url, snapshot_bytes_min=300) as store:
        for number in range(7):
            await store.append("s", STEP, key=f"k{number}")
        await store.append("tagged", STEP)
        await store.configure("tagged", tags={"team": "ops"})
        for session in ("dead", "again"):
            await store.append(session, STEP, key="k")
            await store.delete(session)
        await store.append("again", STEP, key="k", recreate=True)
        await store.fork("s", at=3, id="child")
        for number in range(3):
            await store.append("bare", Event("said", number))


def _state(view: perdure.View) -> Any:
    return view.version, view.hash, view.state, view.status, dict(view.tags), view.created_at, view.updated_at


async def _infos(store: perdure.Store, **options: Any) -> Any:
    return [info async for info in store.list(**options)]


async def _past(store: perdure.Store, session: str) -> Any:
    return [commit async for commit in store.history(session)]


async def _written(receipt: Awaitable[perdure.Receipt], store: perdure.Store, session: str) -> Any:
    """What an append answers, and the chain that it leaves."""
    found = await receipt
    return found.version, found.duplicate, [commit.version for commit in await _past(store, session)]


Action = Callable[[perdure.Store], Awaitable[Any]]


async def _read(store: perdure.Store, session: str) -> Any:
    return _state(await store.read(session))


READS: dict[str, Action] = {
    **{f"read {name}": lambda store, name=name: _read(store, name) for name in SESSIONS},  # type: ignore[misc]
    **{f"history {name}": lambda store, name=name: _past(store, name) for name in SESSIONS},  # type: ignore[misc]
    "list": _infos,
    "list deleted": lambda store: _infos(store, status="deleted"),
    "list tagged": lambda store: _infos(store, tags={"team": "ops"}),
    "find": lambda store: store.find("s", "k3"),
    "find again": lambda store: store.find("again", "k"),
}
WRITES: dict[str, Action] = {
    "expect an old version": lambda store: store.append("s", STEP, expect=2, on_conflict="raise"),
    "expect an old version, events alone": lambda store: store.append("bare", Event("x"), expect=1, on_conflict="raise"),
    "expect the last data version": lambda store: _written(store.append("tagged", STEP, expect=1, on_conflict="raise"), store, "tagged"),
    "append": lambda store: _written(store.append("bare", Event("x")), store, "bare"),
    "append to a snapshot": lambda store: _written(store.append("s", STEP), store, "s"),
    "append to a dead one": lambda store: store.append("dead", STEP),
    "recreate": lambda store: _written(store.append("dead", STEP, recreate=True), store, "dead"),
    "a key again": lambda store: _written(store.append("s", STEP, key="k3"), store, "s"),
    "a key for something else": lambda store: store.append("s", Event("other"), key="k3"),
    "delete": lambda store: store.delete("dead"),
}


async def outcome(action: Action, store: perdure.Store) -> Any:
    """What it answers, or the error that it raises; any that is not ours passes through."""
    try:
        return await action(store)
    except perdure.Error as error:
        return type(error)


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


def others(value: Any) -> list[Any]:
    """A value with bits flipped, and as another type."""
    if type(value) is int:
        return [value ^ 1, value ^ 2, value ^ 4, value ^ 1 << 20, value ^ 1 << 62, -value - 1, f"text {value}", b"blob", value + 0.5]
    if type(value) is bytes:
        flipped = [
            bytes((*value[:at], value[at] ^ bit, *value[at + 1 :]))
            for at in {0, len(value) // 2, len(value) - 1}
            if value
            for bit in (1, 64)
        ]
        return [*flipped, value + b"\0", value[:-1], "text", 7] if value else [b"\0", "text", 7]
    if type(value) is str:
        return [value[:-1] + chr(ord(value[-1]) ^ 1), value + "x", value.encode(), 7]
    return ["k0", 7, b"blob"]


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


async def verified(url: str) -> bool:
    """Whether every session there was, and every one that is listed, is proven."""
    async with perdure.open(url) as store:
        with contextlib.suppress(perdure.Error):
            names = {*SESSIONS, *[info.session async for info in store.list()]}
            for name in names:
                await store.verify(name)
            return True
    return False


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
