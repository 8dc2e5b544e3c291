"""What a client leaves to the engine of a node: policies of prefixes, consumers' checkpoints, a sweeper's rounds, and the archive.

The client writes no commit of Perdure's own sessions: each goes through a resource route, with the scopes of the credentials.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure import Change, Event, op, ops
from perdure.engine.live.consumers import session_id
from perdure.engine.store import Store, system_store
from perdure.service.hooks import Credential, RequestHead, Scope
from tests.support.backends.scenarios import until
from tests.support.docs.pages import ROOT
from tests.support.engine.archived import segments
from tests.support.service.nodes import serving

OLD = datetime(2001, 1, 1, tzinfo=UTC)


class Scoped:
    """Credentials of one tenant with these scopes, for everyone."""

    def __init__(self, *scopes: Scope, tenant: str = "default") -> None:
        self.credential_given = Credential(tenant, frozenset(scopes))

    async def credential(self, head: RequestHead) -> Credential:
        return self.credential_given


def scoped(*scopes: Scope, tenant: str = "default") -> dict[str, Any]:
    """For `serving`."""
    return {"node": {"authenticator": Scoped(*scopes, tenant=tenant)}}


class Seen:
    """A handler that notes what it gets, and fails on what it is told to."""

    def __init__(self, *failing: str) -> None:
        self.changes: list[tuple[str, int]] = []
        self.failing = set(failing)

    async def __call__(self, changes: list[Change]) -> None:
        if any(change.session in self.failing for change in changes):
            raise ValueError("It cannot be handled.")
        self.changes += [(change.session, change.commit.version) for change in changes]


async def test_prefix_policies_are_set_through_a_node(tmp_path: Path) -> None:
    """They are what sessions begin with, once for a key; the session that has them was written by the node."""
    with serving(f"sqlite:///{tmp_path}/s.db") as node:
        async with perdure.open(node.url) as store:
            asked: dict[str, Any] = {"expire_after": timedelta(days=3, microseconds=7), "keep": timedelta(hours=5), "drop": True}
            first = await store.configure(prefix="trip-", key="k", **asked)
            again = await store.configure(prefix="trip-", key="k", **asked)
            assert (again.version, again.hash, again.at, again.duplicate) == (first.version, first.hash, first.at, True)
            with pytest.raises(perdure.KeyReused):
                await store.configure(prefix="trip-", key="k", keep=5)
            await store.append("trip-1", Event("note"))
            policy = await store.policy("trip-1")
            assert (policy.expire_after, policy.keep, policy.drop, policy.prefix) == (*asked.values(), "trip-")
            await store.configure(prefix="trip-", expire_after=None, keep=7, wake_every=60, wake="claim")
            policy = await store.policy(prefix="trip-")
            assert (policy.expire_after, policy.keep, policy.wake_every, policy.wake) == (None, 7, timedelta(minutes=1), "claim")
            for wrong in ({"wake_at": OLD}, {"tags": {}}, {"expire_after": -1}, {"archive_after": 60}, {"keep": 5, "drop": False}):
                with pytest.raises((perdure.Invalid, perdure.Unsupported)):
                    await store.configure(prefix="trip-", **wrong)  # type: ignore[arg-type]
        with perdure.sync.open(node.url) as blocking:
            assert blocking.configure(prefix="", keep=3, drop=True).version == 1
            assert blocking.policy(prefix="").keep == 3


async def test_a_lease_starts_a_session_with_the_policy_of_its_prefix(tmp_path: Path) -> None:
    """Nothing but the scope of leases is needed for it, and nothing but the prefix's policy can be said so."""
    url = f"sqlite:///{tmp_path}/s.db"
    with serving(url, **scoped(*Scope)) as node:
        async with perdure.open(node.url) as store:
            await store.configure(prefix="trip-", expire_after=60)
            async with store.lease("trip-1", owner="one", ttl=30) as lease:
                await store.append("trip-1", Event("note"), lease=lease)
            kinds = [commit.kind.name async for commit in store.history("trip-1", control=True)]
            assert kinds == ["configure", "lease", "data", "lease"]
    with serving(url, **scoped(Scope.read, Scope.lease)) as node:
        async with perdure.open(node.url) as store:
            async with store.lease("trip-2", owner="one", ttl=30):
                assert (await store.policy("trip-2")).expire_after == timedelta(minutes=1)
            with pytest.raises(perdure.Error, match="scope"):
                await store.configure("trip-2", expire_after=5)


