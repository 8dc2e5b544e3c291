"""What a write means: expectations, requirements, conflicts, and writes that are none."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

import perdure
from perdure import Busy, Clash, Conflict, Event, op


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


async def versions(store: perdure.Store, session: str = "s") -> list[int]:
    return [commit.version async for commit in store.history(session)]


async def test_expect_nothing(url: str) -> None:
    """`expect=0` starts a session and only that; of many who start it at once one succeeds."""

    async with perdure.open(url) as store:
        results = await asyncio.gather(
            *[store.append("s", Event("x", number), expect=0) for number in range(8)],
            *[store.append("s", Event("x", None, (op.add("/n", 1),)), expect=0) for _ in range(8)],
            return_exceptions=True,
        )
        assert sum(isinstance(result, perdure.Receipt) for result in results) == 1
        assert sum(isinstance(result, perdure.AlreadyExists) for result in results) == 15
        assert await versions(store) == [1]


@pytest.mark.parametrize("policy", ["raise", "merge"])
async def test_control_commits_are_no_conflict(url: str, policy: Any) -> None:
    """`expect=n` holds when only tags were set and forks made since n, whatever the policy."""

    async with perdure.open(url) as store:
        await store.append("s", Event("x", None, (op.set("/a", 1),)))
        await store.configure("s", tags={"a": "b"})
        await store.fork("s")
        assert (await store.append("s", Event("y"), expect=1, on_conflict=policy)).version == 4
        await store.configure("s", tags={"a": "c"})
        assert (await store.append("s", Event("y", None, (op.set("/a", 2),)), expect=4, on_conflict=policy)).version == 6
        await store.configure("s", tags={})
        async with store.edit("s", expect=6, on_conflict=policy) as draft:
            draft.state["a"] += 1
        assert draft.receipt.version == 8
        assert (await store.read("s")).state == {"a": 3}


async def test_the_policies(url: str) -> None:
    """Behind data that came in between: "raise" refuses, "merge" combines what combines and refuses the rest, a callable decides."""

    async with perdure.open(url) as store:
        await store.append("s", Event("x", None, (op.set("", {"a": 1, "list": [1]}),)))
        await store.append("s", Event("y", None, (op.set("/a", 2), op.append("/list", [2]))))
        for events in ((Event("z"),), (Event("z", None, (op.set("/c", 1),)),)):
            with pytest.raises(Conflict):
                await store.append("s", *events, expect=1, on_conflict="raise")
        assert (await store.append("s", Event("z"), expect=1)).version == 3
        await store.append("s", Event("z", None, (op.append("/list", [3]), op.set("/c", 1))), expect=1)
        assert (await store.read("s")).state == {"a": 2, "list": [1, 2, 3], "c": 1}
        with pytest.raises(Conflict) as caught:
            await store.append("s", Event("z", None, (op.set("/a", 7), op.set("/d", 1))), expect=1)
        assert (caught.value.session, caught.value.expected, caught.value.actual) == ("s", 1, 4)
        assert caught.value.paths == ("/a",)
        assert [commit.version for commit in caught.value.commits] == [2, 3, 4]
        assert caught.value.commits[0].events[0].type == "y"

        def decide(clash: Clash) -> list[perdure.Op]:
            assert (clash.base, clash.now["a"], clash.paths) == ({"a": 1, "list": [1]}, 2, ("/a",))
            assert [each.path for each in clash.mine] == ["/a", "/d"]
            assert "/a" in [each.path for each in clash.theirs]
            return [op.set("/a", clash.now["a"] + 7)]

        receipt = await store.append("s", Event("z", "kept", (op.set("/a", 8), op.set("/d", 1))), expect=1, on_conflict=decide)
        view = await store.read("s")
        assert (view.version, view.state["a"], "d" in view.state) == (receipt.version, 9, False)
        (last,) = [commit async for commit in store.history("s", newest_first=True, limit=1)]
        assert (last.events[0].type, last.events[0].data, last.events[0].ops) == ("z", "kept", (op.set("/a", 9),))


async def test_a_policy_that_fails(url: str) -> None:
    """What a callable raises goes to the caller; an answer that does not fit is `Invalid`; nothing is written either way."""

    async with perdure.open(url) as store:
        await store.append("s", Event("x", None, (op.set("/a", 1),)))
        await store.append("s", Event("y", None, (op.set("/a", 2),)))

        def refuse(clash: Clash) -> list[perdure.Op]:
            raise LookupError("not mine to say")

        with pytest.raises(LookupError, match="not mine to say"):
            await store.append("s", Event("z", None, (op.set("/a", 3),)), expect=1, on_conflict=refuse)
        for answer in (
            [op.remove("/nothing")],
            [perdure.Op("nope", "/a")],
            ["not an operation"],
            None,
            [perdure.Op("set", "/a", float("nan"))],
        ):
            with pytest.raises(perdure.Invalid):
                await store.append("s", Event("z", None, (op.set("/a", 3),)), expect=1, on_conflict=lambda _, answer=answer: answer)
        assert await versions(store) == [1, 2]
        assert (await store.append("s", Event("z", None, (op.set("/a", 3),)), expect=2)).version == 3


async def test_an_edit_of_an_older_version(url: str) -> None:
    """`expect=n` opens the draft on the state at n; its writes are carried over what came since."""

    async with perdure.open(url) as store:
        await store.append("s", Event("x", None, (op.set("", {"list": ["a", "b"]}),)))
        await store.append("s", Event("x", None, (op.splice("/list", 0, 0, ["new"]),)))
        async with store.edit("s", expect=1) as draft:
            assert (draft.version, draft.state) == (1, {"list": ["a", "b"]})
            draft.state["list"][1] = "B"
        assert (await store.read("s")).state == {"list": ["new", "a", "B"]}
        with pytest.raises(Conflict):
            await store.update("s", lambda draft: draft.add("/n", 1), expect=1)


async def test_requirements(url: str) -> None:
    """An edit that rests on a path is refused when others changed the value there, and passes when it is as it was."""

    async with perdure.open(url) as store:
        await store.append("s", Event("x", None, (op.set("", {"budget": 10, "other": 1, "deep": {"a": [1]}}),)))

        async def spend(path: str, *theirs: perdure.Op) -> None:
            async with store.edit("s") as draft:
                draft.require(path)
                draft.add("/spent", 1)
                await store.append("s", Event("theirs", None, theirs))

        await spend("/budget", op.set("/other", 2))
        await spend("/budget", op.set("/budget", 9), op.set("/budget", 10))
        await spend("/none", op.set("/other", 3))
        for path, theirs in (
            ("/budget", op.set("/budget", 9)),
            ("/deep", op.append("/deep/a", [2])),
            ("/none", op.set("/none", None)),
            ("", op.set("/other", 9)),
        ):
            before = await store.read("s")
            with pytest.raises(Conflict) as caught:
                await spend(path, theirs)
            assert caught.value.paths == (path,)
            assert "the whole state" in str(caught.value) if not path else path in str(caught.value)
            after = await store.read("s")
            assert (after.version, after.state["spent"]) == (before.version + 1, 3)


async def test_a_strict_edit_begins_at_the_head(file_url: str) -> None:
    """An edit that may not merge sees what another process wrote before it began, and succeeds when nobody writes meanwhile."""

    async with perdure.open(file_url) as mine, perdure.open(file_url) as other:
        for number in range(4):
            async with mine.edit("s", on_conflict="raise") as draft:
                assert draft.state.get("other", 0) == number
                draft.add("/mine", 1)
            async with other.edit("s") as draft:
                draft.require()
                assert draft.state["mine"] == number + 1
                draft.add("/other", 1)

        async def overtaken() -> None:
            async with mine.edit("s", on_conflict="raise") as draft:
                draft.add("/mine", 1)
                await other.append("s", Event("between"))

        with pytest.raises(Conflict):
            await overtaken()
        async with mine.edit("s", on_conflict="raise") as draft:
            draft.add("/mine", 1)
        assert (await other.read("s")).state == {"mine": 5, "other": 4}


@pytest.mark.parametrize("ops", [(op.add("/n", 1),), (op.append("/list", [9]),), (op.set("/q", 1),)], ids=["add", "append", "set"])
@pytest.mark.parametrize("theirs", [(), (op.set("/other", 1),)], ids=["empty", "other"])
async def test_a_late_write_does_not_land_in_a_second_life(url: str, ops: tuple[perdure.Op, ...], theirs: tuple[perdure.Op, ...]) -> None:
    """What was decided before a session was deleted is refused after it was re-created, by `expect` and from an open draft."""

    async with perdure.open(url) as store:
        await store.append("s", Event("x", None, (op.set("", {"list": [1], "n": 1}),)))
        edit = store.edit("s")
        draft = await edit.__aenter__()
        draft.do(*ops)
        draft.event("late")
        await store.delete("s")
        with pytest.raises(perdure.Deleted):
            await store.append("s", Event("late", None, ops), expect=1)
        await store.append("s", Event("again", None, theirs), recreate=True)
        with pytest.raises((Conflict, perdure.Deleted)):
            await edit.__aexit__(None, None, None)
        with pytest.raises((Conflict, perdure.Deleted)):
            await store.append("s", Event("late", None, ops), expect=1)
        assert await versions(store) == [3]


async def test_a_store_that_is_behind_writes_on_the_true_state(file_url: str) -> None:
    """Operations of a store that has not seen the newest commits are judged by the state at the head, not by what it remembers."""

    async with perdure.open(file_url) as mine, perdure.open(file_url) as other:
        await mine.append("s", Event("x", None, (op.set("", {"a": 1, "list": [1, 2]}),)))
        await other.append("s", Event("x", None, (op.remove("/a"), op.set("/list", []))))
        for misfit in (op.remove("/a"), op.splice("/list", 1, 1), op.set("/list/1", 9)):
            with pytest.raises(perdure.Invalid):
                await mine.append("s", Event("x", None, (misfit,)))
            await other.append("s", Event("x", None, (op.set("/a", 1), op.remove("/a"))))
        with pytest.raises(Conflict):
            await mine.append("s", Event("x", None, (op.test("/list", [1, 2]),)))
        await mine.append("s", Event("x", None, (op.init("/a", 2), op.append("/list", [3]))))
        fits = [
            ("/b", 1, op.remove("/b")),
            ("/c", 1, op.test("/c", 1)),
            ("/d", [0], op.splice("/d", 1, 0, [1])),
            ("/e", {}, op.set("/e/x", 2)),
        ]
        for path, value, fit in fits:
            await other.append("s", Event("x", None, (op.set(path, value),)))
            await mine.append("s", Event("x", None, (fit,)))
        assert (await other.read("s")).state == {"a": 2, "list": [3], "c": 1, "d": [0, 1], "e": {"x": 2}}
        await other.delete("s")
        for event in (Event("x"), Event("x", None, (op.remove("/nothing"),)), Event("x", None, (op.add("/n", 1),))):
            for expect in (None, 1):
                with pytest.raises(perdure.Deleted):
                    await mine.append("s", event, expect=expect)


@pytest.mark.parametrize("how", ["merge", "raise", "require", "expect"])
async def test_what_began_on_nothing_meets_what_came(url: str, how: str) -> None:
    """A draft on a session that did not exist yet is rebased over what others started it with, or refused, as on any other."""

    async with perdure.open(url) as store:

        async def begin(session: str, path: str) -> None:
            options: dict[str, Any] = {"raise": {"on_conflict": "raise"}, "expect": {"expect": 0}}.get(how, {})
            async with store.edit(session, **options) as draft:
                if how == "require":
                    draft.require("/a")
                draft.state[path] = "mine"
                await store.append(session, Event("theirs", None, (op.set("/a", "theirs"),)))

        for session, path in (("one", "a"), ("other", "b")):
            if (how, path) == ("merge", "b"):
                await begin(session, path)
                assert (await store.read(session)).state == {"a": "theirs", "b": "mine"}
            else:
                with pytest.raises((Conflict, perdure.AlreadyExists)):
                    await begin(session, path)
                assert (await store.read(session)).state == {"a": "theirs"}


async def test_update_is_serializable(url: str) -> None:
    """Read-modify-write by many tasks loses nothing: the function runs again on the state that it was overtaken by."""

    async def scenario() -> None:
        async with perdure.open(url) as store:
            runs = 0

            async def double(draft: perdure.Draft) -> int:
                nonlocal runs
                runs += 1
                before: int = draft.state.get("n", 0)
                await asyncio.sleep(0)
                draft.state["n"] = before + 1
                return before

            answers = await asyncio.gather(*[store.update("s", double, attempts=64) for _ in range(12)])
            assert sorted(answer for _, answer in answers) == list(range(12))
            assert (await store.read("s")).state == {"n": 12}
            assert runs >= 12

    await scenario()


async def test_attempts_are_bounded(url: str) -> None:
    """A function that is always overtaken ends in `Busy` after its attempts, which says how many."""

    async def scenario() -> None:
        async with perdure.open(url) as store:
            runs = 0

            async def overtaken(draft: perdure.Draft) -> None:
                nonlocal runs
                runs += 1
                draft.state["n"] = runs
                await store.append("s", Event("theirs"))

            with pytest.raises(Busy, match="3 tries") as caught:
                await store.update("s", overtaken, attempts=3)
            assert caught.value.retryable
            assert runs == 3
            assert await versions(store) == [1, 2, 3]

    await scenario()


async def test_what_changes_nothing_writes_nothing(url: str) -> None:
    """Looking, changing and changing back, and putting what is there already make no commit and start no session."""

    async with perdure.open(url) as store:
        async with store.edit("s") as draft:
            assert draft.state == {}
        assert draft.receipt is None
        with pytest.raises(perdure.NotFound):
            await store.read("s")
        await store.append("s", Event("x", None, (op.set("", {"a": [1, {"b": 2}]}),)))
        async with store.edit("s") as draft:
            assert draft.state["a"][1]["b"] == 2
            draft.require("/a")
        assert draft.receipt is None
        receipt, answer = await store.update("s", lambda draft: len(draft.state["a"]))
        assert (receipt, answer) == (None, 2)
        assert await versions(store) == [1]


@pytest.mark.parametrize(
    "error", [ValueError("mine"), asyncio.CancelledError(), KeyboardInterrupt()], ids=lambda error: type(error).__name__
)
async def test_an_exception_in_the_block_writes_nothing(url: str, error: BaseException) -> None:
    """What the block raises goes on its way, and neither state nor events of the draft are stored."""

    async with perdure.open(url) as store:

        async def broken(session: str) -> None:
            async with store.edit(session) as draft:
                draft.state.setdefault("a", []).append(2)
                draft.event("noted")
                raise error

        await store.append("s", Event("x", None, (op.set("/a", [1]),)))
        for session in ("new", "s"):
            with pytest.raises(type(error)) as caught:
                await broken(session)
            assert caught.value is error
        assert [info.session async for info in store.list()] == ["s"]
        view = await store.read("s")
        assert (view.version, view.state) == (1, {"a": [1]})
        with pytest.raises(type(error)):
            await store.update("s", lambda draft: draft.state["a"].append(2) or _raise(error))
        assert (await store.read("s")).state == {"a": [1]}


def _raise(error: BaseException) -> None:
    raise error


async def test_users_may_call_their_events_as_they_like(url: str) -> None:
    """Events that are named like Perdure's own, of any shape, neither break a merge nor forge one."""

    async with perdure.open(url) as store:
        await store.append("s", Event("x", None, (op.set("/a", 1),)))
        fork = await store.fork("s")
        await store.append(fork, Event("x", None, (op.set("/b", 2),)))
        head = await store.read(fork)
        shapes: list[Any] = [None, 1, [], {}, {"session": fork}, {"session": fork, "version": head.version, "hash": "00" * 32}]
        for name in ("merged", "forked", "pinned", "configured", "deleted", "edited"):
            await store.append("s", *[Event(name, shape) for shape in shapes])
            await store.append(fork, *[Event(name, shape) for shape in shapes])
            await store.append(f"own-{name}", *[Event(name, shape) for shape in shapes])
            with pytest.raises(perdure.Invalid, match="was not forked"):
                await store.merge(f"own-{name}", into="s")
        assert (await store.merge(fork, into="s")).version == 9
        assert (await store.read("s")).state == {"a": 1, "b": 2}
        assert await store.merge(fork, into="s") is None


async def test_data_is_stored_as_it_was_when_the_append_began(url: str) -> None:
    """A caller may go on with its objects while an append waits for others: what was checked is what is stored."""

    async with perdure.open(url) as store:
        data = [{"n": number} for number in range(8)]
        for _ in range(2):  # In the second round those who were answered together go together again.
            tasks = [asyncio.create_task(store.append(f"s{number}", Event("x", item))) for number, item in enumerate(data)]
            await asyncio.sleep(0)
            for item in data:
                item["late"] = object()  # type: ignore[assignment]
            await asyncio.gather(*tasks)
            for item in data:
                del item["late"]
        for number in range(8):
            assert [commit.events[0].data async for commit in store.history(f"s{number}")] == [{"n": number}] * 2
