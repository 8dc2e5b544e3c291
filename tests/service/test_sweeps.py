"""Sweeps over HTTP: rounds of steps, each of which is bounded."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Any

import msgspec
import pytest

import perdure
from perdure import Event
from perdure.backends.memory import MemoryBackend
from perdure.ops import prefix_steps
from perdure.wire.problem import advice_of
from tests.support.ops.backend_calls import store_on
from tests.support.ops.simulated_clock import SimulatedClock


async def test_a_round_goes_on_where_it_was(serving: Any) -> None:
    """By the cursor of the step before; what is none is 400, and none makes a session due before it is."""
    async with serving() as ask:
        store = ask.app.node.store
        for number in range(130):
            await store.append(f"s{number}", Event("start"))
            await store.configure(f"s{number}", expire_after=3600)
        due, cursors, cursor = 0, set(), None
        while True:
            step = (await ask("POST", "/v1/sweep", {"cursor": cursor})).json()
            due, cursor = due + len(step["actions"]), step["cursor"]
            if cursor is None:
                break
            cursors.add(cursor)
        assert due == 130 and len(cursors) == 5  # Three pages, and the other three lists.
        for wrong in ("", "x", "AAAA", "é", "A" * 9_000, 5, _cursor(1, 9), _cursor(-1, 0)):
            assert (await ask("POST", "/v1/sweep", {"cursor": wrong})).status == 400, wrong
        await ask("POST", "/v1/sweep", {"cursor": _cursor((1 << 63) - 1, 0)})
        assert (await store.read("s0")).version == 2


@pytest.mark.parametrize("slice", [0.0, 60.0])
async def test_prefix_policies_are_given_in_bounded_steps(serving: Any, monkeypatch: pytest.MonkeyPatch, slice: float) -> None:
    """When the time of a step is over it ends after the page that was begun, and the next one goes on there: each session gets the policy
    of its longest prefix once. A round that was given up and begins again goes past what it has given."""
    monkeypatch.setattr("perdure.ops.rounds.SLICE_SECONDS", slice)
    async with serving() as ask:
        store = ask.app.node.store
        for prefix, count in (("a-", 130), ("a-long-", 3), ("b-", 70), ("other-", 9)):
            for number in range(count):
                await store.append(f"{prefix}{number:03}", Event("start"))
        for prefix in ("a-", "a-long-", "b-", "nobody-"):
            await store.configure(prefix=prefix, expire_after=3600)

        async def steps(count: int = 1000) -> list[Any]:
            """The steps that give, and the first one after them."""
            found: list[Any] = []
            while len(found) < count and (not found or (found[-1]["given"] and found[-1]["cursor"])):
                said = {"existing": True} if not found else {"cursor": found[-1]["cursor"]}
                found.append((await ask("POST", "/v1/sweep", said)).json())
            return found

        begun = await steps(2)
        rest = await steps()
        given = [(one["prefix"], one["sessions"]) for step in begun + rest for one in step["given"]]
        assert all(sum(one["sessions"] for one in step["given"]) <= 64 for step in begun + rest) == (slice == 0)
        assert {name: sum(count for prefix, count in given if prefix == name) for name, _ in given} == {
            "a-": 130, "a-long-": 3, "b-": 70, "nobody-": 0
        }  # fmt: skip
        assert len(begun) == 2 and len(rest) == (8 if slice == 0 else 2)
        for name in ("a-000", "a-129", "a-long-002", "b-069"):
            assert (await store.policy(name)).prefix == ("a-long-" if "long" in name else name[:2])
            assert (await store.read(name)).version == 2
        assert (await store.policy("other-000")).prefix is None
        cursor = rest[-1]["cursor"]
        while cursor is not None:  # The round itself goes on as ever.
            step = (await ask("POST", "/v1/sweep", {"cursor": cursor})).json()
            assert step["given"] == []
            cursor = step["cursor"]


async def test_a_changed_prefix_policy_is_given_in_bounded_steps(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the sessions that were started since without it: a page a step, each session once, and noted when all have it. What fails with
    it holds up neither the others nor the round."""
    monkeypatch.setattr("perdure.ops.rounds.SLICE_SECONDS", 0.0)
    clock = SimulatedClock()
    store = store_on(MemoryBackend(clock), clock)
    async with serving(store) as ask:

        async def round(cursor: str | None = None) -> list[Any]:
            """The steps of a round from there on."""
            found: list[Any] = []
            while cursor is not None or not found:
                found.append((await ask("POST", "/v1/sweep", {"cursor": cursor})).json())
                cursor = found[-1]["cursor"]
            return found

        def actions(steps: list[Any]) -> list[tuple[str, str, str]]:
            return [(one["session"], one["action"], one["detail"]) for step in steps for one in step["actions"]]

        for prefix in ("a-", "broken-", "c-"):
            await store.append(f"{prefix}old", Event("start"))
            await store.configure(prefix=prefix, expire_after=30 * 86_400)
        store._core.prefixes._known.put(store.tenant, (float("inf"), []))  # A writer that has not heard of them yet.
        for prefix, count in (("a-", 130), ("broken-", 1), ("c-", 3)):
            for number in range(count):
                await store.append(f"{prefix}{number:03}", Event("start"))
        assert {what for _, what, _ in actions(await round())} == {"looked"}
        clock.advance(minutes=2)
        first = (await ask("POST", "/v1/sweep", {})).json()
        assert (first["actions"], (await store.policy("a-063")).prefix) == ([], "a-")
        assert (await store.policy("a-100")).prefix is None
        give = prefix_steps._give

        async def failing(sweep: Any, row: Any, found: Any) -> bool:
            if row.session.id.startswith("broken-"):
                raise perdure.Corrupt("It is damaged.")
            return await give(sweep, row, found)

        monkeypatch.setattr(prefix_steps, "_give", failing)
        rest = await round(first["cursor"])
        assert [one for one in actions(rest) if one[0].startswith("prefix:")] == [
            ("prefix:a-", "applied", "to 130 sessions"),
            ("prefix:broken-", "failed", "It is damaged. " + advice_of(perdure.Corrupt)),
            ("prefix:c-", "applied", "to 3 sessions"),
        ]
        for name in ("a-000", "a-129", "c-002"):
            assert ((await store.policy(name)).prefix, (await store.read(name)).version) == (name[:2], 2)
        assert (await store.policy("a-old")).prefix is None
        monkeypatch.setattr(prefix_steps, "_give", give)
        clock.advance(minutes=6)
        assert ("prefix:broken-", "applied", "to 1 sessions") in actions(await round())


def _cursor(now: int, part: int) -> str:
    """As a node writes it."""
    return urlsafe_b64encode(msgspec.msgpack.encode((now, part, None))).rstrip(b"=").decode()
