"""The rules of leases, as a judge sees them who knows all: the whole chain, when each commit came, and which worker has shown when that it
is alive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from perdure.engine.leasing.lease import Lease
from perdure.engine.leasing.rules import Claim
from perdure.engine.store import Store
from perdure.model.commit import Commit, Kind
from perdure.model.epoch import grant_of, is_challenged, is_exclusive, is_held, sequence_of
from tests.support.engine.lease_story import BrokenRule, Story

RISES = "The token of a session never falls."
TAKE_RAISES = "A take raises the token."
ASKED = "Only a lease whose challenge stands is taken from its holder."
WHOLE_TTL = "A challenge has to stand for the holder's whole ttl before the lease is taken."
ANSWERED = "A holder that answers keeps its lease."
ONE_CHALLENGE = "What is challenged is not challenged again."
SILENT_LOOK = "A look that does not ask writes nothing."
OWN_END = "Nobody else releases a holder's lease."
ENDS = "The end of a lease raises the token, and nobody holds the session then."
FENCED = "Nothing is written under a lease that is lost."
WRITES_ANSWER = "A write under the lease answers the challenge."
EXCLUSIVE = "Nothing is written beside an exclusive lease."
KNOWN = "Nobody is told that a lease is lost that still holds."
FREE_FORK = "A fork begins free."
GETS_THROUGH = "One who waits for holders that are silent gets the lease."
SWEPT = "A sweeper does not end a session that is held."
SWEEPER = "perdure sweep"


@dataclass
class Worker:
    """One worker, with a store object of its own."""

    store: Store
    number: int
    name: str
    claim: Claim | None = None
    lease: Lease | None = None
    old: list[Lease] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    proofs: list[float] = field(default_factory=list)
    """When this worker has shown that it is alive: the starts of looks and writes that succeeded."""


class Judge:
    """Compares chains with the rules. Raises `BrokenRule`, with the story."""

    sequence_end = 4095
    """Where a lease needs a new grant."""

    def __init__(self, story: Story, owners: dict[str, Worker], sweeper: Worker) -> None:
        self.story, self.owners, self.sweeper = story, owners, sweeper
        self.now = 0.0
        self.times: dict[int, float] = {}
        """When each version came."""
        self.rewound = False
        """Whether answers and challenges may have been lost: who is deposed, and when, is then not judged. Who may write is."""

    def broken(self, rule: str, what: str) -> BrokenRule:
        """The error, with the story so far."""
        return self.story.ending(self.now, rule, what)

    def chain(self, chain: Sequence[Commit]) -> None:
        """Each commit follows the ones before it."""
        owner: str | None = None
        challenged_at = grant = 0
        before: Commit | None = None
        for commit in chain:
            version, type = commit.version, commit.events[0].type if commit.events else ""
            if before is not None and grant_of(commit.epoch) < grant_of(before.epoch):
                raise self.broken(RISES, f"Version {version} has a lower one than the version before.")
            rises = before is None or grant_of(commit.epoch) > grant_of(before.epoch)
            held = "Nobody holds the session" if owner is None else f"{self.story.name(owner)} holds {self.story.token(grant)}"
            if type == "leased":
                id = commit.events[0].data["control"]["lease"]["id"]
                if commit.actor == SWEEPER:
                    self.owners.setdefault(id, self.sweeper)
                if not rises:
                    raise self.broken(TAKE_RAISES, f"{commit.actor} took the lease with version {version}, and it did not.")
                if owner not in (None, id) and before is not None:
                    self._take_over(owner, challenged_at, commit, before, held)
                owner, grant, challenged_at = id, grant_of(commit.epoch), 0
            elif type == "challenged":
                if before is not None and is_challenged(before.epoch):
                    raise self.broken(ONE_CHALLENGE, f"{held}, and {commit.actor} did it with version {version}.")
                challenged_at = version
            elif type in ("released", "broken") or commit.kind is Kind.tombstone:
                if type == "released" and owner is not None and commit.actor != self.story.name(owner):
                    raise self.broken(OWN_END, f"{held}, and {commit.actor} released it with version {version}.")
                if commit.actor == SWEEPER and commit.kind is Kind.tombstone and owner is not None:
                    raise self.broken(SWEPT, f"{held}, and the sweeper ended the session with version {version}.")
                if is_held(commit.epoch) or not rises:
                    raise self.broken(ENDS, f"{held}, and version {version} ended nothing.")
                owner, challenged_at = None, 0
            elif type == "work":
                if commit.actor != owner or grant_of(commit.epoch) != grant:
                    writer = f"{self.story.name(commit.actor)} wrote version {version} under {self.story.token_of(commit.actor or '')}"
                    raise self.broken(FENCED, f"{held}, and {writer}.")
                if is_challenged(commit.epoch) and challenged_at and sequence_of(commit.epoch) < self.sequence_end:
                    raise self.broken(WRITES_ANSWER, f"{held}, was challenged with version {challenged_at}, and version {version} did not.")
            elif type == "chat" and before is not None and is_exclusive(before.epoch):
                raise self.broken(EXCLUSIVE, f"{held}, and {commit.actor} wrote version {version}.")
            before = commit

    def _take_over(self, owner: str | None, challenged_at: int, take: Commit, before: Commit, held: str) -> None:
        assert owner is not None
        taker, victim = f"{take.actor} took the lease as {self.story.token(grant_of(take.epoch))}", self.owners[owner]
        held = held.replace(" holds ", " held ")
        if not challenged_at or not is_challenged(before.epoch):
            raise self.broken(ASKED, f"{held}, and {taker}: nobody had asked.")
        if self.rewound:
            return
        ttl = next((each.ttl for each in [*victim.old, victim.lease] if each is not None and each._claim.id == owner), 0.0)
        began, ended = self.times[challenged_at], self.times[take.version]
        if ended - began < ttl:
            raise self.broken(WHOLE_TTL, f"{held} with a ttl of {ttl:g} s, and {taker} {ended - began:g} s after the challenge.")
        proofs = [proof for proof in victim.proofs if began < proof < ended]
        if victim.lease is not None and victim.lease._claim.id == owner and proofs:
            raise self.broken(ANSWERED, f"{held} and was seen alive at t={proofs[0]:.1f}s, and {taker}.")

    def belief(self, worker: Worker, chain: Sequence[Commit]) -> None:
        """What a worker believes of its lease is not worse than what is so."""
        lease = worker.lease
        if lease is not None and lease._over and chain and is_held(chain[-1].epoch) and holder(chain) == lease._claim.id:
            raise self.broken(KNOWN, f"{worker.name} holds {self.story.token(grant_of(chain[-1].epoch))}, and heard that it is lost.")


def holder(chain: Sequence[Commit]) -> str | None:
    """The claim that holds the session at the end of this chain."""
    owner: str | None = None
    for commit in chain:
        data: Any = commit.events[0].data if commit.events else None
        if commit.kind is Kind.tombstone:
            owner = None
        elif commit.kind is Kind.lease and isinstance(data, dict) and "control" in data:
            lease = data["control"]["lease"]
            owner = None if lease is None else lease["id"]
    return owner
