"""The artifact service: what every ADK artifact service owes its callers, and what this one adds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from google.adk.artifacts import InMemoryArtifactService
from google.adk.errors.input_validation_error import InputValidationError
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st

import perdure
from perdure.adapters.google_adk import PerdureArtifactService, artifacts
from tests.support.adapters.adk_sessions import WHO

S = {**WHO, "session_id": "s"}
REPORT = "adk/shop/artifacts/ann/s/report"


@pytest.fixture
def play(player: Callable[..., None]) -> Callable[..., None]:
    """Run a scenario with an artifact service."""
    return partial(player, PerdureArtifactService)


def text(text: str) -> types.Part:
    return types.Part(text=text)


def data(data: bytes, mime_type: str | None = "image/png", **more: Any) -> types.Part:
    return types.Part(inline_data=types.Blob(data=data, mime_type=mime_type, **more))


def refer(uri: str) -> types.Part:
    return types.Part(file_data=types.FileData(file_uri=uri))


PARTS = {
    "text": text("größe 太郎\n\x00"),
    "empty text": text(""),
    "bytes": data(bytes(range(256)) * 3, display_name="A picture.png"),
    "no bytes": data(b"", "text/csv"),
    "bytes without a type": data(b"\xff\xfe", None),
    "a file elsewhere": types.Part(file_data=types.FileData(file_uri="gs://bucket/a.pdf", mime_type="application/pdf", display_name="a")),
    "text with more": types.Part(text="thinking", thought=True, thought_signature=b"\xff\x00\xfe"),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_comes_back_as_it_was(play, name: str) -> None:
    """Bytes, text, type, display name and what else a part holds come back exactly; so does a part given as JSON of either case."""

    async def scenario(service: PerdureArtifactService) -> None:
        part = PARTS[name]
        assert await service.save_artifact(**S, filename="a", artifact=part) == 0
        given = [part.model_dump(mode="json", by_alias=by_alias, exclude_none=True) for by_alias in (True, False)]
        assert [await service.save_artifact(**S, filename="a", artifact=json) for json in given] == [1, 2]
        assert [await service.load_artifact(**S, filename="a", version=number) for number in range(3)] == [part] * 3

    play(scenario)


def test_versions_count_from_zero_and_stay(play) -> None:
    """Each save is the next number; every version can be loaded, the newest is the default, and a number that is none gives `None`."""

    async def scenario(service: PerdureArtifactService) -> None:
        assert await service.load_artifact(**S, filename="report") is None
        assert await service.list_versions(**S, filename="report") == []
        assert await service.get_artifact_version(**S, filename="report") is None
        assert [await service.save_artifact(**S, filename="report", artifact=text(str(n))) for n in range(5)] == list(range(5))
        assert [(await service.load_artifact(**S, filename="report", version=n)).text for n in range(5)] == list("01234")
        assert await service.load_artifact(**S, filename="report") == text("4")
        assert await service.list_versions(**S, filename="report") == list(range(5))
        for none in (-1, 5):
            assert await service.load_artifact(**S, filename="report", version=none) is None
            assert await service.get_artifact_version(**S, filename="report", version=none) is None

    play(scenario)


def test_what_a_rewind_took_away_is_none(play) -> None:
    """The empty part that ADK saves for an artifact that a rewind takes away loads as `None`; versions before and after it load."""

    async def scenario(service: PerdureArtifactService) -> None:
        for part in (text("0"), data(b"", "application/octet-stream"), text("2")):
            await service.save_artifact(**S, filename="report", artifact=part)
        assert [await service.load_artifact(**S, filename="report", version=n) for n in range(3)] == [text("0"), None, text("2")]

    play(scenario)


def test_what_is_known_of_a_version(play) -> None:
    """A version tells its number, type, time and the metadata it was saved with; metadata belongs to the caller."""

    async def scenario(service: PerdureArtifactService) -> None:
        metadata = {"source": "scan", "pages": [1, 2], "ok": True}
        await service.save_artifact(**S, filename="report", artifact=data(b"1"), custom_metadata=metadata)
        metadata["pages"].append(3)
        await service.save_artifact(**S, filename="report", artifact=text("2"))
        await service.save_artifact(**S, filename="report", artifact=PARTS["a file elsewhere"], custom_metadata={})
        first, second, third = await service.list_artifact_versions(**S, filename="report")
        assert [version.version for version in (first, second, third)] == [0, 1, 2]
        assert [version.mime_type for version in (first, second, third)] == ["image/png", "text/plain", "application/pdf"]
        assert first.custom_metadata == {"source": "scan", "pages": [1, 2], "ok": True}
        assert second.custom_metadata == third.custom_metadata == {}
        assert first.create_time <= second.create_time <= third.create_time
        first.custom_metadata["pages"].clear()
        assert (await service.get_artifact_version(**S, filename="report", version=0)).custom_metadata["pages"] == [1, 2]
        assert await service.get_artifact_version(**S, filename="report") == third
        with pytest.raises(perdure.Invalid):
            await service.save_artifact(**S, filename="report", artifact=text("3"), custom_metadata={"a": object()})
        assert await service.list_versions(**S, filename="report") == [0, 1, 2]

    play(scenario)


def test_a_users_artifacts_are_seen_by_all_sessions_of_the_user(play) -> None:
    """`user:` names, and names without a session, are the user's: listed with `user:` from any session, by no other user or app."""

    async def scenario(service: PerdureArtifactService) -> None:
        await service.save_artifact(**S, filename="mine", artifact=text("s"))
        await service.save_artifact(**S, filename="user:photo", artifact=text("one"))
        assert await service.save_artifact(**WHO, filename="photo", artifact=text("two")) == 1
        await service.save_artifact(**WHO, session_id="t", filename="photo", artifact=text("t"))
        assert await service.list_artifact_keys(**S) == ["mine", "user:photo"]
        assert await service.list_artifact_keys(**WHO, session_id="t") == ["photo", "user:photo"]
        assert await service.list_artifact_keys(**WHO) == await service.list_artifact_keys(**WHO, session_id="new") == ["user:photo"]
        for where in (
            {**WHO, "session_id": "t", "filename": "user:photo"},
            {**WHO, "filename": "user:photo"},
            {**WHO, "filename": "photo"},
        ):
            assert await service.load_artifact(**where) == text("two")
        assert await service.load_artifact(**WHO, session_id="t", filename="photo") == text("t")
        for other in ({"app_name": "shop", "user_id": "bob"}, {"app_name": "forum", "user_id": "ann"}):
            assert await service.list_artifact_keys(**other, session_id="s") == []
            assert await service.load_artifact(**other, session_id="s", filename="user:photo") is None

    play(scenario)


