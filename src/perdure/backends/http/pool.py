"""The nodes of a service: which one takes the next request, and which are left alone for a while. Plain state on one loop.

choice    of two nodes taken at random the one with fewer requests in flight
home      of a session: the same node for all clients that see the same nodes (rendezvous hashing), so that it is in that node's memory;
          while that node is much fuller than another one, any
ejection  a node that failed `FAILURES_MAX` times in a row gets no requests for a while, twice as long each time
probe     after that it gets one request; what becomes of it decides
budget    second tries are a share of all requests, so that clients do not bury nodes that are about to fail; where a node was not there
          to work on the first try, the second one is free
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from hashlib import blake2b

FAILURES_MAX = 3
"""Failures in a row after which a node is left alone."""
AWAY_FIRST, AWAY_MAX = 0.5, 30.0
"""Seconds for which it is, at first and at most."""
FULLER, SLACK = 2, 8
"""A session's home is left while it has more than so many times the requests of the idlest node, and so many besides."""
BUDGET_MAX, BUDGET_SHARE = 64.0, 0.2
"""Second tries that may be made at once, about as many as a node that dies has requests of one client; and how many more each request
allows."""
_CHOICE_BITS = 16


class Member:
    """One node, by its URL (`http://host:port`, perhaps with a path)."""

    __slots__ = ("away_until", "failures", "in_flight", "key", "probing", "url")

    def __init__(self, url: str) -> None:
        self.url = url
        self.key = blake2b(url.encode(), digest_size=16).digest()
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
        self._budget = BUDGET_MAX
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

    def home(self, key: bytes) -> Member | None:
        """The node where a session is at home, by the bytes of its name; `None` where there is one node, or it may be any now."""
        if len(self._members) < 2:
            return None
        now = self._tick()
        ready = [member for member in self._members.values() if now >= member.away_until and member.failures < FAILURES_MAX]
        if not ready:
            return None
        best = max(ready, key=lambda member: blake2b(key, key=member.key, digest_size=8).digest())
        return best if best.in_flight <= FULLER * min(member.in_flight for member in ready) + SLACK else None

    def may_retry(self) -> bool:
        """Whether a second try may be made; it is counted."""
        if self._budget < 1:
            return False
        self._budget -= 1
        return True

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
        self._budget = min(self._budget + BUDGET_SHARE, BUDGET_MAX)
        member.probing = member.failures >= FAILURES_MAX

    def done(self, member: Member, *, answered: bool) -> None:
        """It has ended. `answered`: the node itself answered, and not that it or its engine is away, or that it does not know."""
        member.in_flight -= 1
        member.probing = False
        if answered:
            member.failures, member.away_until = 0, 0.0
            return
        member.failures += 1
        if member.failures >= FAILURES_MAX:
            member.away_until = self._tick() + min(AWAY_FIRST * 2 ** (member.failures - FAILURES_MAX), AWAY_MAX)
