"""Merging a fork into its parent: once, by what both sides did, and never into another life."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.engine.branch.merge import MERGED


def did(*operations: perdure.Op) -> Event:
    return Event("did", None, operations)


async def types(store: perdure.Store, session: str) -> list[str]:
    return [event.type async for commit in store.history(session) for event in commit.events]


@pytest.mark.parametrize("keys", [(None, None), ("k", "k"), ("a", "b")])
async def test_two_merges_at_once_apply_a_fork_once(url: str, keys: tuple[str | None, str | None]) -> None:
    """Of two merges of one fork that run at once, with one key or two or none, one takes it in; the other finds nothing new."""

    async with perdure.open(url) as store:
        await store.append("s", did(op.set("/log", [])))
        await store.fork("s", id="f")
        await store.append("f", did(op.append("/log", ["from fork"])))
        for _ in range(20):
            fork = await store.fork("s")
            await store.append(fork, did(op.append("/log", [fork])))
            receipts = await asyncio.gather(*[store.merge(fork, into="s", key=key and key + fork) for key in keys])
            log = (await store.read("s")).state["log"]
            assert log.count(fork) == 1
            same_key = keys[0] is not None and keys[0] == keys[1]
            assert sum(receipt is not None for receipt in receipts) == (2 if same_key else 1)
        assert (await types(store, "s")).count(MERGED) == 20


async def test_two_stores_merge_one_fork_at_once(file_url: str) -> None:
    """Merges of one fork from two stores, which know nothing of one another, apply it once, beside a writer."""

    async with perdure.open(file_url) as one, perdure.open(file_url) as two:
        await one.append("s", did(op.set("/log", [])))
        for number in range(20):
            fork = await one.fork("s")
            await one.append(fork, did(op.append("/log", [fork])))
            await two.read("s")
            await asyncio.gather(one.merge(fork, into="s"), two.merge(fork, into="s"), two.append("s", did(op.append("/log", [number]))))
        log = (await one.read("s")).state["log"]
        assert len(log) == 40
        assert len({*map(str, log)}) == 40


BASE = {"n": 1, "list": [{"id": 0}, {"id": 1}, {"id": 2}], "tags": ["a"], "deep": {"x": {"y": 1}}}
COMBINING = {
    "add beside add": (op.add("/n", 10), op.add("/n", 100), {"n": 111}),
    "append beside append": (op.append("/tags", ["m"]), op.append("/tags", ["t"]), {"tags": ["a", "t", "m"]}),
    "union beside union": (op.union("/tags", ["z", "m"]), op.union("/tags", ["z", "t"]), {"tags": ["a", "z", "t", "m"]}),
    "change beside insert": (
        op.set("/list/1/mine", True), op.splice("/list", 0, 0, [{"id": 9}]),
        {"list": [{"id": 9}, {"id": 0}, {"id": 1, "mine": True}, {"id": 2}]},
    ),
    "insert beside change": (
        op.splice("/list", 0, 0, [{"id": 9}]), op.set("/list/1/theirs", True),
        {"list": [{"id": 9}, {"id": 0}, {"id": 1, "theirs": True}, {"id": 2}]},
    ),
    "change beside removal": (
        op.set("/list/2/mine", True), op.remove("/list/0"), {"list": [{"id": 1}, {"id": 2, "mine": True}]},
    ),
    "both remove": (op.remove("/list/0"), op.remove("/list/0"), {"list": [{"id": 1}, {"id": 2}]}),
    "two keys": (op.set("/deep/x/z", 1), op.set("/deep/x/w", 2), {"deep": {"x": {"y": 1, "z": 1, "w": 2}}}),
}  # fmt: skip


@pytest.mark.parametrize("name", COMBINING)
async def test_what_two_edits_combine_a_merge_combines(url: str, name: str) -> None:
    """Operations of fork and parent that two edits of one session would combine are combined, with the same result."""
    mine, theirs, expected = COMBINING[name]

    async with perdure.open(url) as store:
        for session in ("s", "edited"):
            await store.append(session, did(op.set("", BASE)))
        await store.fork("s", id="f")
        await store.append("f", did(mine))
        await store.append("s", did(theirs))
        await store.merge("f", into="s")
        state = (await store.read("s")).state
        assert state == {**BASE, **expected}
        await store.append("edited", did(theirs))
        await store.append("edited", did(mine), expect=1)
        assert (await store.read("edited")).state == state


@pytest.mark.parametrize("name", COMBINING)
async def test_the_same_at_the_second_merge(url: str, name: str) -> None:
    """After a merge on which both sides had inserted at one place, the next one still finds each element and combines as before."""
    mine, theirs, expected = COMBINING[name]

    async with perdure.open(url) as store:
        await store.append("s", did(op.set("", BASE)))
        await store.fork("s", id="f")
        await store.append("f", did(op.append("/log", ["f1"]), op.add("/count", 1)))
        await store.append("s", did(op.append("/log", ["s1"]), op.add("/count", 1)))
        await store.merge("f", into="s")
        await store.append("f", did(op.append("/log", ["f2"]), op.set("/log/0", "F1"), mine))
        await store.append("s", did(op.append("/log", ["s2"]), theirs))
        await store.merge("f", into="s")
        assert (await store.read("s")).state == {**BASE, **expected, "count": 2, "log": ["s1", "F1", "s2", "f2"]}
        assert await store.merge("f", into="s") is None
        await store.verify("s")


async def test_a_clash_is_a_conflict_that_names_the_path(url: str) -> None:
    """What does not combine is `Conflict` and writes nothing; a policy is asked with the operations of both; the next merge goes on."""

    async with perdure.open(url) as store:
        await store.append("s", did(op.set("", {"a": 1, "list": [1]})))
        await store.fork("s", id="f")
        await store.append("f", did(op.set("/a", 2), op.append("/list", ["f"])))
        await store.append("s", did(op.set("/a", 3), op.append("/list", ["s"])))
        with pytest.raises(perdure.Conflict, match="both changed /a") as caught:
            await store.merge("f", into="s")
        assert caught.value.paths == ("/a",)
        asked: list[Any] = []

        def policy(clash: perdure.Clash) -> list[perdure.Op]:
            asked.append((list(clash.mine), list(clash.theirs), list(clash.paths)))
            return [op.set("/a", 5), op.append("/list", ["f"])]

        await store.merge("f", into="s", on_conflict=policy)
        ((mine, theirs, paths),) = asked
        assert [step.kind for step in mine] == [step.kind for step in theirs] == ["set", "append"]
        assert paths == ["/a"]
        await store.append("f", did(op.set("/b", 1)))
        await store.merge("f", into="s")
        assert (await store.read("s")).state == {"a": 5, "list": [1, "s", "f"], "b": 1}
        await store.append("f", did(op.set("/list/1", "F")))
        with pytest.raises(perdure.Conflict):  # Which element of the parent's that is, the policy's answer does not say.
            await store.merge("f", into="s")


async def test_a_key_names_the_fork(url: str) -> None:
    """A key that merged one fork is `Invalid` for another, and for an append; for the same fork it gives the first receipt."""

    async with perdure.open(url) as store:
        await store.append("s", did(op.set("", {})))
        for fork in ("f1", "f2"):
            await store.fork("s", id=fork)
            await store.append(fork, did(op.set(f"/{fork}", 1)))
        first = await store.merge("f1", into="s", key="k")
        again = await store.merge("f1", into="s", key="k")
        assert first is not None
        assert again is not None
        assert (again.version, again.duplicate) == (first.version, True)
        await store.append("f1", did(op.set("/f1", 2)))
        assert (await store.merge("f1", into="s", key="k")).version == first.version
        with pytest.raises(perdure.Invalid, match="for something else"):
            await store.merge("f2", into="s", key="k")
        with pytest.raises(perdure.Invalid, match="for something else"):
            await store.append("s", Event("x"), key="k")
        await store.append("s", Event("x"), key="x")
        with pytest.raises(perdure.Invalid, match="for something else"):
            await store.merge("f2", into="s", key="x")
        assert (await store.read("s")).state == {"f1": 1}


async def test_other_lives_are_not_merged(url: str) -> None:
    """A fork that was deleted and made anew is no fork any more; one of the parent's first life does not go into its second."""

    async with perdure.open(url) as store:
        await store.append("s", did(op.set("/a", 1)))
        for fork in ("dies", "stays", "merged"):
            await store.fork("s", id=fork)
            await store.append(fork, did(op.set(f"/{fork}", "first")))
        await store.merge("merged", into="s")
        for fork in ("dies", "merged"):
            await store.delete(fork)
            with pytest.raises(perdure.Deleted):
                await store.merge(fork, into="s")
            await store.append(fork, did(op.set("/b", 2)), recreate=True)
            with pytest.raises(perdure.Invalid, match="created again"):
                await store.merge(fork, into="s")
        assert (await store.read("s")).state == {"a": 1, "merged": "first"}
        await store.delete("s")
        with pytest.raises(perdure.Deleted):
            await store.merge("stays", into="s")
        await store.append("s", did(op.set("/c", 3)), recreate=True)
        with pytest.raises(perdure.Invalid, match="a life of 's' that ended at version"):
            await store.merge("stays", into="s")
        assert (await store.read("s")).state == {"c": 3}
        again = await store.fork("s")
        assert (await store.read(again)).state == {"c": 3}
        await store.append(again, did(op.set("/d", 4)))
        await store.merge(again, into="s")
        assert (await store.read("s")).state == {"c": 3, "d": 4}


