"""What a power loss leaves: all that was synced, and of the rest a seeded choice: dropped, kept, or torn between sectors."""

from __future__ import annotations

import random
from pathlib import Path

from tests.support.crash.disk import Entry

SECTOR = 512
"""Bytes that a disk writes whole or not at all."""
Contents = dict[str, bytes]


class _Pending:
    """A change to a file since it was last synced. A failed sync makes it `doomed`: later syncs do not vouch for it any more."""

    __slots__ = ("doomed", "entry", "synced")

    def __init__(self, entry: Entry) -> None:
        self.entry, self.synced, self.doomed = entry, False, False


class DiskImage:
    """The disk as of a prefix of the journal: feed it entries, and ask it what a power loss at this moment may leave."""

    def __init__(self) -> None:
        self._safe: dict[int, bytearray] = {}
        self._pending: dict[int, list[_Pending]] = {}
        self._names: dict[str, int] = {}
        self._pending_names: list[Entry] = []

    def feed(self, entry: Entry) -> None:
        """The next thing that happened."""
        match entry.kind:
            case "create" | "delete":
                self._safe.setdefault(entry.inode, bytearray())
                self._pending.setdefault(entry.inode, [])
                self._pending_names.append(entry)
            case "sync folder":
                for change in self._pending_names:
                    _rename(self._names, change)
                self._pending_names.clear()
            case "write" | "truncate":
                self._pending[entry.inode].append(_Pending(entry))
            case "sync":
                self._sync(entry.inode)
            case "sync failed":
                for pending in self._pending[entry.inode]:
                    pending.doomed = not pending.synced

    def _sync(self, inode: int) -> None:
        pending = self._pending[inode]
        for change in pending:
            change.synced = not change.doomed
        while pending and pending[0].synced:
            _apply(self._safe[inode], pending.pop(0).entry)

    def after_power_loss(self, seed: int) -> Contents:
        """One of the folders that may be found: changes of names in order up to some point, changes of each file as the seed says."""
        chance = random.Random(seed)
        names = dict(self._names)
        for change in self._pending_names[: chance.randint(0, len(self._pending_names))]:
            _rename(names, change)
        found: Contents = {}
        for name, inode in sorted(names.items()):
            content = bytearray(self._safe[inode])
            style = chance.choice(("none", "all", "first", "each", "each", "sectors"))
            unsure = [change for change in self._pending[inode] if not change.synced]
            first = chance.randint(0, len(unsure))
            for change in self._pending[inode]:
                rank = unsure.index(change) if not change.synced else -1
                _maybe(content, change, chance, style, rank, first)
            found[name] = bytes(content)
        return found


def _maybe(content: bytearray, change: _Pending, chance: random.Random, style: str, rank: int, first: int) -> None:
    """Apply a change wholly, in part or not at all. "first" keeps what came first and tears the one on which the power failed."""
    if change.synced or style == "all" or (style == "first" and rank < first):
        _apply(content, change.entry)
    elif style == "none" or (style == "first" and rank > first):
        return
    elif style == "each":
        if chance.random() < 0.5:
            _apply(content, change.entry)
    elif change.entry.kind == "write":
        for piece in _sectors(change.entry):
            if chance.random() < 0.5:
                _apply(content, piece)
    elif chance.random() < 0.5:
        _apply(content, change.entry)


def _sectors(entry: Entry) -> list[Entry]:
    """A write in pieces that lie in one sector each."""
    pieces, start, end = [], entry.offset, entry.offset + len(entry.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        pieces.append(entry._replace(offset=start, data=entry.data[start - entry.offset : stop - entry.offset]))
        start = stop
    return pieces


def _apply(content: bytearray, entry: Entry) -> None:
    size = entry.offset + len(entry.data)
    if entry.kind == "truncate":
        del content[entry.offset :]
    if len(content) < size:
        content.extend(bytes(size - len(content)))
    content[entry.offset : size] = entry.data


def _rename(names: dict[str, int], entry: Entry) -> None:
    if entry.kind == "create":
        names[entry.name] = entry.inode
    elif names.get(entry.name) == entry.inode:
        del names[entry.name]


def lay_out(contents: Contents, folder: Path) -> None:
    """Make the folder hold these files and nothing else."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
