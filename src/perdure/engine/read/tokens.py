"""Reads that must be at least as new as a token: whose token it is, and whether its commit is on the chain."""

from __future__ import annotations

from perdure.engine.read.cache import Cache, CachedState
from perdure.engine.read.reader import Reader
from perdure.errors import Invalid, NotFound, Rewound, Truncated
from perdure.model.ids import SessionKey
from perdure.model.token import Token, read_token


def parse_token(text: object, store: str, session: SessionKey) -> Token:
    """The token, if it is one of this session. Raises `Invalid`."""
    token = read_token(text)
    if token.store != store:
        raise Invalid(f"This token is of another store: {token.store!r}, and this one is {store!r}.")
    if (token.tenant, token.session) != session:
        raise Invalid(
            f"This token is of session {token.session!r} of tenant {token.tenant!r}, not of {session.id!r} of {session.tenant!r}.",
            session=session.id,
        )
    return token


async def require_commit(reader: Reader, cache: Cache, session: SessionKey, found: CachedState | None, token: Token) -> None:
    """Raise `Rewound` unless the token's commit is on the chain of `found`, which is the newest state there is if it is older.

    What is proven is remembered with the state, so that it costs one round trip, once. A commit that was truncated cannot be compared: the
    state is newer, and passes.
    """
    place = token.version, token.hash
    if found is not None and place in ((found.head.version, found.head.hash), found.ancestor):
        return
    if found is not None and found.head.version > token.version:
        try:
            commit = await reader.commit(session, token.version)
        except (NotFound, Truncated):
            return
        if commit is not None and commit.hash == token.hash:
            cache.prove(session, found, place)
            return
    raise Rewound(
        f"Session {session.id!r} does not hold the commit of the token, version {token.version}: "
        + ("there is no such session." if found is None else f"it is at version {found.head.version}."),
        session=session.id,
        version=token.version,
    )
