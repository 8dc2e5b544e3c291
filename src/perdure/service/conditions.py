"""Versions in headers and queries: entity tags, conditions of writes, versions to read at.

A version is named by its number and its commit's hash, `12-9f86d0…`: a number alone may be another commit after a failover.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import msgspec

from perdure.engine.options import VERSION_MAX
from perdure.engine.store import Store
from perdure.errors import AlreadyExists, Conflict, Error, Invalid, NotFound, Rewound
from perdure.model.token import Token, read_token, write_token
from perdure.service.answers import Headers
from perdure.service.call import Call
from perdure.service.refusals import PreconditionFailed

_NAME = re.compile(r"([1-9][0-9]{0,18})-([0-9a-f]{64})\Z")
_TAG = re.compile(r'\s*(?:W/)?"([^"]*)"\s*(?:,|\Z)')
_SUFFIXED = re.compile(r"([1-9][0-9]{0,18})-([0-9a-f]{64})(?:[-;:+.].*)?\Z")
"""Proxies that code an answer put a suffix to its tag, such as `-gzip`."""


class Version(msgspec.Struct, frozen=True):
    """A version and the hash of its commit."""

    number: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.number}-{self.hash.hex()}"

    def token(self, store: Store, session: str) -> str:
        """The same as the library names it."""
        return write_token(Token(store.id, store.tenant, session, self.number, self.hash))


def etag(number: int, hash: bytes) -> Headers:
    """The header ETag of a version; none for a commit that was truncated."""
    return [("etag", f'"{Version(number, hash)}"')] if hash else []


def version_of(token: str) -> Version:
    """The version that a token of the library names."""
    found = read_token(token)
    return Version(found.version, found.hash)


def parse_version(text: str, name: str) -> Version:
    """Such as `12-9f86…`. Raises `Invalid`."""
    found = _NAME.match(text)
    if found is None or int(found[1]) > VERSION_MAX:
        raise Invalid(f"{name} takes a version and its hash as an ETag has them, 12-9f86…, with 64 digits; not {text[:80]!r}.", advice="")
    return Version(int(found[1]), bytes.fromhex(found[2]))


def parse_number(text: str, name: str) -> int:
    """A version by its number. Raises `Invalid`."""
    if not text.isascii() or not text.isdecimal() or len(text) > 19 or not 1 <= int(text) <= VERSION_MAX:
        raise Invalid(f"{name} takes a version, which is a number from 1; not {text[:80]!r}.", advice="")
    return int(text)


def parse_at(text: str) -> Version | int | datetime:
    """Where to read: a version, a version with its hash, or a time as RFC 3339 writes it. Raises `Invalid`."""
    if _NAME.match(text):
        return parse_version(text, "at")
    if text.isascii() and text.isdecimal():
        return parse_number(text, "at")
    return parse_time(text, "at")


def parse_time(text: str, name: str) -> datetime:
    """A time with an offset. A `+` that a query has turned into a blank is read. Raises `Invalid`."""
    try:
        found = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        known = "a version such as 12 or 12-9f86…, or " if name == "at" else ""
        raise Invalid(f"{name} takes {known}a time such as 2026-11-29T18:00:00Z; not {text[:80]!r}.", advice="")
    return found


def tags_of(header: str, name: str) -> list[Version | None]:
    """The versions in a list of entity tags; `None` for each that is none of ours. Raises `Invalid` for what is no such list."""
    found: list[Version | None] = []
    place = 0
    while place < len(header):
        tag = _TAG.match(header, place)
        if tag is None:
            raise Invalid(f"{name} takes entity tags in quotes, or *; not {header[:80]!r}.", advice="")
        version = _SUFFIXED.match(tag[1])
        found.append(None if version is None or int(version[1]) > VERSION_MAX else Version(int(version[1]), bytes.fromhex(version[2])))
        place = tag.end()
    return found


class Condition(msgspec.Struct, frozen=True):
    """What the session has to be for a write."""

    expect: int | str | None = None
    """As in `Store.append`."""
    strict: bool = False
    """Whether nothing may have followed."""
    exists: bool = False
    """Whether there has to be a session."""
    said: str = ""
    """The header or the parameter that says it; "": none."""

    @property
    def names_version(self) -> bool:
        """Whether the client says which version it saw."""
        return bool(self.expect)

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Inside, what the library raises where the condition does not hold becomes `PreconditionFailed`; what it says of a version that
        there is not names what the client has sent."""
        try:
            with naming(self.said, only="expected"):
                yield
        except (Conflict, Rewound, AlreadyExists, NotFound) as error:
            if not self.strict or "test" in error.facts or "operation" in error.facts:
                raise
            raise failed(error, self.said) from error


def failed(error: Error, said: str) -> PreconditionFailed:
    """The answer to a condition that does not hold, with the header that says it, and what the library knows of it."""
    return PreconditionFailed(f"{said} does not hold. {error.detail}", **error.facts)


@contextmanager
def naming(said: str, *, only: str | None = None) -> Iterator[None]:
    """Inside, an `Invalid` of the library's begins with the name of the header or parameter that it is about; with `only`, one that has
    this fact."""
    try:
        yield
    except Invalid as error:
        if type(error) is not Invalid or not said or (only is not None and only not in error.facts):
            raise
        raise Invalid(f"{said}: {error.detail}", **error.facts) from error


def condition_of(call: Call, session: str, base: int | str | None) -> Condition:
    """The condition of a write, from `If-Match`, `If-None-Match` and the body's `base`. Raises `Invalid`, `PreconditionFailed`."""
    match, none = call.once("if-match"), call.once("if-none-match")
    if sum(part is not None for part in (match, none, base)) > 1:
        raise Invalid("Say one of If-Match (strict), If-None-Match: * (must not exist) and `base` (merge over what followed).", advice="")
    if none is not None:
        if none != "*":
            raise Invalid("If-None-Match takes * on a write: the session must not exist.", advice="")
        return Condition(0, strict=True, said="If-None-Match")
    if base is not None:
        return Condition(base if isinstance(base, int) else parse_version(base, "base").token(call.store, session), said="base")
    if match is None:
        return Condition()
    if match == "*":
        return Condition(strict=True, exists=True, said="If-Match")
    versions = tags_of(match, "If-Match")
    if len(versions) != 1:
        raise Invalid("If-Match takes one entity tag.", advice="")
    if versions[0] is None:
        raise PreconditionFailed(f"If-Match {match[:80]!r} is no ETag of a session.")
    return Condition(versions[0].token(call.store, session), strict=True, said="If-Match")


def none_match(call: Call, version: Version) -> bool:
    """Whether `If-None-Match` says that the client has this version already."""
    header = call.once("if-none-match")
    return header is not None and (header.strip() == "*" or version in tags_of(header, "If-None-Match"))
