"""Names of Perdure's sessions for what ADK keeps: a session, shared state of an app or a user, an artifact, a user's memory."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from perdure.adapters.common.session_ids import compose, decompose
from perdure.errors import Invalid

ROOT = "adk"
USER = "user:"
"""What the name of a user's artifact begins with."""


class Names:
    """The three ids by which ADK names a session, and the Perdure session ids that they make.

        adk/<app>/sessions/<user>/<session>   events in the log, session-scope state
        adk/<app>/users/<user>                what `user:` keys hold
        adk/<app>/app                         what `app:` keys hold

    In each part `%`, `/` and control characters are percent-encoded, so the parts can be read back and two ids never collide.
    """

    def __init__(self, app: str, user: str, id: str) -> None:
        self.app, self.user, self.id = app, user, id

    @cached_property
    def session(self) -> str:
        """The Perdure session's id. Raises `Invalid` for ids that are too long together."""
        return compose("An ADK session", ROOT, self.app, "sessions", self.user, self.id)

    def scopes(self) -> tuple[tuple[str, str], ...]:
        """The prefixes of shared state keys, and the Perdure session that each goes to."""
        return ("app:", app_scope(self.app)), ("user:", user_scope(self.app, self.user))


def stripped(what: str, id: object) -> str:
    """An id without spaces around it, as ADK takes it. Raises `Invalid` for what is no string."""
    if not isinstance(id, str):
        raise Invalid(f"{what} is a string, not {type(id).__name__}.")
    return id.strip()


def app_scope(app: str) -> str:
    """The Perdure session of an app's shared state."""
    return compose("An ADK app", ROOT, app, "app")


def user_scope(app: str, user: str) -> str:
    """The Perdure session of a user's shared state."""
    return compose("An ADK user", ROOT, app, "users", user)


def sessions_prefix(app: str, user: str | None) -> str:
    """What the ids of an app's sessions, or of one user's, begin with."""
    return compose("An ADK user", ROOT, app, "sessions", *([] if user is None else [user]), "")


def memory(app: str, user: str) -> str:
    """The Perdure session of what is remembered of a user."""
    return compose("An ADK user's memory", ROOT, app, "memory", user)


def artifact_pieces(app: str, id: str) -> str:
    """The Perdure session of a part that is too large for one commit."""
    return compose("An ADK artifact", ROOT, app, "artifact-pieces", id)


class Artifact(NamedTuple):
    """An artifact's place: of one session of a user, or of the user (`id` is `None`).

    adk/<app>/artifacts/<user>/<session>/<name>
    adk/<app>/user-artifacts/<user>/<name>
    """

    app: str
    user: str
    id: str | None
    name: str

    @classmethod
    def of(cls, app: str, user: str, id: str | None, filename: str) -> Artifact:
        """By ADK's names: a filename that begins with `user:`, and any filename without a session, is the user's."""
        stripped("An artifact's filename", filename)
        if filename.startswith(USER) or id is None:
            return cls(app, user, None, filename.removeprefix(USER))
        return cls(app, user, stripped("A session id", id), filename)

    @property
    def session(self) -> str:
        """The Perdure session's id. Raises `Invalid` for names that are too long together."""
        kind = ["user-artifacts", self.user] if self.id is None else ["artifacts", self.user, self.id]
        return compose("An ADK artifact", ROOT, self.app, *kind, self.name)

    @property
    def filename(self) -> str:
        """The name by which ADK finds it from any session of the user."""
        return self.name if self.id is not None else f"{USER}{self.name}"


def parse(id: str) -> Names | None:
    """The ADK ids of a Perdure session, or `None` if it is no ADK session."""
    parts = decompose(id, 5)
    if parts is None or (parts[0], parts[2]) != (ROOT, "sessions"):
        return None
    return Names(parts[1], parts[3], parts[4])