async def test_a_session_goes_to_the_nodes_archive(tmp_path: Path) -> None:
    """Old commits, and all of it; reads go on; without an archive, or without the scope, nothing happens."""
    with serving(f"sqlite:///{tmp_path}/s.db", archive=f"file://{tmp_path}/archive") as node:
        async with perdure.open(node.url) as store:
            for number in range(9):
                await store.append("s", Event("note", number, (op.add("/n", 1),)))
            moved = await store.compact("s", keep=3)
            assert (moved.commits, moved.segment_bytes > 0) == (6, True)
            done = await store.archive("s", actor="ops")
            assert done.commits > 0 and (await store.archive("s")).commits == 0
            assert ((await store.read("s")).state, (await store.read("s")).status.name) == ({"n": 9}, "archived")
            assert [commit.events[0].data async for commit in store.history("s", types=["note"])] == [*range(9)]
            assert (await store.verify("s")).commits == done.version
            assert await store.restore("s") and not await store.restore("s")
            await store.configure("s", archive_after=timedelta(days=1))
            assert (await store.policy("s")).archive_after == timedelta(days=1)
            with pytest.raises(perdure.NotFound):
                await store.archive("none")
            await store.append("t", Event("note"))
            await store.append("t", Event("note"))
            await store.compact("t", keep=timedelta(0), drop=True)
            with pytest.raises(perdure.Truncated):
                [commit async for commit in store.history("t")]
            await store.archive("s")
            await store.delete("s")
            assert segments(tmp_path)
            await store.purge("s")
            assert not segments(tmp_path)
            with pytest.raises(perdure.Truncated):
                [commit async for commit in store.history("s", include_deleted=True)]
    with serving(f"sqlite:///{tmp_path}/t.db", **scoped(Scope.read, Scope.append)) as node:
        async with perdure.open(node.url) as store:
            await store.append("s", Event("note"))
            for call in (store.archive("s"), store.compact("s", keep=0), store.configure(prefix="a", keep=1, drop=True)):
                with pytest.raises(perdure.Unauthorized, match="admin"):
                    await call
    with serving("memory:") as node:
        async with perdure.open(node.url) as store:
            await store.append("s", Event("note"))
            for call in (store.archive("s"), store.configure("s", archive_after=60)):
                with pytest.raises(perdure.Unsupported, match="archive="):
                    await call


async def test_a_client_hears_of_a_segment_that_is_damaged(tmp_path: Path) -> None:
    """`verify` of a client has a node prove what lies in its archive: the segment is named, also where no read comes by it."""
    with serving(f"sqlite:///{tmp_path}/s.db", archive=f"file://{tmp_path}/archive") as node:
        async with perdure.open(node.url) as store:
            for number in range(9):
                await store.append("s", Event("note", number, (op.add("/n", 1),)))
            await store.archive("s")
            await store.verify("s")
            (file,) = segments(tmp_path)
            file.chmod(0o644)
            file.write_bytes(file.read_bytes()[:20] + b"x" + file.read_bytes()[21:])
            with pytest.raises(perdure.Corrupt, match=file.name):
                await store.verify("s")


async def test_a_consumer_runs_through_a_node(tmp_path: Path) -> None:
    """With the scopes read and append: what it has handled it does not get again, in another run, at another node."""
    url = f"sqlite:///{tmp_path}/s.db"
    some = scoped(Scope.read, Scope.append)
    with serving(url, **some) as node, serving(url, **some) as other:
        seen = Seen()
        for turn, at in enumerate((node, other, node)):
            async with perdure.open(at.url) as store:
                for session in ("a", "b/é"):
                    await store.append(session, Event("note", turn))
                assert (await ops.consume(store, "index é", seen, code="index", follow=False)).handled == 2
                (info,) = await ops.consumers(store)
                assert (info.name, info.handled, info.waiting, info.parked) == ("index é", 2 * turn + 2, 0, ())
                with pytest.raises(perdure.Invalid, match="registered with"):
                    await ops.consume(store, "index é", seen, code="other", follow=False)
        assert sorted(seen.changes) == [(session, version) for session in ("a", "b/é") for version in (1, 2, 3)]
        async with perdure.open(node.url) as store:
            for call in (ops.retry(store, "index é"), ops.drop(store, "index é"), ops.forget(store, "index é")):
                with pytest.raises(perdure.Unauthorized, match="admin"):
                    await call
    with serving(url) as node, perdure.sync.open(node.url) as blocking:
        blocking.append("a", Event("note"))
        found: list[Change] = []
        assert ops.consume(blocking, "index é", found.extend, code="index", follow=False).handled == 1
        ops.forget(blocking, "index é")
        assert ops.consumers(blocking) == []
        with pytest.raises(perdure.NotFound):
            ops.forget(blocking, "index é")


