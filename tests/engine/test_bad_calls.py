"""Bad calls: what is not there, ranges and filters of the wrong kind, and stores that are closed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

import perdure
from perdure import op
from tests.support.engine.refusal import CALLS, Call, consume, each, event, refused

ADD = event(None, (op.add("/n", 1),))


@each(
    [
        ("read", (lambda store: store.read("none"), perdure.NotFound, "There is no session 'none'")),
        ("history", (lambda store: store.history("none"), perdure.NotFound, "There is no session 'none'")),
        ("edit", (lambda store: store.edit("none", create=False), perdure.NotFound, "There is no session 'none'")),
        ("update", (lambda store: store.update("none", print, create=False), perdure.NotFound, "There is no session 'none'")),
        ("expect a version", (lambda store: store.append("none", event(), expect=3), perdure.NotFound, "There is no session 'none'")),
        ("fork", (lambda store: store.fork("none"), perdure.NotFound, "There is no session 'none'")),
        ("merge", (lambda store: store.merge("none", into="s"), perdure.NotFound, "There is no session 'none'")),
        ("merge into", (lambda store: store.merge("s", into="none"), perdure.NotFound, "There is no session 'none'")),
        ("configure", (lambda store: store.configure("none", tags={}), perdure.NotFound, "There is no session 'none'")),
        ("delete", (lambda store: store.delete("none"), perdure.NotFound, "There is no session 'none'")),
        ("verify", (lambda store: store.verify("none"), perdure.NotFound, "There is no session 'none'")),
        ("other tenant", (lambda store: store.for_tenant("acme").read("s"), perdure.NotFound, "'acme'")),
        ("version not yet", (lambda store: store.read("s", at=3), perdure.NotFound, "no version 3 yet; its head is 2")),
        ("version never", (lambda store: store.read("s", at=2**70), perdure.Invalid, "at must be")),
        ("fork version not yet", (lambda store: store.fork("s", at=3), perdure.NotFound, "no version 3")),
        ("fork version never", (lambda store: store.fork("s", at=2**70), perdure.Invalid, "at must be")),
        ("version 0", (lambda store: store.read("s", at=0), perdure.Invalid, "version from 1")),
        ("version -1", (lambda store: store.read("s", at=-1), perdure.Invalid, "version from 1")),
        ("version 1.5", (lambda store: store.read("s", at=1.5), perdure.Invalid, "version from 1")),
        ("version true", (lambda store: store.read("s", at=True), perdure.Invalid, "version from 1")),
        ("fork version 0", (lambda store: store.fork("s", at=0), perdure.Invalid, "version from 1")),
        ("naive time", (lambda store: store.read("s", at=datetime(2026, 1, 1)), perdure.Invalid, "aware datetime")),  # noqa: DTZ001
        ("time before", (lambda store: store.read("s", at=datetime(1999, 1, 1, tzinfo=UTC)), perdure.NotFound, "did not exist")),
        ("consistency", (lambda store: store.read("s", consistency="soon"), perdure.Invalid, "'strong' or 'eventual'")),
        ("deleted read", (lambda store: store.read("dead"), perdure.Deleted, "`recreate`")),
        ("deleted append", (lambda store: store.append("dead", event()), perdure.Deleted, "`recreate`")),
        ("deleted edit", (lambda store: store.edit("dead"), perdure.Deleted, "`recreate`")),
        ("deleted history", (lambda store: store.history("dead"), perdure.Deleted, "`recreate`")),
        ("deleted delete", (lambda store: store.delete("dead"), perdure.Deleted, "was deleted at version 2")),
        ("deleted fork", (lambda store: store.fork("dead"), perdure.Deleted, "`recreate`")),
        ("deleted configure", (lambda store: store.configure("dead", tags={}), perdure.Deleted, "`recreate`")),
        ("fork onto itself", (lambda store: store.fork("s", id="s"), perdure.AlreadyExists, "there already")),
        ("fork onto another", (lambda store: store.fork("s", id="dead"), perdure.AlreadyExists, "there already")),
        ("expect none", (lambda store: store.append("s", event(), expect=0), perdure.AlreadyExists, "is at version 2")),
        ("expect none, ops", (lambda store: store.append("s", ADD, expect=0), perdure.AlreadyExists, "is at version 2")),
        ("edit expects none", (lambda store: store.edit("s", expect=0), perdure.AlreadyExists, "is at version 2")),
        ("merge of a stranger", (lambda store: store.merge("s", into="s"), perdure.Invalid, "was not forked")),
    ]
)  # fmt: skip
async def test_what_is_not_there(url: str, case: tuple[Call, type[perdure.Error], str]) -> None:
    """Sessions, versions and times that do not exist, and sessions that do where they must not, are told by name."""
    await refused(url, *case)


@each(
    [
        ("limit", (lambda store: store.history("s", limit=-1), "limit")),
        ("limit 1.5", (lambda store: store.history("s", limit=1.5), "limit")),
        ("after", (lambda store: store.history("s", after="1"), "after")),
        ("after none", (lambda store: store.history("s", after=-1), "after")),
        ("after never", (lambda store: store.history("s", after=2**70), "after")),
        ("before", (lambda store: store.history("s", before=-1), "before")),
        ("before never", (lambda store: store.history("s", before=2**70), "before")),
        ("types string", (lambda store: store.history("s", types="begun"), "types")),
        ("types int", (lambda store: store.history("s", types=7), "types")),
        ("list limit", (lambda store: store.list(limit=-1), "limit")),
        ("list prefix", (lambda store: store.list(prefix=7), "prefix")),
        ("list prefix surrogate", (lambda store: store.list(prefix="\ud800"), "prefix")),
        ("list cursor", (lambda store: store.list(cursor=7), "cursor")),
        ("list cursor surrogate", (lambda store: store.list(cursor="\ud800"), "cursor")),
        ("list tags", (lambda store: store.list(tags=["team"]), "tags")),
        ("list tag value", (lambda store: store.list(tags={"team": 7}), "tag")),
        ("list time", (lambda store: store.list(updated_after=datetime.fromisoformat("2026-01-01")), "aware")),
        ("list time of another type", (lambda store: store.list(updated_before=7), "updated_before needs an aware datetime")),
        ("list status", (lambda store: store.list(status="gone"), "active, idle, archived, deleted, moved")),
        ("tags", (lambda store: store.configure("s", tags=["team"]), "tags")),
        ("tags many", (lambda store: store.configure("s", tags={str(n): "x" for n in range(65)}), "at most 64")),
        ("nothing to configure", (lambda store: store.configure("s"), "pass tags")),
        ("attempts", (lambda store: store.update("s", print, attempts=0), "attempts")),
        ("no function", (lambda store: store.update("s", "not a function"), "function")),
    ]
)
async def test_other_arguments(url: str, case: tuple[Call, str]) -> None:
    """Ranges, limits, filters and tags of the wrong kind are refused by the argument's name."""
    await refused(url, case[0], perdure.Invalid, case[1])


