"""The address of a server: what a URL says to us, what it says to the client library, and how it is shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from perdure.errors import Invalid
from perdure.redaction import Secrets, is_hosts, option_named, shown_url

Parser = Callable[[str], Any]
_READS = (
    "it reads scheme://user:password@host:port/name, where / ? # @ : and & within a user or a password are written %2F %3F %23 %40 %3A %26"
)


@dataclass(frozen=True)
class Address:
    """A URL taken apart. `options` are ours, parsed; `foreign` are the query's others, for the client library. `place` is what may be
    shown of the URL; `repr` shows no more. `secrets` takes the rest out of texts and errors."""

    place: str
    scheme: str
    hosts: str = field(repr=False)
    path: str = field(repr=False)
    options: Mapping[str, Any] = field(repr=False)
    foreign: Mapping[str, str] = field(repr=False)
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)
    secrets: Secrets = field(repr=False)

    def url(self, scheme: str | None = None) -> str:
        """The URL for the client library: without our options, with its own scheme."""
        login = "" if self.user is None else quote(self.user, safe="")
        login += "" if self.password is None else f":{quote(self.password, safe='')}"
        netloc = f"{login}@{self.hosts}" if login else self.hosts
        query = urlencode(self.foreign, quote_via=quote)
        return f"{scheme or self.scheme}://{netloc}{self.path}{'?' if query else ''}{query}"


def parse_address(
    url: str,
    options: Mapping[str, tuple[Any, Parser]],
    *,
    foreign: Container[str] = (),
    hostless: bool = False,
    path_any: bool = False,
    reads: str = _READS,
) -> Address:
    """Take a URL apart. `options` names ours with default and parser; the query's others are an `Invalid`, unless they are among `foreign`,
    those of the client library (in lower case). `hostless`: a URL may name no host, the library then knows where to look. `path_any`: the
    path is one of files, which may hold an @. `reads` says the form of the URL, for messages. A secret is in no message."""
    place = shown_url(url)
    split = _split(url)
    if split is None or not url.isprintable() or split.fragment or ("@" in split.path and not path_any):
        raise Invalid(f"{place!r} is malformed: {reads}.")
    query = _query(split.query)
    if query is None:
        raise Invalid(f"{place!r} is malformed: its options read ?name=value&name=value, where & and = within a value are written %26 %3D.")
    login, at, hosts = split.netloc.rpartition("@")
    if not hosts and not hostless:
        raise Invalid(f"{place!r} names no host: {reads}.")
    if hosts and not is_hosts(hosts) and not (hostless and re.fullmatch(r":\d{1,5}", hosts)):
        raise Invalid(f"{place!r} is malformed: {reads}.")
    values = {name: default for name, (default, _) in options.items()}
    others = {}
    for number, (name, text) in enumerate(query):
        if name in options:
            values[name] = _parse(place, name, text, options[name][1])
        elif name.lower() in foreign:
            others[name] = text
        else:
            raise Invalid(f"{place!r} has no option {option_named(url, query, number)}; it has {', '.join(sorted(options))}.")
    user, colon, password = login.partition(":")
    return Address(
        place=place,
        scheme=split.scheme,
        hosts=hosts,
        path=split.path,
        options=values,
        foreign=others,
        user=unquote(user) if at and login else None,
        password=unquote(password) if colon else None,
        secrets=Secrets(url),
    )


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _query(text: str) -> list[tuple[str, str]] | None:
    try:
        return parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text))
    except ValueError:
        return None


def _parse(place: str, name: str, text: str, parser: Parser) -> Any:
    try:
        return parser(text)
    except ValueError as error:
        raise Invalid(f"{place!r}: the option {name} {error}.") from None


def seconds(text: str) -> float:
    """Seconds, from a millisecond to an hour."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= 3600:
        raise ValueError("is a number of seconds from 0.001 to 3600")
    return value


def count(least: int, most: int) -> Parser:
    """A parser of whole numbers in a range."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
            raise ValueError(f"is a whole number from {least} to {most}")
        return int(text)

    return parse


def one_of(*names: str) -> Parser:
    """A parser of one of these words."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"is one of {', '.join(names)}")
        return text

    return parse


def name(text: str) -> str:
    """A name for tables, keys or databases: letters, digits and underscores, from a letter, at most 40."""
    if not (text.isascii() and text.replace("_", "a").isalnum() and text[0].isalpha() and len(text) <= 40):
        raise ValueError("is a name of letters, digits and underscores, from a letter, at most 40")
    return text
