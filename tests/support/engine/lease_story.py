"""Tells a play of workers that want one session as a person would: a line for each thing that happened, with its time and who did it.

    t=   0.0s  cid takes the lease of trip-42, token 1, ttl 3 s [version 1]
    t=   0.0s  ann challenges cid, who holds token 1 [version 2]
    t=   1.0s  ann takes the lease of trip-42 from cid, token 2, ttl 30 s [version 3]
    BROKEN RULE: A challenge has to stand for the holder's whole ttl before the lease is taken. cid held token 1 with a ttl of 3 s, and …

What is in the chain is told from the chain, so that it is true whatever answers were lost. Tokens are numbered as they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.model.commit import Commit, Kind
from perdure.model.epoch import grant_of, is_challenged, is_exclusive


class BrokenRule(AssertionError):
    """A rule does not hold; the message is the story. `rule` is the sentence that is not true."""

    def __init__(self, story: str, rule: str) -> None:
        super().__init__(story)
        self.rule = rule


class Story:
    """The lines so far. `names`: who made which claim, by the claim's id."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.names: dict[str, str] = {}
        self.lines: list[str] = []
        self._waiting: list[str] = []
        self._tokens: dict[int, int] = {}
        self._claims: dict[str, int] = {}
        self._told = 0
        self._holder: str | None = None

    def token(self, grant: int) -> str:
        """A fencing token, as the story calls it."""
        return f"token {self._tokens.setdefault(grant, len(self._tokens) + 1)}"

    def token_of(self, claim: str) -> str:
        """The token that a claim has got."""
        return self.token(self._claims.get(claim, 0))

    def say(self, what: str | None) -> None:
        """Something that no commit tells. It is told after the commits of its round."""
        if what:
            self._waiting.append(what)

    def round(self, at: float, chain: Sequence[Commit]) -> None:
        """Tell what is new in the chain, and what was said meanwhile."""
        for number, commit in enumerate(chain):
            if commit.version > self._told:
                self._add(at, self._sentence(commit, chain[number - 1] if number else None))
                self._told = commit.version
        self._flush(at)

    def rewind(self, chain: Sequence[Commit]) -> None:
        """The chain is shorter now: its newest commits were lost."""
        self._told, self._holder = chain[-1].version if chain else 0, None
        for commit in chain:
            self._follow(commit)

    def ending(self, at: float, rule: str, what: str) -> BrokenRule:
        """The error with which the story ends."""
        self._flush(at)
        return BrokenRule("\n".join([*self.lines, f"BROKEN RULE: {rule} {what}"]), rule)

    def _flush(self, at: float) -> None:
        for what in self._waiting:
            self._add(at, what)
        self._waiting.clear()

    def _add(self, at: float, what: str | None) -> None:
        if what:
            self.lines.append(f"t={at:6.1f}s  {what}")

    def name(self, claim: str | None) -> str:
        """Who made a claim."""
        return "nobody" if claim is None else self.names.get(claim, claim)

    def _follow(self, commit: Commit) -> None:
        type, data = _event(commit)
        if type == "leased":
            self._holder = data["control"]["lease"]["id"]
            self._claims[self._holder] = grant_of(commit.epoch)
            self.names.setdefault(self._holder, commit.actor or "somebody")
        elif type in ("released", "broken") or commit.kind is Kind.tombstone:
            self._holder = None

    def _sentence(self, commit: Commit, before: Commit | None) -> str | None:
        type, data = _event(commit)
        holder, held = self.name(self._holder), self.token(0 if before is None else grant_of(before.epoch)) if self._holder else ""
        was_holder = self._holder
        self._follow(commit)
        who, end = commit.actor or "somebody", f" [version {commit.version}]"
        if type == "leased":
            lease = data["control"]["lease"]
            how = f", {self.token(grant_of(commit.epoch))}, ttl {lease['ttl']:g} s{', exclusive' if is_exclusive(commit.epoch) else ''}"
            if was_holder == lease["id"]:
                return f"{who} takes its own lease of {self.session} again{how}{end}"
            return f"{who} takes the lease of {self.session}{f' from {holder}' if was_holder else ''}{how}{end}"
        if type == "challenged":
            return f"{who} challenges {f'{holder}, who holds {held}' if was_holder else 'nobody'}{end}"
        if type == "renewed":
            return f"{who} answers the challenge of {held}{end}"
        if type == "released":
            return f"{who} releases {held}{end}"
        if type == "broken":
            return f"{who} breaks the lease of {holder}, {held}, by force{end}"
        if commit.kind is Kind.tombstone:
            return f"{who} deletes {self.session}{f', which {holder} holds with {held}' if was_holder else ''}{end}"
        if type == "work":
            answers = before is not None and is_challenged(before.epoch) and not is_challenged(commit.epoch)
            return f"{self.name(commit.actor)} writes under {self.token_of(who)}{', which answers the challenge' if answers else ''}{end}"
        if type == "chat":
            return f"{who} writes under no lease{end}"
        return f"{who} sets a policy{end}" if type == "configured" else None


def _event(commit: Commit) -> tuple[str, Any]:
    return (commit.events[0].type, commit.events[0].data) if commit.events else ("", None)
