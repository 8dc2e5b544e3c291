"""Every error that Perdure raises: one root, three answers for machines, and a docstring that says what to do next."""

from __future__ import annotations

from typing import Any, ClassVar


class Error(Exception):
    """Something in Perdure failed. Catch this class to catch every error of the library."""

    code: ClassVar[str] = "error"
    """A stable name for machines: logs, HTTP bodies, exit codes."""
    retryable: ClassVar[bool] = False
    """Whether the same call, sent again unchanged, may succeed."""
    http_status: ClassVar[int] = 500

    def __init__(self, detail: str = "", /, **facts: Any) -> None:
        """`detail` says what happened; `facts` become attributes. Without a detail the class's docstring is the message, with one it is the
        advice that follows, unless the fact `advice` says what fits better, or with "" that nothing has to be said."""
        super().__init__(detail)
        self.detail = detail
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(f"{type(self).__name__} has no fact {name!r}; it has {sorted(facts)}")

    def __str__(self) -> str:
        advice = " ".join((type(self).__doc__ or "").partition("\n\n")[0].split())
        if self.detail:
            advice = self.facts.get("advice", advice)
        return f"{self.detail} {advice}".strip() if self.detail else advice

    def __reduce__(self) -> tuple[Any, ...]:
        portable = {name: fact for name, fact in self.facts.items() if not callable(fact)}
        return _rebuild, (type(self), self.detail, portable)


def _rebuild(kind: type[Error], detail: str, facts: dict[str, Any]) -> Error:
    return kind(detail, **facts)


class Conflict(Error):
    """Other commits came first and your change does not combine with them; nothing was written. Read the session
    again, decide again, or pass `on_conflict`.

    Facts: `session`, `expected` and `actual` (versions), `commits` (those you had not seen, oldest first, at most 100),
    `paths` (JSON Pointers on which both sides wrote).
    """

    code, retryable, http_status = "conflict", False, 409


class Fenced(Error):
    """Another worker holds the session; your write was refused and nothing changed. Read the session, acquire the
    lease, then decide again.

    Facts: `session`, `token` (the fencing token now in force).
    """

    code, retryable, http_status = "fenced", False, 409


class Held(Error):
    """Another worker holds the session and answers. Wait longer, come back later, or, if its worker is known to be
    dead, take over with `perdure lease break`.

    Facts: `session`, `owner`, `since` (an aware datetime, by the holder's clock), `ttl` (seconds).
    """

    code, retryable, http_status = "held", True, 423


class NotFound(Error):
    """Nothing was changed. Check the URL, the tenant and the id, or write to the session to start it."""

    code, retryable, http_status = "not_found", False, 404


class Deleted(Error):
    """This session was deleted. Pass `recreate`, as true, to go on from the tombstone's version, or use a
    new id."""

    code, retryable, http_status = "deleted", False, 410


class AlreadyExists(Error):
    """The session exists already and nothing was written. Write without that condition to go on with it, or choose
    another id."""

    code, retryable, http_status = "already_exists", False, 409


class Unknown(Error):
    """The engine could not be asked whether the write arrived. Send the call again with the same idempotency key: it
    is applied once at most."""

    code, retryable, http_status = "unknown", True, 504


class Unavailable(Error):
    """The engine could not be reached or refused to work; nothing was written. Try again later, or run `perdure doctor` on its URL."""

    code, retryable, http_status = "unavailable", True, 503


class Busy(Error):
    """Other writers were faster again and again; nothing was written. Send the same call again, or let fewer writers share the session."""

    code, retryable, http_status = "busy", True, 503


class TooLarge(Error):
    """A limit on size was passed and nothing was written. Store large values elsewhere and keep a reference, or split the change."""

    code, retryable, http_status = "too_large", False, 413


class Invalid(Error):
    """The input was refused and nothing was changed. Correct it and call again."""

    code, retryable, http_status = "invalid", False, 400


class KeyReused(Invalid):
    """Nothing was written. Use an idempotency key again only to send the same write again, and a new key for every other write.

    Facts: `session`, `version` (where the key was used first; a lease that was taken with it has none).
    """

    http_status = 422


class Corrupt(Error):
    """Stored bytes are not what was written. Stop writing, run `perdure verify`, and restore the session from a backup."""

    code, retryable, http_status = "corrupt", False, 500


class Unsupported(Error):
    """This engine, build or version cannot do that. The message names what is missing and what can be used instead."""

    code, retryable, http_status = "unsupported", False, 501


class Unauthorized(Error):
    """The engine or the service refused these credentials. Check user, password, token and rights."""

    code, retryable, http_status = "unauthorized", False, 401


class QuotaExceeded(Error):
    """This tenant writes faster than its quota allows and nothing was written. Try again after `retry_after` seconds, or raise the quota.

    Facts: `tenant`, `quota` (the setting's name), `retry_after` (seconds).
    """

    code, retryable, http_status = "quota_exceeded", True, 429


class Moved(Error):
    """The session lives elsewhere now; nothing was written here. Open the store named in `to` and call again.

    Reserved for sessions that are moved: nothing in this version moves one."""

    code, retryable, http_status = "moved", False, 410


class Truncated(Error):
    """The commits asked for were truncated. Read from version `first`, or restore the older ones from the archive."""

    code, retryable, http_status = "truncated", False, 410


class Rewound(Error):
    """The store no longer holds the commit that this version or cursor names: it was restored or lost its newest
    writes. Read the session again before writing."""

    code, retryable, http_status = "rewound", False, 409


class Closed(Error):
    """This store is closed. Open it again with `perdure.open(url)`; after a fork, open a store of your own in the child."""

    code, retryable, http_status = "closed", False, 500
