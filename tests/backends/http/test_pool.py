"""Which node takes the next request: chance and load, ejection, and the probe back. Time and chance are the test's."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from perdure.backends.http import OPTIONS, members
from perdure.backends.http.pool import AWAY_FIRST, AWAY_MAX, BUDGET_MAX, FAILURES_MAX, SLACK, Pool
from perdure.backends.remote import parse_address


class World:
    """A pool with a clock of its own."""

    def __init__(self, *urls: str) -> None:
        self.now, chance = 0.0, random.Random(1)
        self.pool = Pool(urls or ("a", "b", "c"), lambda: self.now, chance.getrandbits)

    def fail(self, url: str, times: int = FAILURES_MAX) -> None:
        (member,) = [each for each in self.pool.members if each.url == url]
        for _ in range(times):
            self.pool.began(member)
            self.pool.done(member, answered=False)

    def chosen(self, count: int = 300) -> Counter[str]:
        return Counter(self.pool.choose().url for _ in range(count))


def test_idle_nodes_share_the_work() -> None:
    """Each of three nodes without requests is chosen about as often as the others."""
    assert all(60 < count < 140 for count in World().chosen().values())


def test_a_node_with_more_in_flight_is_chosen_less() -> None:
    """Of two that are taken at random the one with fewer requests gets it: the fullest node only where it was taken twice."""
    world = World()
    full = world.pool.members[0]
    for _ in range(10):
        world.pool.began(full)
    chosen = world.chosen()
    assert 0 < chosen["a"] < 70


def test_requests_in_flight_stay_level() -> None:
    """However many are in flight, no node has many more than another."""
    world = World()
    for _ in range(300):
        world.pool.began(world.pool.choose())
    loads = [member.in_flight for member in world.pool.members]
    assert max(loads) - min(loads) <= 6


def test_a_node_that_fails_again_and_again_is_left_alone_for_longer_each_time() -> None:
    """Two failures are nothing. After the third it gets no request for a while, then one, and the next failure doubles the time."""
    world = World("a", "b")
    world.fail("a", FAILURES_MAX - 1)
    assert world.chosen()["a"] > 0
    world.fail("a", 1)
    assert world.chosen()["a"] == 0
    world.now += AWAY_FIRST
    probe = world.pool.choose()
    assert probe.url == "a"
    world.pool.began(probe)
    assert world.chosen()["a"] == 0  # Only one finds out.
    world.pool.done(probe, answered=False)
    world.now += AWAY_FIRST
    assert world.chosen()["a"] == 0
    world.now += AWAY_FIRST
    probe = world.pool.choose()
    assert probe.url == "a"
    world.pool.began(probe)
    world.pool.done(probe, answered=True)
    assert world.chosen()["a"] > 60


def test_reads_and_writes_count_apart() -> None:
    """A node that answers every read and stores nothing is left alone by writes, and by them only; a read brings it back for reads only."""
    world = World("a", "b")
    a, _ = world.pool.members
    for _ in range(FAILURES_MAX):
        for writes in (True, False):
            world.pool.began(a, writes=writes)
            world.pool.done(a, answered=not writes, writes=writes)
    assert world.chosen()["a"] > 60
    assert {world.pool.choose(writes=True).url for _ in range(50)} == {"b"}
    assert {home.url for number in range(50) if (home := world.pool.home(b"%d" % number, writes=True))} == {"b"}
    assert {home.url for number in range(50) if (home := world.pool.home(b"%d" % number))} == {"a", "b"}
    world.now += AWAY_FIRST
    assert world.pool.choose(writes=True) is a
    world.pool.began(a, writes=True)
    world.pool.done(a, answered=True, writes=True)
    assert {world.pool.choose(writes=True).url for _ in range(50)} == {"a", "b"}


def test_the_pause_has_an_end() -> None:
    """However often a node has failed, it is asked again within half a minute."""
    world = World("a", "b")
    world.fail("a", 50)
    world.now += AWAY_MAX
    assert world.pool.choose().url == "a"


def test_where_all_are_away_one_is_asked_all_the_same() -> None:
    """A client with no node that answers goes on asking."""
    world = World("a", "b")
    world.fail("a", 5)
    world.fail("b", 3)
    assert world.pool.choose().url == "b"


def test_what_was_tried_is_not_tried_again_while_there_is_another() -> None:
    """A second try goes to another node; with one node it goes there again."""
    world = World("a", "b")
    (first, second) = world.pool.members
    assert {world.pool.choose([first]).url for _ in range(50)} == {"b"}
    assert world.pool.choose([first, second]).url in ("a", "b")


def test_members_that_stay_keep_what_is_known_of_them() -> None:
    """New nodes come, old ones go; an empty answer of a directory changes nothing."""
    world = World("a", "b")
    world.fail("a")
    world.pool.replace(["a", "c"])
    assert world.chosen()["a"] == 0
    assert {member.url for member in world.pool.members} == {"a", "c"}
    world.pool.replace([])
    assert {member.url for member in world.pool.members} == {"a", "c"}


def homes(world: World, count: int = 300) -> dict[int, str | None]:
    found = {number: world.pool.home(b"session-%d" % number) for number in range(count)}
    return {number: None if member is None else member.url for number, member in found.items()}


def test_a_session_is_at_home_on_one_node() -> None:
    """All clients find the same home; sessions are spread; when a node goes, only its own sessions move."""
    world = World("a", "b", "c")
    before = homes(world)
    assert before == homes(World("c", "a", "b"))
    assert all(60 < count < 140 for count in Counter(before.values()).values())
    world.fail("b")
    after = homes(world)
    assert all(after[number] == home for number, home in before.items() if home != "b")
    assert set(after.values()) == {"a", "c"}
    assert set(homes(World("a")).values()) == {None}


def test_a_full_home_is_left() -> None:
    """A session's home with many more requests than the idlest node is no home for the moment."""
    world = World("a", "b")
    number = next(number for number, home in homes(world).items() if home == "a")
    (member,) = [each for each in world.pool.members if each.url == "a"]
    for _ in range(SLACK):
        world.pool.began(member)
    assert homes(world)[number] == "a"
    world.pool.began(member)
    assert homes(world)[number] is None


def test_second_tries_are_a_share_of_all_requests() -> None:
    """After the first few, five requests allow one second try."""
    world = World("a", "b")
    assert sum(world.pool.may_retry() for _ in range(100)) == BUDGET_MAX
    for _ in range(50):
        world.pool.began(world.pool.choose())
    assert sum(world.pool.may_retry() for _ in range(100)) in (9, 10)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://a:8420", ["http://a:8420"]),
        ("http://a:1,b:2/perdure/", ["http://a:1/perdure", "http://b:2/perdure"]),
        ("https://a,b:8443", ["https://a:443", "https://b:8443"]),
        ("http://[::1]:8420,[::1]", ["http://[::1]:8420", "http://[::1]:80"]),
    ],
)
def test_urls_name_nodes(url: str, found: list[str]) -> None:
    """Each host of a URL is a node, with the port of its scheme unless it says another, and with the URL's path."""
    assert members(parse_address(url, OPTIONS)) == found