async def test_a_merge_gets_through_beside_a_steady_writer(url: str) -> None:
    """Merges that combine with what another task keeps writing end, and nothing of either is lost."""

    async with perdure.open(url) as store:
        await store.append("s", did(op.set("", {"n": 0, "log": []})))
        done = False

        async def write() -> int:
            count = 0
            while not done:
                async with store.edit("s") as draft:
                    draft.add("/n", 1)
                count += 1
            return count

        writing = asyncio.create_task(write())
        for number in range(20):
            fork = await store.fork("s")
            await store.append(fork, did(op.append("/log", [number]), op.add("/n", 1000)))
            await store.merge(fork, into="s")
        done = True
        count = await writing
        state = (await store.read("s")).state
        assert state == {"n": 20_000 + count, "log": [*range(20)]}


class Branches:
    """A parent and a fork whose lists hold elements with ids; each side marks only elements, and puts in only ids, of its own."""

    def __init__(self, store: perdure.Store, rng: random.Random) -> None:
        self.store, self.rng = store, rng
        self.fresh = 100
        self.removed: dict[str, set[int]] = {"p": set(), "f": set()}
        self.marks: dict[tuple[int, str], int] = {}

    async def step(self, session: str) -> None:
        side = "p" if session == "s" else "f"
        async with self.store.edit(session) as draft:
            items = draft.state["items"]
            for _ in range(self.rng.randint(1, 3)):
                what = self.rng.random()
                if what < 0.35:
                    items.insert(self.rng.randint(0, len(items)), {"id": self.fresh})
                    self.fresh += 1
                elif what < 0.45:
                    items.append({"id": self.fresh})
                    self.fresh += 1
                elif what < 0.8 and items:
                    item = self.rng.choice(items)
                    item[side] = self.marks[item["id"], side] = self.rng.randint(0, 1 << 30)
                elif items:
                    place = self.rng.randrange(len(items))
                    self.removed[side].add(items[place]["id"])
                    del items[place]

    async def check(self, session: str) -> None:
        items = (await self.store.read(session)).state["items"]
        ids = [item["id"] for item in items]
        assert len(ids) == len({*ids}), ids
        for item in items:
            for side in ("p", "f"):
                if side in item:
                    assert item[side] == self.marks[item["id"], side]