async def test_an_unknown_order(url: str) -> None:
    """An order that the engine lacks is `Unsupported`, and the message says which there is."""
    await refused(url, lambda store: store.list(order="updated"), perdure.Unsupported, "id")


async def test_an_edit_is_used_once(url: str) -> None:
    """Entering the same edit again is refused: nobody knows which block would be meant."""

    async with perdure.open(url) as store:
        edit = store.edit("s")
        async with edit as draft:
            draft.state["a"] = 1
        with pytest.raises(perdure.Invalid, match="used once"):
            async with edit:
                pass
        assert (await store.read("s")).version == 1


ALL_CALLS: dict[str, Call] = {
    **{name: (lambda store, call=call: call(store, "s")) for name, call in CALLS.items()},  # type: ignore[misc]
    "list": lambda store: store.list(),
    "for_tenant": lambda store: store.for_tenant("acme").read("s"),
}


@pytest.mark.parametrize("name", ALL_CALLS)
async def test_a_closed_store(url: str, name: str) -> None:
    """After `close` every call is `Closed` and says how to open the store again; closing twice is closing once."""

    store = await perdure.open(url)
    await store.append("s", event())
    await store.close()
    await store.close()
    with pytest.raises(perdure.Closed, match=r"perdure\.open"):
        await consume(ALL_CALLS[name](store))
    with pytest.raises(perdure.Closed):
        store.new_id()
    assert "closed" in repr(store)


async def test_a_store_closed_inside_an_edit(url: str) -> None:
    """An edit whose store is closed before the block ends writes nothing and says so."""

    store = await perdure.open(url)
    await store.append("s", event())
    edit = store.edit("s")
    draft = await edit.__aenter__()
    draft.state["a"] = 1
    await store.close()
    with pytest.raises(perdure.Closed):
        await edit.__aexit__(None, None, None)
    assert draft.receipt is None
    if url != "memory:":
        async with perdure.open(url) as again:
            assert (await again.read("s")).version == 1


def test_the_blocking_api_refuses_alike(url: str) -> None:
    """`perdure.sync` raises the same errors at the same doors."""
    with perdure.sync.open(url) as store:
        store.append("s", event())
        with pytest.raises(perdure.Invalid, match="control characters"):
            store.append("a\nb", event())
        with pytest.raises(perdure.Invalid, match="nan"):
            store.append("s", event(float("nan")))
        with pytest.raises(perdure.NotFound):
            store.read("none")
        with pytest.raises(perdure.Invalid, match="limit"):
            list(store.history("s", limit=-1))
        with pytest.raises(perdure.Invalid), store.edit("s") as draft:
            draft.state["a"] = {1, 2}
        assert store.read("s").version == 1
    with pytest.raises(perdure.Closed):
        store.read("s")
