"""The index of one shard, in memory: what its log says of each session, folded entry by entry."""

from __future__ import annotations

from perdure.backends.objects.due import DueList
from perdure.backends.objects.segment import APPEND, CHANGE, PURGE, REQUIRE, TRUNCATE, Cells, Chain, Checkpoint, Entry
from perdure.backends.spi import NEVER, Row
from perdure.model.ids import SessionKey


class ShardIndex:
    """Sessions by name, and those that are due in order."""

    def __init__(self, min_writer: int) -> None:
        self.chains: dict[SessionKey, Chain] = {}
        self.due = DueList()
        self.logged_writer = 1
        """The least writer version that the shard takes, as its log says."""
        self._tagged_writer = min_writer
        self._cells: dict[SessionKey, Cells] = {}

    @property
    def min_writer(self) -> int:
        """The least writer version that the shard takes, as its log says, and as the store's name tag did when the store was opened."""
        return max(self.logged_writer, self._tagged_writer)

    def row(self, session: SessionKey) -> Row:
        """The index row of a session that is there."""
        chain, cells = self.chains[session], self._cells.get(session) or Cells()
        return Row(session, chain.head, dict(chain.tags), chain.created, cells.due_at, cells.control, cells.size_bytes)

    def is_at(self, row: Row) -> bool:
        """Whether the session's head and `due_at` are those of this row."""
        if row.session not in self.chains:
            return False
        found = self.row(row.session)
        return (found.head, found.due_at) == (row.head, row.due_at)

    def has_cells(self, session: SessionKey) -> bool:
        """Whether the session has any of the cells that came with schema 2."""
        return session in self._cells

    def apply(self, entry: Entry, position: int) -> None:
        """Fold an entry of the segment at this position. One of a kind that is not known changes nothing."""
        if entry.kind == REQUIRE:
            self.logged_writer = max(self.logged_writer, entry.below)
        elif entry.kind == APPEND:
            self._append(entry, position)
            if entry.has_cells:
                self._set_cells(entry)
        elif (chain := self.chains.get(entry.key)) is None:
            return
        elif entry.kind == CHANGE:
            self._set_cells(entry)
            self._cells[entry.key].changes.append(position)
        elif entry.kind in (TRUNCATE, PURGE):
            _truncate(chain, entry.below)
            if entry.kind == PURGE:
                self._purge(entry.key, chain, entry.below)

    def _append(self, entry: Entry, position: int) -> None:
        chain = self.chains.get(entry.key)
        if chain is None:
            first = entry.records[0]
            chain = self.chains[entry.key] = Chain(first.head, first.at, {}, {}, first.version, [])
        for record in entry.records:
            chain.head = record.head
            chain.positions.append(position)
            if record.key is not None:
                chain.keys[record.key] = (record.version, record.request)
        if entry.tags is not None:
            chain.tags = entry.tags

    def _set_cells(self, entry: Entry) -> None:
        cells = self._cells.setdefault(entry.key, Cells())
        if entry.due_at is not None:
            self._set_due(entry.key, cells, None if entry.due_at == NEVER else entry.due_at)
        if entry.control is not None:
            cells.control = entry.control
        if entry.size_bytes is not None:
            cells.size_bytes = entry.size_bytes

    def _set_due(self, session: SessionKey, cells: Cells, due_at: int | None) -> None:
        if cells.due_at is not None:
            self.due.remove((cells.due_at, session))
        if due_at is not None:
            self.due.add((due_at, session))
        cells.due_at = due_at

    def _purge(self, session: SessionKey, chain: Chain, blank: int) -> None:
        chain.keys, chain.tags, chain.blank = {}, {}, blank
        cells = self._cells.pop(session, None) or Cells()
        self._set_due(session, cells, None)
        chain.unclean = sorted({*chain.unclean, chain.positions[0], *cells.changes})

    def checkpoint(self, position: int, writer: int) -> Checkpoint:
        """The index as of this position, as a writer of this version puts it."""
        chains = tuple([(*session, chain) for session, chain in self.chains.items()])
        cells = tuple([(*session, cells) for session, cells in self._cells.items()])
        return Checkpoint(position, chains, writer, self.logged_writer, cells)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint. Only while the index is empty."""
        self.chains = {SessionKey(tenant, id): chain for tenant, id, chain in checkpoint.chains}
        self._cells = {SessionKey(tenant, id): cells for tenant, id, cells in checkpoint.cells}
        self.due = DueList((cells.due_at, session) for session, cells in self._cells.items() if cells.due_at is not None)
        self.logged_writer = max(self.logged_writer, checkpoint.min_writer)


def _truncate(chain: Chain, below: int) -> None:
    dropped = below - chain.first
    if dropped > 0:
        chain.unclean = sorted({*chain.unclean, *chain.positions[:dropped]})
        del chain.positions[:dropped]
        chain.first = below
