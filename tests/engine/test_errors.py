"""Errors: each says what to do, is told apart by machines, and travels between processes."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Coroutine
from typing import Any

import pytest

import perdure
from perdure import Conflict, Event, op
from perdure.config import shown_url


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


async def versions(store: perdure.Store, session: str = "s") -> list[int]:
    return [commit.version async for commit in store.history(session)]


@pytest.mark.parametrize("kind", [each for each in vars(perdure).values() if isinstance(each, type) and issubclass(each, perdure.Error)])
def test_errors_travel(kind: type[perdure.Error]) -> None:
    """Every error keeps its class, message and facts through pickle and copy, and says something without a detail too."""
    error = kind("It did.", session="s", version=3)
    for found in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(found) is kind
        assert (str(found), found.session, found.version, found.facts) == (str(error), "s", 3, error.facts)
    assert str(error).startswith("It did. ")
    assert len(str(kind())) > 20
    with pytest.raises(AttributeError, match="no fact 'nothing'"):
        _ = error.nothing
    assert isinstance(kind.code, str) and isinstance(kind.retryable, bool) and 400 <= kind.http_status < 600


def test_error_codes_are_distinct() -> None:
    """Each class has a code of its own, by which machines tell errors apart. Only `KeyReused` has that of the `Invalid` which it is."""
    kinds = [each for each in vars(perdure).values() if isinstance(each, type) and issubclass(each, perdure.Error)]
    codes = [kind.code for kind in kinds if kind is not perdure.KeyReused]
    assert len(set(codes)) == len(codes) >= 18
    assert perdure.KeyReused.code == perdure.Invalid.code


async def test_a_true_conflict_travels(url: str) -> None:
    """A conflict from a store, with its commits, arrives whole in another process."""

    async with perdure.open(url) as store:
        async with store.edit("s", actor="me") as draft:
            draft.state["deep"] = {"list": [1, {"a": None}]}
        await store.append("s", Event("y", {"n": 1}, (op.set("/deep", 2),)))
        with pytest.raises(Conflict) as caught:
            await store.append("s", Event("z", None, (op.set("/deep", 3),)), expect=1)
        found = pickle.loads(pickle.dumps(caught.value))
        assert (str(found), found.facts) == (str(caught.value), caught.value.facts)
        assert found.commits[0].events == (Event("y", {"n": 1}, (op.set("/deep", 2),)),)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:p%40ss/w@rd@db:5432/agents?sslpassword=x", "postgresql://db:5432/agents"),
        ("redis://:secret@h", "redis://h"),
        ("sqlite:///some/a@b.db?readers=2", "sqlite:///some/a@b.db?readers=2"),
        ("memory:", "memory:"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    """User, password and options of a URL with a host are in no message; a path is shown as it is."""
    assert shown_url(url) == shown
