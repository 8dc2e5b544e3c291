"""The address of a server: what a URL says to us, what it says to the client library, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from perdure.errors import Invalid

Parser = Callable[[str], Any]


@dataclass(frozen=True)
class Address:
    """A URL taken apart. `options` are ours, parsed; `foreign` are the query's others, for the client library. `password` is not
    in `repr`; `place` is the URL without user, password and query."""

    scheme: str
    hosts: str
    path: str
    options: Mapping[str, Any]
    foreign: Mapping[str, str] = field(repr=False)
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)
    _split: SplitResult = field(repr=False)

    @property
    def place(self) -> str:
        return f"{self.scheme}://{self.hosts}{self.path}"

    def url(self, scheme: str | None = None) -> str:
        """The URL for the client library: without our options, with its own scheme."""
        return self._split._replace(scheme=scheme or self.scheme, query=urlencode(self.foreign, quote_via=quote), fragment="").geturl()


def parse_address(url: str, options: Mapping[str, tuple[Any, Parser]], *, foreign: bool, hostless: bool = False) -> Address:
    """Take a URL apart. `options` names ours with default and parser; the query's others are an `Invalid`, unless `foreign`: then they
    are the client library's. `hostless`: a URL may name no host, the library then knows where to look. A secret is in no message."""
    try:
        split = urlsplit(url)
        query = dict(parse_qsl(split.query, keep_blank_values=True, strict_parsing=bool(split.query)))
    except ValueError:
        raise Invalid(
            f"A URL of the scheme {url.partition(':')[0]!r} is malformed: it reads scheme://user:password@host:port/name."
        ) from None
    login, _, hosts = split.netloc.rpartition("@")
    place = f"{split.scheme}://{hosts}{split.path}"
    if not hosts and not hostless:
        raise Invalid(f"{place!r} names no host: it reads scheme://user:password@host:port/name.")
    values = {name: default for name, (default, _) in options.items()}
    others = {}
    for name, text in query.items():
        if name in options:
            values[name] = _parse(place, name, text, options[name][1])
        elif foreign:
            others[name] = text
        else:
            raise Invalid(f"{place!r} has no option {name!r}; it has {', '.join(sorted(options))}.")
    user, colon, password = login.partition(":")
    return Address(split.scheme, hosts, split.path, values, others, unquote(user) or None, unquote(password) if colon else None, split)


def _parse(place: str, name: str, text: str, parser: Parser) -> Any:
    try:
        return parser(text)
    except ValueError as error:
        raise Invalid(f"{place!r}: the option {name}={text!r} {error}.") from None


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
