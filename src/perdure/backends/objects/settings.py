"""What a bucket does with objects by itself: asked of its service by a plain request, where the login at hand can sign one.

obstore knows objects alone, and keeps the tokens that it fetches for itself. So what a role or a machine's identity may ask is not asked
here; what was not asked is said, with the command that shows it to a person.
"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, NamedTuple

from perdure.backends.remote.urls import Address


class Settings(NamedTuple):
    """What a bucket is set to. `None`: it was not asked."""

    removing: Sequence[str] | None
    """Rules that remove objects below the prefix, or put them where they cannot be read, as a person reads them."""
    keeping: Sequence[str] | None
    """What keeps the bytes of objects that were replaced or deleted."""
    look: str
    """The commands that show both."""


class Asking(NamedTuple):
    """How a service is asked; run in a thread of its own, it may block."""

    address: Address
    prefix: str
    """All of the store's objects begin so."""
    now: int
    """Nanoseconds since 1970."""

    def get(self, url: str, headers: Mapping[str, str]) -> bytes | None:
        """What is there; empty for a 404, `None` where no answer that can be used came. Follows no redirect: it would take the signature
        along."""
        options: Any = self.address.options
        context = ssl.create_default_context(cafile=options["ca"] or None)
        opener = urllib.request.build_opener(_Straight, urllib.request.HTTPSHandler(context=context))
        request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - the scheme is that of the endpoint
        try:
            with opener.open(request, timeout=options["connect_timeout"]) as answer:
                found: bytes = answer.read(1 << 20)
                return found
        except urllib.error.HTTPError as refusal:
            with refusal:
                return b"" if refusal.code == 404 else None
        except (OSError, ValueError, HTTPException):
            return None

    def concerns(self, prefix: str) -> bool:
        """Whether a rule for names that begin so concerns objects of the store."""
        return self.prefix.startswith(prefix) or prefix.startswith(self.prefix)


Ask = Callable[[Asking], Settings]


class _Straight(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str) -> None:
        """Go nowhere else."""