async def branch(seed: int) -> int:
    """Random edits of both sides with merges in between, until one is refused; how many merges there were."""
    async with perdure.open("memory:") as store:
        rng = random.Random(seed)
        await store.append("s", did(op.set("", {"items": [{"id": number} for number in range(6)]})))
        await store.fork("s", id="f")
        branches = Branches(store, rng)
        for count in range(6):
            for _ in range(rng.randint(0, 4)):
                await branches.step(rng.choice(("s", "f")))
            try:
                receipt = await store.merge("f", into="s")
            except perdure.Conflict:
                return count
            await branches.check("s")
            state = (await store.read("s")).state
            ids = {item["id"] for item in state["items"]}
            assert not ids & branches.removed["p"]
            if receipt is not None:
                fork = {item["id"]: item for item in (await store.read("f")).state["items"]}
                assert not ids & branches.removed["f"]
                assert {*fork} - branches.removed["p"] <= ids
                for item in state["items"]:
                    if "f" in fork.get(item["id"], {}):
                        assert item.get("f") == fork[item["id"]]["f"]
        return 6


async def test_random_branches_keep_every_element_its_own() -> None:
    """Over merges and edits in any order no element gets another's mark, none comes twice, none that was removed returns, and what the
    fork put in or changed is there after each merge."""

    merges = [await branch(seed) for seed in range(150)]
    assert sum(count > 1 for count in merges) > 30
