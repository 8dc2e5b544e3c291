"""Whether what agents did under leases keeps the rules: their chains, and what each of them was told and when.

A chain says what was written under which grant; `lease_agents` says what its agents saw.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import perdure
from perdure.model.epoch import grant_of, is_challenged, is_held
from tests.support.service.lease_agents import TTL
from tests.support.service.told import Line


@dataclass
class Grant:
    """One lease, as the chain has it."""

    take: str
    token: int
    version: int
    ending: str = "held"
    """How it ended: `released`, or `taken` by the next one; `held` at the chain's end."""
    follower: int = 0
    """The token of the lease that came next."""
    keys: list[str] = field(default_factory=list)
    """What was written under it."""


def grants_of(chain: Sequence[perdure.Commit]) -> list[Grant]:
    """The leases of one session in order. Raises `AssertionError` where a commit may not follow those before it."""
    grants: list[Grant] = []
    holder: Grant | None = None
    epoch = 0
    for commit in chain:
        token, kind = grant_of(commit.epoch), commit.events[0].type
        assert token >= grant_of(epoch), f"the token of version {commit.version} is lower than the one before"
        if kind == "leased":
            take = commit.events[0].data["control"]["lease"]["owner"]
            assert token > grant_of(epoch), f"{take} has no token of its own"
            if grants:
                grants[-1].follower = token
            if holder is not None:
                assert is_challenged(epoch), f"{take} has taken the lease of {holder.take}, whom nobody had asked"
                holder.ending = "taken"
            holder = Grant(take, token, commit.version)
            grants.append(holder)
        elif kind == "challenged":
            assert is_held(epoch) and not is_challenged(epoch), f"version {commit.version} challenges nobody, or again"
        elif kind == "renewed":
            assert holder is not None and commit.actor == holder.take and token == holder.token
        elif kind == "released":
            assert holder is not None and commit.actor == holder.take, f"version {commit.version} releases what another one holds"
            holder.ending, holder = "released", None
        else:
            written = commit.events[0].data
            assert holder is not None and is_held(commit.epoch), f"{written} was written after its lease"
            assert (written["take"], written["token"], token) == (holder.take, holder.token, holder.token), (
                f"{written} was written while {holder.take} held {holder.token}"
            )
            assert not is_challenged(commit.epoch), f"version {commit.version} leaves a challenge unanswered"
            holder.keys.append(str(commit.key))
        epoch = commit.epoch
    return grants


class History:
    """What agents told, beside the chains of their sessions."""

    def __init__(self, lines: Sequence[Line], dead: Collection[str], chains: dict[str, list[perdure.Commit]]) -> None:
        """`dead`: names of processes that were killed."""
        self.lines, self.dead = lines, dead
        self.grants = {session: grants_of(chain) for session, chain in chains.items()}
        self.versions = {str(commit.key): commit.version for chain in chains.values() for commit in chain if commit.key is not None}
        keys = [str(commit.key) for chain in chains.values() for commit in chain if commit.key is not None]
        assert len(keys) == len(set(keys)), "a key was applied twice"
        self._held = {(line["session"], line["token"]): line for line in lines if line["what"] == "held"}
        """By session and token: a take whose answer is lost may be sent again once somebody else has followed it."""

    def _by_take(self, what: str) -> dict[str, Line]:
        return {line["take"]: line for line in self.lines if line["what"] == what}

    def taken_over(self) -> list[Grant]:
        """The leases that somebody else took from their holders."""
        return [grant for grants in self.grants.values() for grant in grants if grant.ending == "taken"]

    def check(self) -> None:
        """Raise `AssertionError` for a rule that does not hold."""
        self._acknowledged_writes_are_there()
        self._one_order()
        self._losers_are_told()
        self._confirmed_leases_held()

    def _acknowledged_writes_are_there(self) -> None:
        """What was acknowledged is in the chain, at that version; what was refused at its first try is not; and nobody else wrote."""
        unsure = {line["do"] for line in self.lines if line["what"] == "unsure"}
        sent = {line["key"] for line in self.lines if line["what"] == "writing"}
        written = {key for grants in self.grants.values() for grant in grants for key in grant.keys}
        assert written <= sent
        for line in self.lines:
            if line["what"] == "wrote":
                assert self.versions.get(line["key"]) == line["version"], f"lost: {line}"
            elif line["what"] == "fenced" and line["do"] not in unsure:
                assert line["do"] not in written, f"it was refused, and is there: {line}"

    def _one_order(self) -> None:
        """The chains' order is that of real time: no call that ended before another one began comes after it."""
        for session, grants in self.grants.items():
            calls = [(grant.version, self._held[session, grant.token]) for grant in grants if (session, grant.token) in self._held]
            takes = {line["take"] for _, line in calls}
            calls += [(line["version"], line) for line in self.lines if line["what"] == "wrote" and line["take"] in takes]
            latest = 0.0
            for _, call in sorted(calls, key=lambda each: each[0]):
                assert call["ended"] >= latest, f"the chain has it after what began later: {call}"
                latest = max(latest, call["began"])

    def _losers_are_told(self) -> None:
        """Whoever lost a lease, and lives, was told so; who was refused had lost it; a release that was acknowledged ended the lease."""
        fenced = self._by_take("fenced")
        told = {*fenced, *self._by_take("over")}
        released, over = self._by_take("released"), self._by_take("over")
        for session, grants in self.grants.items():
            for grant in grants:
                line = self._held.get((session, grant.token))
                assert grant.ending != "held", f"{grant} was never let go"
                if line is None:  # Its answer was lost: nobody knows of it.
                    continue
                assert line["take"] == grant.take, (line, grant)
                if line["by"] not in self.dead:
                    assert grant.ending != "taken" or grant.take in told, f"nobody told the holder of {grant}"
                assert grant.take not in released or grant.ending == "released", f"its release was acknowledged: {grant}"
                refused = grant.take in fenced and grant.take not in over
                assert not refused or grant.ending == "taken", f"its holder was refused: {grant}, {fenced[grant.take]}"

    def _confirmed_leases_held(self) -> None:
        """Nobody takes over within a ttl from the start of a confirmation."""
        for session, grants in self.grants.items():
            for grant in grants:
                held, next = self._held.get((session, grant.token)), self._held.get((session, grant.follower))
                if grant.ending != "taken" or held is None or next is None:
                    continue
                for line in self.lines:
                    if line["what"] == "confirmed" and line["take"] == grant.take:
                        assert next["ended"] >= line["began"] + TTL, f"{line}, and {next}"