async def test_what_is_parked_is_tried_again_and_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By requests to a node; the order of the session holds."""
    monkeypatch.setattr("perdure.ops.consumer.BACKOFF", 0.001)
    with serving(f"sqlite:///{tmp_path}/s.db") as node:
        async with perdure.open(node.url) as store:
            for session in ("bad", "good", "bad", "worse"):
                await store.append(session, Event("note"))
            seen = Seen("bad", "worse")
            assert (await ops.consume(store, "c", seen, code="c", attempts=2, follow=False)).parked == 2
            (info,) = await ops.consumers(store, "c")
            assert [(one.session, one.first, one.last) for one in info.parked] == [("bad", 1, 2), ("worse", 1, 1)]
            assert "cannot be handled" in info.parked[0].error
            seen.failing.clear()
            assert (await ops.retry(store, "c", "bad"), await ops.drop(store, "c", "worse")) == (1, 1)
            with pytest.raises(perdure.NotFound):
                await ops.drop(store, "c", "worse")
            assert (await ops.consume(store, "c", seen, code="c", follow=False)).parked == 0
            assert sorted(seen.changes) == [("bad", 1), ("bad", 2), ("good", 1)]


async def test_one_run_of_a_name_works_at_a_time(tmp_path: Path) -> None:
    """The second one is `Held`, and takes over when the first has ended. One whose lease was broken handles nothing more until it has the
    lease again, and then goes on: nothing is left out."""
    with serving(f"sqlite:///{tmp_path}/s.db") as node:
        async with perdure.open(node.url) as store, perdure.open(node.url) as other:
            seen = Seen()
            await store.append("a", Event("note"))
            running = asyncio.create_task(ops.consume(store, "c", seen, code="c", ttl=4))
            await until(lambda: seen.changes == [("a", 1)])
            with pytest.raises(perdure.Held, match="c in process"):
                await ops.consume(other, "c", Seen(), code="c", follow=False, wait=0)
            system = system_store(node.node.store)
            broken = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(system.break_lease(session_id("c")), node.loop))
            assert broken is not None
            await store.append("a", Event("note"))
            await until(lambda: ("a", 2) in seen.changes)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            taken = Seen()
            await ops.consume(other, "c", taken, code="c", follow=False, wait=30)
            assert {*seen.changes, *taken.changes} == {("a", 1), ("a", 2)}


async def test_a_run_that_is_silent_is_taken_over_and_one_that_works_is_not(tmp_path: Path) -> None:
    """The node answers for a run as long as it is heard, however long its handler takes; one that stops speaking is taken over."""
    with serving(f"sqlite:///{tmp_path}/s.db") as node:
        async with perdure.open(node.url) as store, perdure.open(node.url) as other:
            await store.append("a", Event("note"))
            working, done = asyncio.Event(), asyncio.Event()

            async def slow(changes: list[Change]) -> None:
                working.set()
                await done.wait()

            running = asyncio.create_task(ops.consume(store, "c", slow, code="c", ttl=3))
            await working.wait()
            with pytest.raises(perdure.Held):
                await ops.consume(other, "c", Seen(), code="c", follow=False, wait=4)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0), node.loop))
            await store._core.backend._io.call(_silence(store))  # type: ignore[attr-defined]
            seen = Seen()
            await ops.consume(other, "c", seen, code="c", follow=False, wait=60)
            assert seen.changes == [("a", 1)]
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running


async def _silence(store: Store) -> None:
    """No request of this client arrives any more."""
    calls = store._core.backend.driver.calls  # type: ignore[attr-defined]

    async def nothing(*_: object, **__: object) -> bytes:
        raise perdure.Unavailable("Cut off.")

    calls._once = nothing


async def test_a_node_sweeps_its_tenants_sessions_and_no_others(tmp_path: Path) -> None:
    """Woken, and given a prefix policy: by steps of 64, each action once; a dry run changes nothing; another tenant's stay due."""
    with serving(f"sqlite:///{tmp_path}/s.db") as node:
        home = node.node.store

        async def prepare() -> None:
            for store in (home, home.for_tenant("theirs")):
                for number in range(70):
                    await store.append(f"s{number:02}", Event("note"))
                    await store.configure(f"s{number:02}", wake_at=OLD)
            await home.append("early", Event("note"))
            await home.configure(prefix="early", keep=5, drop=True)

        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(prepare(), node.loop))
        async with perdure.open(node.url) as store:
            assert len([one async for one in ops.due(store, prefix="s")]) == 70
            with pytest.raises(perdure.Unsupported, match="engine's URL"):
                [one async for one in ops.due(store, every_tenant=True)]
            dry: list[ops.Action] = []
            tried = await ops.sweep(store, dry_run=True, notify=dry.append)
            assert tried.due == len(dry) == 71 and (await store.read("s00")).version == 2
            rounds = [await ops.sweep(store, once=True, existing=number == 0) for number in range(2)]
            assert rounds[0].applied >= 1 and sum(done.woken for done in rounds) == 70
            assert (await store.policy("early")).keep == 5
            assert [event.type async for commit in store.history("s69") for event in commit.events][-1] == "woken"
        theirs = home.for_tenant("theirs").read("s00")
        assert (await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(theirs, node.loop))).version == 2
    with serving(f"sqlite:///{tmp_path}/t.db", **scoped(Scope.read, Scope.append, Scope.lease)) as node:
        async with perdure.open(node.url) as store:
            with pytest.raises(perdure.Unauthorized, match="admin"):
                await ops.sweep(store, once=True)