def test_names_with_separators_do_not_meet(play) -> None:
    """Slashes, percent signs and control characters in names make different artifacts, each listed under its own name."""

    async def scenario(service: PerdureArtifactService) -> None:
        places = [("a", "b", "c/d"), ("a", "b/c", "d"), ("a/b", "c", "d"), ("a", "b%2Fc", "d"), ("a", "user", "d"), ("a", "b", "c%2Fd")]
        for number, (user, session, name) in enumerate(places):
            place = {"app_name": "shop", "user_id": user, "session_id": session, "filename": name}
            assert await service.save_artifact(**place, artifact=text(str(number))) == 0
        for number, (user, session, name) in enumerate(places):
            found = {"app_name": "shop", "user_id": user, "session_id": session}
            assert name in await service.list_artifact_keys(**found)
            assert await service.load_artifact(**found, filename=name) == text(str(number))
        assert await service.list_artifact_keys(app_name="shop", user_id="a", session_id="b") == ["c%2Fd", "c/d"]
        assert await service.list_artifact_keys(app_name="shop", user_id="a", session_id=" b\n") == ["c%2Fd", "c/d"]

    play(scenario)


def test_a_deleted_artifact_is_gone_and_starts_anew(play) -> None:
    """After a deletion, which may be repeated, nothing is found or listed; what is saved next is version 0. Others are left alone."""

    async def scenario(service: PerdureArtifactService) -> None:
        for name in ("report", "report/nested", "user:report"):
            await service.save_artifact(**S, filename=name, artifact=text(f"old {name}"))
        for _ in range(2):
            await service.delete_artifact(**S, filename="report")
        assert await service.load_artifact(**S, filename="report") is None
        assert await service.list_artifact_versions(**S, filename="report") == []
        assert await service.list_artifact_keys(**S) == ["report/nested", "user:report"]
        assert await service.save_artifact(**S, filename="report", artifact=text("new")) == 0
        assert await service.load_artifact(**S, filename="report", version=0) == text("new")
        assert await service.load_artifact(**S, filename="report", version=1) is None

    play(scenario)


