"""What requests say and answers hold, as types: they check what comes in, and describe it in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from perdure.errors import Invalid
from perdure.model.events import Event
from perdure.model.ops import TAKING, Op, TakingOp

Level = Literal["memory", "buffered", "local", "quorum"]
Base = Annotated[int, Meta(ge=1)] | str


class OperationBody(msgspec.Struct, forbid_unknown_fields=True):
    """One change of the state."""

    op: Literal["set", "remove", "init", "append", "splice", "add", "union", "merge", "test"]
    path: str
    """A JSON Pointer."""
    value: Any = None
    """What the operation needs: a value, a list, a number, or for splice [index, out, items]."""
    taken: bool = False
    """For set, remove and splice: what is taken out is kept by you, and has to be there still when others wrote first."""

    def made(self) -> Op:
        """As the library has it. It is checked where it is written, but for what has another name there. Raises `Invalid`."""
        if self.taken and self.op not in TAKING:
            raise Invalid(f"`taken` is for {', '.join(TAKING)}, and not for {self.op}.", advice="")
        return TakingOp(self.op, self.path, self.value) if self.taken else Op(self.op, self.path, self.value)


class EventBody(msgspec.Struct, forbid_unknown_fields=True):
    """Something that happened, and how the state changed by it."""

    type: str
    data: Any = None
    ops: list[OperationBody] = []

    def made(self) -> Event:
        """As the library has it."""
        return Event(self.type, self.data, tuple([op.made() for op in self.ops]))


class CommitBody(msgspec.Struct, forbid_unknown_fields=True):
    """A commit to append."""

    events: list[EventBody] = []
    ops: list[OperationBody] = []
    """Operations without an event of their own: they become one of the type `edited`."""
    actor: str | None = None
    """Who did it."""
    on_conflict: Literal["merge", "raise"] = "merge"
    """With `base`: what becomes of it where others wrote since."""
    recreate: bool = False
    """Go on from the tombstone of a deleted session."""
    durability: Level | None = None
    """The least level that the receipt may name."""
    base: Base | None = None
    """The version on which it was decided, alone or with its hash."""


class ReceiptBody(msgspec.Struct):
    """The proof of a commit."""

    version: int
    id: str
    hash: str
    at: str
    durability: Level
    duplicate: bool
    """Whether the idempotency key had been applied before: the receipt is then the first request's."""


class CommitOut(msgspec.Struct):
    """One commit of a session."""

    version: int
    at: str
    kind: Literal["data", "configure", "pin", "lease", "anchor", "tombstone", "moved"]
    actor: str | None
    key: str | None
    trace: str | None
    events: list[EventBody]
    epoch: int
    id: str
    prev: str
    hash: str


class CommitPage(msgspec.Struct):
    """Some commits of a session, and where there are more."""

    commits: list[CommitOut]
    next: str | None
    """The path of the next page; null at the end. It is in the header Link too."""


class StateBody(msgspec.Struct):
    """A session's state. `status`, `tags`, `created_at` and `updated_at` are the session's today: they are left out with `at`."""

    session: str
    version: int
    hash: str
    at: str
    state: Any
    token: str
    """Pass it as `at_least` to any node to read no older state."""
    status: str | UnsetType = UNSET
    tags: dict[str, str] | UnsetType = UNSET
    created_at: str | UnsetType = UNSET
    updated_at: str | UnsetType = UNSET


class InfoBody(msgspec.Struct):
    """A session's row."""

    session: str
    version: int
    status: str
    tags: dict[str, str]
    created_at: str
    updated_at: str
    due_at: str | UnsetType | None = UNSET
    """In a listing of what is due: when (RFC 3339); null: at once, because no sweeper has looked at it since its policy was set."""
    why: str | UnsetType = UNSET
    """In a listing of what is due: `look`, `expire`, `wake`, `claim`, `keep` or `purge`."""


class SessionPage(msgspec.Struct):
    """Some sessions, and where there are more."""

    sessions: list[InfoBody]
    next: str | None


class ProblemBody(msgspec.Struct):
    """A problem document (RFC 9457)."""

    type: str
    """urn:perdure:error: and the kind of error."""
    title: str
    """What the kind means, and what to do."""
    status: int
    detail: str
    """What happened."""
    code: str
    """A stable name for programs."""
    retryable: bool
    """Whether the same request, sent again unchanged, may succeed."""
    facts: dict[str, Any]
    advice: str | UnsetType = UNSET
    """What to do in this case; left out where the detail says all."""
    trace_id: str | UnsetType = UNSET
