"""Which Perdure sessions hold the transcripts that the SDK's keys name.

claude/<project key>/<session id>              a session's main transcript
claude/<project key>/<session id>/<subpath>    one beside it: a subagent's, mostly

A project key is made of a folder's path and may be long; so may a subpath. One that would leave no room for the rest is cut, and ends
with `%~` and a digest, as no other name does. The transcript's state holds the whole key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from perdure.adapters.common import surrogates
from perdure.adapters.common.session_ids import escape, unescape
from perdure.errors import Invalid

ROOT = "claude"
PART_BYTES_MAX = 100
"""Longest project key or subpath, in bytes when escaped, that a session id holds as it is."""
HEAD_BYTES = 60
"""How much is shown of one that is longer."""
CUT = "%~"


class Place(NamedTuple):
    """The session of a transcript. `main` is the session of the main transcript, `None` if this is the one; `key` is the SDK's."""

    session: str
    main: str | None
    key: dict[str, str]

    @property
    def state(self) -> dict[str, Any]:
        """What the transcript starts with."""
        return surrogates.escape(dict(self.key))


def place(key: Mapping[str, Any]) -> Place:
    """The session of the transcript that the SDK's key names. Raises `Invalid` for a key that is none."""
    if not isinstance(key, Mapping):
        raise Invalid(f"A session key is a dict with project_key and session_id, not {type(key).__name__}.")
    names = {name: _text(name, key.get(name)) for name in ("project_key", "session_id")}
    session = f"{project(names['project_key'])}{escape(names['session_id'])}"
    if key.get("subpath") is None:
        return Place(session, None, names)
    names["subpath"] = _text("subpath", key["subpath"])
    return Place(f"{session}/{_short('/'.join(map(escape, names['subpath'].split('/'))))}", session, names)


def project(project_key: str) -> str:
    """What the ids of a project's sessions begin with."""
    return f"{ROOT}/{_short(escape(_text('project_key', project_key)))}/"


def subpath(name: str) -> str | None:
    """The SDK's subpath, given what follows the main transcript's id; `None` if it was cut."""
    parts = [unescape(part) for part in name.split("/")]
    return None if None in parts else "/".join(map(str, parts))


def _short(text: str) -> str:
    encoded = text.encode(errors="surrogatepass")
    if len(encoded) <= PART_BYTES_MAX:
        return text
    return f"{encoded[:HEAD_BYTES].decode(errors='ignore').replace('/', '.')}{CUT}{hashlib.sha256(encoded).hexdigest()[:32]}"


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise Invalid(
            f"A session key's {name} is a string that is not empty, not {'an empty one' if value == '' else type(value).__name__}."
        )
    return value
