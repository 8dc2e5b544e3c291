"""Asks the one that a credential belongs to: a token of this store is known by how it begins, all else is the identity provider's."""

from __future__ import annotations

from perdure.service.auth.bearer import bearer, refused
from perdure.service.auth.jwt import Jwt
from perdure.service.auth.records import MARK
from perdure.service.auth.tokens import Tokens
from perdure.service.hooks import Credential, RequestHead


class Credentials:
    """The authenticator of a node that asks who calls."""

    def __init__(self, tokens: Tokens | None, jwt: Jwt | None = None) -> None:
        self._tokens, self._jwt = tokens, jwt

    async def credential(self, head: RequestHead) -> Credential:
        """Whose request it is. Raises `Unauthorized`, and `Unavailable` where that cannot be found out."""
        token = bearer(head)
        if token.startswith(MARK):
            if self._tokens is not None:
                return await self._tokens.credential(token)
        elif self._jwt is not None:
            return await self._jwt.credential(token)
        raise refused()