async def test_other_tenants_than_the_credentials_are_refused(tmp_path: Path) -> None:
    """No resource route takes a tenant: a store of another one is `Unauthorized` before anything is asked."""
    with serving(f"sqlite:///{tmp_path}/s.db", **scoped(*Scope, tenant="acme")) as node:
        async with perdure.open(node.url, tenant="other") as store:
            for call in (
                lambda: store.configure(prefix="a", keep=1, drop=True), lambda: store.archive("s"), lambda: store.compact("s", keep=1),
                lambda: store.purge("s"), lambda: ops.sweep(store, once=True),
                lambda: ops.consume(store, "c", Seen(), code="c", follow=False),
            ):  # fmt: skip
                with pytest.raises(perdure.Unauthorized, match="acme"):
                    await call()


def test_the_shell_works_through_a_node(tmp_path: Path) -> None:
    """`sweep`, `due` and `consumers` take the URL of a service; `upgrade` says why it does not."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    def perdure_(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "perdure", *words, "--json"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)

    with serving(f"sqlite:///{tmp_path}/s.db") as node:
        with perdure.sync.open(node.url) as store:
            store.append("s", Event("note"))
            store.configure("s", wake_at=OLD)
            ops.consume(store, "c", print, code="c", follow=False)
        assert '"session":"s"' in perdure_("due", "--url", node.url).stdout
        swept = perdure_("sweep", node.url, "--once")
        assert swept.returncode == 0 and json.loads(swept.stdout.splitlines()[-1])["swept"]["due"] >= 1
        assert '"name":"c"' in perdure_("consumers", "--url", node.url).stdout
        assert perdure_("consumers", "--forget", "c", "--url", node.url).returncode == 0
        assert perdure_("consumers", "--url", node.url).stdout == ""
        assert json.loads(perdure_("upgrade", node.url).stdout)["upgraded"] is False


async def test_an_upgrade_is_refused_with_its_reason(tmp_path: Path) -> None:
    """A node uses the store: it is stopped first."""
    with serving(f"sqlite:///{tmp_path}/s.db") as node:
        async with perdure.open(node.url) as store:
            backend: Any = store._core.backend
            for call in (backend.migrate(1, lambda *_: None), backend.require_writer(2)):
                with pytest.raises(perdure.Unsupported, match="stop the nodes"):
                    await call