def test_a_reference_leads_to_the_version_that_it_names(play) -> None:
    """`artifact://` file data, such as a version's `canonical_uri`, loads what it refers to, over five references and no more."""

    async def scenario(service: PerdureArtifactService) -> None:
        for number in range(2):
            await service.save_artifact(**S, filename="a/b", artifact=text(f"v{number}"))
        await service.save_artifact(**S, filename="user:u", artifact=text("user's"))
        first = await service.get_artifact_version(**S, filename="a/b", version=0)
        users = await service.get_artifact_version(**S, filename="user:u")
        await service.save_artifact(**S, filename="r0", artifact=refer(first.canonical_uri))
        await service.save_artifact(**S, filename="ru", artifact=refer(users.canonical_uri))
        assert await service.load_artifact(**S, filename="r0") == text("v0")
        assert await service.load_artifact(**S, filename="ru") == text("user's")
        assert (await service.get_artifact_version(**S, filename="r0")).mime_type is None
        for number in range(5):
            uri = f"artifact://apps/shop/users/ann/sessions/s/artifacts/r{number}/versions/0"
            await service.save_artifact(**S, filename=f"r{number + 1}", artifact=refer(uri))
        assert await service.load_artifact(**S, filename="r4") == text("v0")
        with pytest.raises(InputValidationError, match="more than 5 references"):
            await service.load_artifact(**S, filename="r5")
        gone = refer("artifact://apps/shop/users/ann/artifacts/gone/versions/3")
        await service.save_artifact(**S, filename="gone", artifact=gone)
        assert await service.load_artifact(**S, filename="gone") is None

    play(scenario)


@pytest.mark.parametrize(
    "part",
    [
        types.Part(),
        types.Part(inline_data=types.Blob(mime_type="image/png")),
        types.Part(function_call=types.FunctionCall(name="f", args={})),
        refer("artifact://nonsense"),
        refer("artifact://apps/shop/users/bob/artifacts/a/versions/0"),
        refer("artifact://apps/forum/users/ann/artifacts/a/versions/0"),
        refer("artifact://apps/shop/users/ann/sessions/t/artifacts/a/versions/0"),
    ],
)
def test_what_is_no_artifact_is_refused(play, part: types.Part) -> None:
    """A part without content, and a reference out of the user or the session, is `InputValidationError`, and nothing is saved."""

    async def scenario(service: PerdureArtifactService) -> None:
        with pytest.raises(InputValidationError):
            await service.save_artifact(**S, filename="a", artifact=part)
        assert await service.list_artifact_keys(**S) == []

    play(scenario)


def test_many_saves_at_once_get_a_number_each(play) -> None:
    """Of 100 saves at once every one has its own version, which holds what it saved."""

    async def scenario(service: PerdureArtifactService) -> None:
        numbers = await asyncio.gather(*[service.save_artifact(**S, filename="report", artifact=text(str(n))) for n in range(100)])
        assert sorted(numbers) == await service.list_versions(**S, filename="report") == list(range(100))
        for n, number in enumerate(numbers):
            assert await service.load_artifact(**S, filename="report", version=number) == text(str(n))

    play(scenario)


async def test_two_stores_on_one_file_lose_no_version(file_url: str) -> None:
    """Two services with stores of their own, as in two processes, save and delete the same artifact at once: no save is lost or doubled."""

    async with perdure.open(file_url) as here, perdure.open(file_url) as there:
        services = [PerdureArtifactService(here), PerdureArtifactService(there)]
        for round in range(3):
            saves = [services[n % 2].save_artifact(**S, filename="report", artifact=text(str(n))) for n in range(24)]
            numbers = await asyncio.gather(*saves)
            assert sorted(numbers) == list(range(24)), round
            loaded = [await services[1].load_artifact(**S, filename="report", version=number) for number in numbers]
            assert [part.text for part in loaded] == [str(n) for n in range(24)]
            await services[round % 2].delete_artifact(**S, filename="report")
            assert await services[(round + 1) % 2].list_versions(**S, filename="report") == []


