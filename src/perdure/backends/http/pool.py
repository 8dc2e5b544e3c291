"""The nodes of a service: which one takes the next request, and which are left alone for a while. Plain state on one loop.

choice    of two nodes taken at random the one with fewer requests in flight
home      of a session: the same node for all clients that see the same nodes (rendezvous hashing), so that it is in that node's memory;
          while that node is much fuller than another one, any
ejection  a node that failed `FAILURES_MAX` times in a row gets no requests for a while, twice as long each time
probe     after that it gets one request; what becomes of it decides
health    reads and writes count apart: a node can answer all reads while its engine stores nothing
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


class Health:
    """What is known of one kind of requests to a node."""

    __slots__ = ("away_until", "failures", "probing")

    def __init__(self) -> None:
        self.failures = 0
        """In a row."""
        self.away_until = 0.0
        self.probing = False
        """Whether one request finds out if it is back."""

    def began(self) -> None:
        """A request of this kind goes to the node."""
        self.probing = self.failures >= FAILURES_MAX

    def done(self, now: float, *, answered: bool) -> None:
        """It has ended."""
        self.probing = False
        if answered:
            self.failures, self.away_until = 0, 0.0
            return
        self.failures += 1
        if self.failures >= FAILURES_MAX:
            self.away_until = now + min(AWAY_FIRST * 2 ** (self.failures - FAILURES_MAX), AWAY_MAX)


class Member:
    """One node, by its URL (`http://host:port`, perhaps with a path)."""

    __slots__ = ("_reads", "_writes", "in_flight", "key", "url")

    def __init__(self, url: str) -> None:
        self.url = url
        self.key = blake2b(url.encode(), digest_size=16).digest()
        self.in_flight = 0
        self._reads, self._writes = Health(), Health()

    def health(self, *, writes: bool) -> Health:
        """What is known of its reads, or of its writes."""
        return self._writes if writes else self._reads

    def __repr__(self) -> str:
        failures = f"reads={self._reads.failures} writes={self._writes.failures}"
        return f"<Member {self.url} in_flight={self.in_flight} failures: {failures}>"


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

    def home(self, key: bytes, *, writes: bool = False) -> Member | None:
        """The node where a session is at home, by the bytes of its name; `None` where there is one node, or it may be any now."""
        if len(self._members) < 2:
            return None
        now = self._tick()
        ready = [member for member in self._members.values() if _is_well(member.health(writes=writes), now)]
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

    def choose(self, tried: Collection[Member] = (), *, writes: bool = False) -> Member:
        """The node for the next request, if there is one none of those that were tried. Call `began` with it."""
        now = self._tick()
        fresh = [(each, each.health(writes=writes)) for each in self._members.values() if each not in tried]
        fresh = fresh or [(each, each.health(writes=writes)) for each in self._members.values()]
        ready = [(member, health) for member, health in fresh if now >= health.away_until and not health.probing]
        if not ready:  # All are away: the one that is back first is as good as any.
            return min(fresh, key=lambda each: (each[1].away_until, each[0].in_flight))[0]
        back = [member for member, health in ready if health.failures >= FAILURES_MAX]
        if back:
            return back[0]
        well = [member for member, _ in ready]
        first, second = self._any(well), self._any(well)
        return second if second.in_flight < first.in_flight else first

    def _any(self, members: Sequence[Member]) -> Member:
        return members[0] if len(members) == 1 else members[self._bits(_CHOICE_BITS) % len(members)]

    def began(self, member: Member, *, writes: bool = False) -> None:
        """A request goes to this node."""
        member.in_flight += 1
        member.health(writes=writes).began()
        self._budget = min(self._budget + BUDGET_SHARE, BUDGET_MAX)

    def done(self, member: Member, *, answered: bool, writes: bool = False) -> None:
        """It has ended. `answered`: the node itself answered, and not that it or its engine is away, or that it does not know."""
        member.in_flight -= 1
        member.health(writes=writes).done(self._tick(), answered=answered)


def _is_well(health: Health, now: float) -> bool:
    return now >= health.away_until and health.failures < FAILURES_MAX
