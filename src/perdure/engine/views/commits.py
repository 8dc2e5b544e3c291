"""What a write, a proof and a change of any session answer with."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec

from perdure.backends.spi import Durability
from perdure.model.commit import Commit
from perdure.model.ids import NAME_BYTES_MAX, check_name, uuid_text
from perdure.model.timestamps import rfc3339, shown, to_datetime


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The proof of a commit: where it stands, and what it survives.

    `id` is the commit's (16 bytes), `at` its time in nanoseconds since 1970. `duplicate` is true when the idempotency key had
    been applied before: the receipt is then the first call's.
    """

    version: int
    id: bytes
    hash: bytes
    at: int
    durability: Durability
    duplicate: bool = False

    @property
    def time(self) -> datetime:
        """`at` as an aware datetime (UTC), to its microseconds."""
        return to_datetime(self.at)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it: the id as a UUID, the hash in hexadecimal, `at` as RFC 3339, the durability by its name."""
        return {
            "version": self.version,
            "id": uuid_text(self.id),
            "hash": self.hash.hex(),
            "at": rfc3339(self.at),
            "durability": self.durability.name,
            "duplicate": self.duplicate,
        }

    def __repr__(self) -> str:
        again = ", applied before" if self.duplicate else ""
        return f"<Receipt [{self.durability.name}{again}] version={self.version} {shown(self.time)}>"


class Verified(msgspec.Struct, frozen=True):
    """What `verify` proved: how many commits hang together, up to which version and hash, and how many snapshots equal the fold."""

    session: str
    version: int
    hash: bytes
    commits: int
    snapshots: int


def only(commit: Commit, types: Collection[str] | None) -> Commit | None:
    """The commit with those of its events that have one of these types (`None`: all); `None` where it has none."""
    if types is None:
        return commit
    events = tuple(event for event in commit.events if event.type in types)
    return msgspec.structs.replace(commit, events=events) if events else None


class Change(msgspec.Struct, frozen=True):
    """A commit of some session of this tenant, as `changes` gives it.

    `cursor` is an opaque text: pass it as `after=` to go on after this commit, in any process. It fits this store and tenant only.
    """

    session: str
    commit: Commit
    cursor: str

    def key(self, consumer: str, *parts: str) -> str:
        """An idempotency key for what a consumer writes because of this commit: the same at every delivery, so that it is applied once.

        Made of the consumer's name, the parts, the session and the version. Where a commit leads to several writes to one session, give
        each a part of its own. At most 255 bytes: longer ones become a digest. Raises `Invalid` for what is no name.
        """
        names = [check_name("A part of a key", part) for part in (consumer, *parts, self.session)]
        key = ":".join([*(name.replace("%", "%25").replace(":", "%3A") for name in names), str(self.commit.version)])
        if len(key.encode()) <= NAME_BYTES_MAX:
            return key
        return f"{blake2b(key.encode(), digest_size=32).hexdigest()}:{self.commit.version}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it: session and cursor, and beside them what `Commit.to_dict` gives."""
        return {"session": self.session, "cursor": self.cursor, **self.commit.to_dict()}

    def __repr__(self) -> str:
        return f"<Change {self.session} {self.commit!r}>"