def test_an_artifact_above_a_commits_limit_is_split(file_url: str) -> None:
    """20 MiB, more than a commit may have, come back exactly, from another store too, and the log is sound."""
    picture = data(os.urandom(20 << 20))

    async def save() -> None:
        async with perdure.open(file_url) as store:
            service = PerdureArtifactService(store)
            await service.save_artifact(**S, filename="report", artifact=text("small"))
            assert await service.save_artifact(**S, filename="report", artifact=picture) == 1

    async def check() -> None:
        async with perdure.open(file_url) as store:
            service = PerdureArtifactService(store)
            assert await service.load_artifact(**S, filename="report") == picture
            assert await service.load_artifact(**S, filename="report", version=0) == text("small")
            assert await service.list_artifact_keys(**S) == ["report"]
            async for info in store.list():
                await store.verify(info.session)
            await service.delete_artifact(**S, filename="report")
            assert [info async for info in store.list()] == []

    asyncio.run(save())
    asyncio.run(check())


def test_a_split_that_stops_half_way_is_seen_by_nobody(play, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a piece cannot be written there is no new version, no name in the list; saved again it is there once."""
    monkeypatch.setattr(artifacts, "PIECE_LENGTH", 100)
    part = text('"\\ä' * 200)

    async def scenario(service: PerdureArtifactService) -> None:
        append, calls = service._store.append, 0

        async def failing(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise perdure.Unavailable("The engine is away.")
            return await append(*args, **options)

        with monkeypatch.context() as broken:
            broken.setattr(service._store, "append", failing)
            with pytest.raises(perdure.Unavailable):
                await service.save_artifact(**S, filename="report", artifact=part)
        assert await service.list_artifact_keys(**S) == []
        assert await service.load_artifact(**S, filename="report") is None
        assert await service.save_artifact(**S, filename="report", artifact=part) == 0
        assert await service.load_artifact(**S, filename="report") == part

    play(scenario)


def test_a_piece_too_many_or_too_few_is_corrupt(play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A split artifact whose pieces are not those that it was made of is `Corrupt`; one whose pieces were deleted is `None`."""
    monkeypatch.setattr(artifacts, "PIECE_LENGTH", 100)

    async def scenario(service: PerdureArtifactService) -> None:
        await service.save_artifact(**S, filename="report", artifact=text("x" * 250))
        pieces = (await service._store.read(REPORT)).state["versions"][0]["pieces"]
        assert pieces["count"] == 3
        await service._store.append(pieces["session"], perdure.Event("artifact_piece", {"text": "more"}))
        with pytest.raises(perdure.Corrupt, match="4 of 3 pieces"):
            await service.load_artifact(**S, filename="report")
        await service._store.delete(pieces["session"])
        assert await service.load_artifact(**S, filename="report") is None

    play(scenario)


def test_an_artifact_reads_like_a_log(play) -> None:
    """Each version is one commit of its user; the state says what versions there are, and a fork holds those up to its point."""

    async def scenario(service: PerdureArtifactService) -> None:
        store = service._store
        for n in range(3):
            await service.save_artifact(**S, filename="report", artifact=text(f"text {n}"), custom_metadata={"n": n})
        commits = [commit async for commit in store.history(REPORT)]
        assert [(commit.actor, commit.events[0].type, commit.events[0].data["part"]) for commit in commits] == [
            ("ann", "artifact_saved", {"text": f"text {n}"}) for n in range(3)
        ]
        state = (await store.read(REPORT)).state
        assert [(version["mime_type"], version["bytes"], version["custom_metadata"]) for version in state["versions"]] == [
            ("text/plain", 6, {"n": n}) for n in range(3)
        ]
        await store.fork(REPORT, at=2, id="adk/shop/artifacts/ann/fork/report")
        assert await service.list_versions(**WHO, session_id="fork", filename="report") == [0, 1]
        assert await service.load_artifact(**WHO, session_id="fork", filename="report") == text("text 1")
        assert await service.save_artifact(**WHO, session_id="fork", filename="report", artifact=text("branch")) == 2
        assert await service.load_artifact(**S, filename="report") == text("text 2")

    play(scenario)


def test_what_is_not_ours_is_refused(play) -> None:
    """A session that something else made, names that are too long together, and a part of another time are named."""

    async def scenario(service: PerdureArtifactService) -> None:
        with pytest.raises(perdure.Invalid, match="at most 255"):
            await service.save_artifact(**S, filename="x" * 250, artifact=text("a"))
        await service._store.append(REPORT, perdure.Event("note", 1))
        for call in (service.load_artifact(**S, filename="report"), service.save_artifact(**S, filename="report", artifact=text("a"))):
            with pytest.raises(perdure.Invalid, match="no artifact of ADK"):
                await call
        await service.save_artifact(**S, filename="other", artifact=text("a"))
        version = {"key": "k", "created": 1.0, "bytes": 1, "mime_type": None}
        event = perdure.Event(
            "artifact_saved", {"key": "k", "part": {"text": {"of": "the future"}}}, (perdure.op.append("/versions", [version]),)
        )
        await service._store.append("adk/shop/artifacts/ann/s/other", event, key="k")
        with pytest.raises(perdure.Unsupported, match="holds as version 1"):
            await service.load_artifact(**S, filename="other")
        assert await service.load_artifact(**S, filename="other", version=0) == text("a")

    play(scenario)


async def test_tenants_and_closed_stores() -> None:
    """Another tenant of the store sees no artifact; after the store is closed every method raises `Closed`; a URL is no store."""

    async with perdure.open("memory:") as store:
        service, theirs = PerdureArtifactService(store), PerdureArtifactService(store.for_tenant("globex"))
        await service.save_artifact(**S, filename="user:a", artifact=text("a"))
        assert await theirs.load_artifact(**S, filename="user:a") is None
        assert await theirs.list_artifact_keys(**S) == []
    for call in (
        service.save_artifact(**S, filename="a", artifact=text("a")),
        service.load_artifact(**S, filename="a"),
        service.list_artifact_keys(**S),
        service.delete_artifact(**S, filename="a"),
        service.list_versions(**S, filename="a"),
        service.list_artifact_versions(**S, filename="a"),
        service.get_artifact_version(**S, filename="a"),
    ):
        with pytest.raises(perdure.Closed):
            await call
    with pytest.raises(perdure.Invalid, match="takes an open store"):
        PerdureArtifactService("sqlite:///agents.db")  # type: ignore[arg-type]


NAMES = st.sampled_from(["a", "a/b", "user:a", "user:b"])
PLACES = st.fixed_dictionaries({"session_id": st.sampled_from(["s", "t"]), "filename": NAMES})
STEPS = st.lists(
    st.tuples(st.just("save_artifact"), PLACES, st.sampled_from([*PARTS.values(), artifacts.REWOUND]))
    | st.tuples(st.just("load_artifact"), PLACES, st.none() | st.integers(0, 4))
    | st.tuples(st.sampled_from(["delete_artifact", "list_versions"]), PLACES, st.none()),
    max_size=24,
)


@settings(max_examples=40)
@given(STEPS)
def test_it_answers_as_the_in_memory_service_does(steps: list[tuple[str, dict[str, str], Any]]) -> None:
    """Whatever is saved, loaded and deleted in whichever order, each answer is the one of ADK's own in-memory service."""

    async def scenario() -> None:
        async with perdure.open("memory:") as store:
            services = (PerdureArtifactService(store), InMemoryArtifactService())
            for method, place, value in steps:
                more = {"save_artifact": {"artifact": value}, "load_artifact": {"version": value}}.get(method, {})
                mine, theirs = [await getattr(service, method)(**WHO, **place, **more) for service in services]
                assert mine == theirs, (method, place)
                keys = [await service.list_artifact_keys(**WHO, session_id=place["session_id"]) for service in services]
                assert keys[0] == keys[1]

    asyncio.run(scenario())
