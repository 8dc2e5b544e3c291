"""The files under an open SQLite store: unlinked, replaced, moved; and paths that no file can have."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

import perdure
from perdure import Event


def unlinked(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    """Another store is put in its place, as a restore does."""
    other = path.with_name("other.db")
    with perdure.sync.open(f"sqlite:///{other}") as store:
        store.append("s", Event("theirs"))
    other.replace(path)


def copied_over(path: Path) -> None:
    """The same bytes, in another file."""
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.replace(path)


def moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def folder_moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def log_unlinked(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def log_replaced(path: Path) -> None:
    log = path.with_name(f"{path.name}-wal")
    log.unlink()
    log.touch()


CHANGES = [unlinked, replaced, copied_over, moved, folder_moved, log_unlinked, log_replaced]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "a.db"


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("durability", ["local", "buffered"])
def test_what_goes_to_a_file_without_its_name_is_not_acknowledged(path: Path, change: Callable[[Path], None], durability: str) -> None:
    """Once the file or its log was removed, moved or replaced, an append, a key that is looked for and a deletion are `Unavailable`."""
    store = perdure.sync.open(f"sqlite:///{path}", durability=durability)
    store.append("s", Event("a"), key="k")
    change(path)
    for call in (lambda: store.append("s", Event("b")), lambda: store.find("s", key="k"), lambda: store.delete("s")):
        with pytest.raises(perdure.Unavailable, match="removed, moved or replaced"):
            call()
    store.close()


@pytest.mark.parametrize("change", [unlinked, replaced, moved], ids=lambda change: change.__name__)
def test_a_connection_made_later_is_to_the_same_file(path: Path, change: Callable[[Path], None]) -> None:
    """A store whose writing connection was not opened yet does not open another file for it, nor make one."""
    with perdure.sync.open(f"sqlite:///{path}") as store:
        store.append("s", Event("a"))
    store = perdure.sync.open(f"sqlite:///{path}")
    change(path)
    there = path.exists()
    with pytest.raises(perdure.Unavailable, match="removed, moved or replaced"):
        store.append("s", Event("b"))
    store.close()
    assert path.exists() == there


def test_a_file_that_goes_away_during_a_commit_is_unknown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed to a file that lost its name before it was acknowledged is `Unknown`; the next append finds out at once."""
    from perdure.backends.sqlite.writer import BatchWriter

    store = perdure.sync.open(f"sqlite:///{path}")
    store.append("s", Event("a"))
    store.read("s")  # A connection that reads is open, and stays with the old file.
    commit = BatchWriter._commit

    def then_unlink(writer: BatchWriter) -> None:
        commit(writer)
        path.unlink()

    monkeypatch.setattr(BatchWriter, "_commit", then_unlink)
    with pytest.raises(perdure.Unknown, match="removed, moved or replaced"):
        store.append("s", Event("b"), key="k")
    with pytest.raises(perdure.Unavailable):
        store.append("s", Event("b"), key="k")
    store.close()


def test_a_file_that_is_put_back_is_served_again(path: Path) -> None:
    """Moved away and back it is the same file: nothing was lost, and work goes on."""
    away = path.with_name("away.db")
    with perdure.sync.open(f"sqlite:///{path}") as store:
        store.append("s", Event("a"))
        path.rename(away)
        with pytest.raises(perdure.Unavailable):
            store.append("s", Event("b"))
        away.rename(path)
        assert store.append("s", Event("c")).version == 2
    with perdure.sync.open(f"sqlite:///{path}") as store:
        assert [commit.events[0].type for commit in store.history("s")] == ["a", "c"]


def test_a_file_that_another_one_makes_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the attempt to open it and the look whether it is there: the store is opened, and both write to it."""
    url = f"sqlite:///{path}"

    class Late(apsw.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            try:
                super().__init__(*arguments, **options)
            except apsw.CantOpenError:
                monkeypatch.undo()
                with perdure.sync.open(url) as other:
                    other.append("s", Event("theirs"))
                raise

    monkeypatch.setattr(apsw, "Connection", Late)
    with perdure.sync.open(url) as store:
        store.append("s", Event("ours"))
        assert [commit.events[0].type for commit in store.history("s")] == ["theirs", "ours"]


def test_a_link_to_the_file_is_followed(path: Path) -> None:
    """A store opened by a link goes on while the link leads to its file, and not when it is led elsewhere; its log lies beside the file."""
    link = path.with_name("link.db")
    with perdure.sync.open(f"sqlite:///{path}") as store:
        store.append("s", Event("a"))
    link.symlink_to(path)
    store = perdure.sync.open(f"sqlite:///{link}")
    assert store.append("s", Event("b")).version == 2
    path.with_name("a.db-wal").unlink()
    with pytest.raises(perdure.Unavailable, match="removed, moved or replaced"):
        store.append("s", Event("c"))
    store.close()


@pytest.mark.parametrize("name", ["a" * 300, "b" * 300 + "/x.db", "c/" * 3000 + "x.db"], ids=["file", "folder", "path"])
@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("scheme", ["sqlite:///", "file://"])
def test_a_path_that_is_too_long(tmp_path: Path, name: str, scheme: str, create: bool) -> None:
    """A name that no file system takes is an error of ours, and nothing is made."""
    with pytest.raises((perdure.Invalid, perdure.NotFound)):
        perdure.sync.open(f"{scheme}{tmp_path}/{name}", create=create)
    assert list(tmp_path.iterdir()) == []


def test_a_working_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path from a folder that was removed is `Invalid`."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(perdure.Invalid):
        perdure.sync.open("sqlite:///a.db")
    os.chdir(tmp_path)
