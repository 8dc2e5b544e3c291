"""The nodes of a service: which one takes the next request, and which are left alone for a while. Plain state on one loop.

choice    of two nodes taken at random the one with fewer requests in flight
ejection  a node that failed `FAILURES_MAX` times in a row gets no requests for a while, twice as long each time
probe     after that it gets one request; what becomes of it decides
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

FAILURES_MAX = 3
"""Failures in a row after which a node is left alone."""
AWAY_FIRST, AWAY_MAX = 0.5, 30.0
"""Seconds for which it is, at first and at most."""
_CHOICE_BITS = 16


class Member:
    """One node, by its URL (`http://host:port`, perhaps with a path)."""

    __slots__ = ("away_until", "failures", "in_flight", "probing", "url")

    def __init__(self, url: str) -> None:
        self.url = url
        self.in_flight = 0
        self.failures = 0
        """In a row."""
        self.away_until = 0.0
        self.probing = False
        """Whether one request finds out if it is back."""

    def __repr__(self) -> str:
        return f"<Member {self.url} in_flight={self.in_flight} failures={self.failures}>"


class Pool:
    """The nodes that are known. `tick` is a monotonic clock in seconds, `bits` gives random numbers of so many bits."""

    def __init__(self, urls: Iterable[str], tick: Callable[[], float], bits: Callable[[int], int]) -> None:
        self._tick, self._bits = tick, bits
        self._members: dict[str, Member] = {}
        self.replace(urls)

    @property
    def members(self) -> Sequence[Member]:
        """The nodes that are known now."""
        return list(self._members.values())

    def replace(self, urls: Iterable[str]) -> None:
        """These are the nodes from now on. What is known of those that stay is kept; an empty answer changes nothing."""
        wanted = dict.fromkeys(urls)
        if wanted:
            self._members = {url: self._members.get(url) or Member(url) for url in wanted}

    def choose(self, tried: Collection[Member] = ()) -> Member:
        """The node for the next request, if there is one none of those that were tried. Call `began` with it."""
        now = self._tick()
        fresh = [member for member in self._members.values() if member not in tried] or list(self._members.values())
        ready = [member for member in fresh if now >= member.away_until and not member.probing]
        if not ready:  # All are away: the one that is back first is as good as any.
            return min(fresh, key=lambda member: (member.away_until, member.in_flight))
        back = [member for member in ready if member.failures >= FAILURES_MAX]
        if back:
            return back[0]
        first, second = self._any(ready), self._any(ready)
        return second if second.in_flight < first.in_flight else first

    def _any(self, members: Sequence[Member]) -> Member:
        return members[0] if len(members) == 1 else members[self._bits(_CHOICE_BITS) % len(members)]

    def began(self, member: Member) -> None:
        """A request goes to this node."""
        member.in_flight += 1
        member.probing = member.failures >= FAILURES_MAX

    def done(self, member: Member, *, answered: bool) -> None:
        """It has ended. `answered`: the node itself answered, whatever it said."""
        member.in_flight -= 1
        member.probing = False
        if answered:
            member.failures, member.away_until = 0, 0.0
            return
        member.failures += 1
        if member.failures >= FAILURES_MAX:
            member.away_until = self._tick() + min(AWAY_FIRST * 2 ** (member.failures - FAILURES_MAX), AWAY_MAX)
