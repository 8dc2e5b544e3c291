"""The artifact service: an artifact is one Perdure session, each version of it a commit that holds the part.

    state   {"versions": [{"key": …, "created": …, "bytes": …, "mime_type": …, "custom_metadata": {…}}]}
    event   artifact_saved, under the version's `key`: {"key": …, "part": {…}}

A part that is too large for one commit is written first, piece by piece, to a session of its own, and its version has
`pieces` with that session's id and their count: no reader sees a version before all of it is there.
"""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec
from google.adk.artifacts import artifact_util
from google.adk.artifacts.base_artifact_service import ArtifactVersion, BaseArtifactService, ensure_part
from google.adk.errors.input_validation_error import InputValidationError
from google.adk.platform import time as platform_time
from google.genai import types
from pydantic import ValidationError

from perdure.adapters.common import surrogates
from perdure.adapters.common.cutting import PIECE_LENGTH, pieces
from perdure.adapters.common.models import FAILURES, model_json
from perdure.adapters.common.session_ids import actor_name, unescape
from perdure.adapters.common.sync_async import AnyStore, asynchronous
from perdure.adapters.common.transactions import delete_if_there
from perdure.adapters.google_adk import names
from perdure.adapters.google_adk.names import Artifact
from perdure.adapters.google_adk.transactions import SessionTransactions
from perdure.errors import Corrupt, Deleted, NotFound, Unsupported
from perdure.model import ops as op
from perdure.model.events import Event
from perdure.model.values import check, thaw

SAVED, PIECE = "artifact_saved", "artifact_piece"
REFERENCES_MAX = 5
"""How many references from artifact to artifact are followed, as in ADK's own services."""
REWOUND = types.Part(inline_data=types.Blob(mime_type="application/octet-stream", data=b""))
"""What ADK saves as the newest version of an artifact that a rewind takes away: it loads as `None`."""


class PerdureArtifactService(BaseArtifactService):
    """Keeps ADK artifacts in an open store, which stays the caller's to close.

    Versions count from 0. Versions that are saved at the same time, by any number of processes, get different numbers. A filename
    that begins with `user:`, or is used without a session, belongs to the user: all sessions of the user see it.
    A part comes back as it was, bytes and text exactly. Any size is stored: what one commit cannot hold is split.
    """

    def __init__(self, store: AnyStore) -> None:
        self._store = asynchronous(store)
        self._artifacts = SessionTransactions(self._store, "artifact of ADK", "versions")

    async def save_artifact(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        artifact: types.Part | dict[str, Any],
        session_id: str | None = None,
        custom_metadata: dict[str, Any] | None = None,
    ) -> int:
        """Store a new version; its number. One commit, and one more for each 3 MiB of a part that is larger.

        Inline data, text and file data are taken. A reference to another artifact (`artifact://…`) is kept as one.
        Raises `InputValidationError` for what is none of these or refers to another user's, and `Invalid` for metadata that
        is no JSON and names that are too long together.
        """
        place = Artifact.of(app_name, user_id, session_id, filename)
        part = _part(artifact)
        key = self._store.new_id()
        version = {"key": key, "created": platform_time.get_time(), **_summary(part, place)}
        version |= {"custom_metadata": custom_metadata} if custom_metadata else {}
        data: dict[str, Any] = {"key": key}
        version = surrogates.escape(version)
        check(version, what="the artifact's metadata")
        stored = model_json(part, "An artifact", exclude_none=True)
        text = msgspec.json.encode(stored).decode()
        if len(text) > PIECE_LENGTH:
            version["pieces"] = await self._split(place, text)
        else:
            data["part"] = stored
        number = 0

        def decide(state: Any) -> Event:
            nonlocal number
            number = 0 if state is None else len(state["versions"])
            start = op.set("", {"versions": [version]}) if state is None else op.append("/versions", [version])
            return Event(SAVED, data, (start,))

        await self._artifacts.commit(place.session, decide, key=key, actor=actor_name(user_id))
        return number

    async def load_artifact(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None, version: int | None = None
    ) -> types.Part | None:
        """A version of an artifact, or the newest; `None` if there is none. References are followed.

        Raises `InputValidationError` for a reference that leads nowhere it may, `Unsupported` for a part that this google-adk
        does not understand.
        """
        place = Artifact.of(app_name, user_id, session_id, filename)
        for _ in range(REFERENCES_MAX + 1):
            try:
                part = await self._load(place, version)
            except (NotFound, Deleted):  # in between
                return None
            if part is None or not artifact_util.is_artifact_ref(part):
                return None if part == REWOUND else part
            target = _referred(part, place)
            place, version = Artifact.of(target.app_name, target.user_id, target.session_id, target.filename), target.version
        raise InputValidationError(f"Artifact {filename!r} leads over more than {REFERENCES_MAX} references.")

    async def list_artifact_keys(self, *, app_name: str, user_id: str, session_id: str | None = None) -> list[str]:
        """The filenames of a session's artifacts and of the user's, sorted; without a session the user's, each with `user:`."""
        found = []
        for id in {None, session_id}:
            place = Artifact.of(app_name, user_id, id, "")
            async for info in self._store.list(prefix=place.session):
                name = unescape(info.session.removeprefix(place.session))
                if name is not None:
                    found.append(place._replace(name=name).filename)
        return sorted(found)

    async def delete_artifact(self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None) -> None:
        """Close the artifact with a tombstone; nothing happens if there is none. Versions start again at 0."""
        session = Artifact.of(app_name, user_id, session_id, filename).session
        state = await self._artifacts.state(session)
        versions = [] if state is None else state["versions"]
        for closed in [session, *[version["pieces"]["session"] for version in versions if "pieces" in version]]:
            await delete_if_there(self._store, closed, actor=actor_name(user_id))

    async def list_versions(self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None) -> list[int]:
        """The numbers of all versions, from 0."""
        versions = await self._versions(Artifact.of(app_name, user_id, session_id, filename))
        return list(range(len(versions)))

    async def list_artifact_versions(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[ArtifactVersion]:
        """What is known of each version, oldest first. No part is read."""
        place = Artifact.of(app_name, user_id, session_id, filename)
        return [_described_version(place, number, version) for number, version in enumerate(await self._versions(place))]

    async def get_artifact_version(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None, version: int | None = None
    ) -> ArtifactVersion | None:
        """What is known of a version, or of the newest; `None` if there is none. Its `canonical_uri` is one to refer to it by."""
        place = Artifact.of(app_name, user_id, session_id, filename)
        versions = await self._versions(place)
        number = len(versions) - 1 if version is None else version
        return _described_version(place, number, versions[number]) if 0 <= number < len(versions) else None

    async def _versions(self, place: Artifact) -> list[dict[str, Any]]:
        state = await self._artifacts.state(place.session)
        return [] if state is None else cast(list[dict[str, Any]], state["versions"])

    async def _load(self, place: Artifact, number: int | None) -> types.Part | None:
        versions = await self._versions(place)
        number = len(versions) - 1 if number is None else number
        if not 0 <= number < len(versions):
            return None
        version = versions[number]
        data = json.loads(await self._joined(**version["pieces"])) if "pieces" in version else await self._saved(place, version["key"])
        try:
            return types.Part.model_validate(surrogates.unescape(data))
        except ValidationError as error:
            raise Unsupported(
                f"Artifact {place.session!r} holds as version {number} what this google-adk does not understand: {error}",
                session=place.session,
            ) from error

    async def _saved(self, place: Artifact, key: str) -> Any:
        """The part that was saved under this key. Where keys do not reach, as in a fork, the log is searched."""
        receipt = await self._store.find(place.session, key)
        after, before = (0, None) if receipt is None else (receipt.version - 1, receipt.version + 1)
        async for commit in self._store.history(place.session, after=after, before=before, types={SAVED}):
            for event in commit.events:
                if event.data["key"] == key:
                    return event.data["part"]
        raise NotFound(f"Artifact {place.session!r} has nothing under {key!r}.", session=place.session)

    async def _split(self, place: Artifact, text: str) -> dict[str, Any]:
        session = names.artifact_pieces(place.app, self._store.new_id())
        cut = pieces(text, PIECE_LENGTH)
        for number, piece in enumerate(cut):
            data = {"artifact": place.session, "number": number, "text": piece}
            await self._store.append(session, Event(PIECE, data), actor=actor_name(place.user))
        return {"session": session, "count": len(cut)}

    async def _joined(self, session: str, count: int) -> str:
        texts = [commit.events[0].data["text"] async for commit in self._store.history(session, types={PIECE})]
        if len(texts) != count:
            raise Corrupt(f"Session {session!r} holds {len(texts)} of {count} pieces of an artifact.", session=session)
        return "".join(texts)


def _part(artifact: Any) -> types.Part:
    """What was given as a part. Raises `InputValidationError`."""
    try:
        part = ensure_part(artifact)
    except FAILURES as error:
        raise InputValidationError(f"This is no artifact: {error}") from error
    if not isinstance(part, types.Part):
        raise InputValidationError(f"An artifact is a types.Part or a dict of its fields, not {type(part).__name__}.")
    return part


def _summary(part: types.Part, place: Artifact) -> dict[str, Any]:
    """What a version records of its part. Raises `InputValidationError` for one that is no artifact."""
    if part.inline_data is not None:
        if part.inline_data.data is None:
            raise InputValidationError("An artifact's inline data must hold data.")
        return {"bytes": len(part.inline_data.data), "mime_type": part.inline_data.mime_type}
    if part.text is not None:
        return {"bytes": len(part.text.encode(errors="surrogatepass")), "mime_type": "text/plain"}
    if part.file_data is not None:
        if artifact_util.is_artifact_ref(part):
            _referred(part, place)
            return {"bytes": 0, "mime_type": None}
        return {"bytes": 0, "mime_type": part.file_data.mime_type}
    raise InputValidationError("An artifact is a part with inline data, text or file data.")


def _referred(part: types.Part, place: Artifact) -> artifact_util.ParsedArtifactUri:
    """The artifact that a reference in this place leads to. Raises `InputValidationError` for another user's, or session's."""
    uri = cast(str, cast(types.FileData, part.file_data).file_uri)
    target = artifact_util.parse_artifact_uri(uri)
    if target is None:
        raise InputValidationError(f"This is no reference to an artifact: {uri}")
    artifact_util.validate_artifact_reference_scope(app_name=place.app, user_id=place.user, session_id=place.id, parsed_uri=target)
    return target


def _described_version(place: Artifact, number: int, version: dict[str, Any]) -> ArtifactVersion:
    return ArtifactVersion(
        version=number,
        canonical_uri=artifact_util.get_artifact_uri(place.app, place.user, place.filename, number, place.id),
        custom_metadata=surrogates.unescape(thaw(version.get("custom_metadata", {}))),
        create_time=version["created"],
        mime_type=surrogates.unescape(version["mime_type"]),
    )
