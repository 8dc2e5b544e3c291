"""URLs and errors without what may be a secret in them, no matter who wrote the text.

What is shown of a URL is what is certain to be a scheme, hosts and a path. Everything else could be a password that somebody forgot to
quote, so it counts as a secret: it is left out of what is shown, and taken out of errors that client libraries wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from urllib.parse import unquote, unquote_plus

from perdure.errors import Error

HIDDEN = "***"
_SCHEME = r"([a-z][a-z0-9+.-]{0,30}):"
HOSTS = re.compile(r"(?:[\w.%-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:,(?:[\w.%-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?)*")
"""Hosts and their ports."""
_PATH = re.compile(r"[\w./%~+ ,-]*")
_LOGIN_IN_PATH = re.compile(r"[^/]*:.*@")
_FILES = ("sqlite", "file")
"""Schemes whose URLs name a path on this machine, which is shown."""
HARMLESS = frozenset({
    "addressing", "application_name", "appname", "authmechanism", "authsource", "bucket", "busy_timeout", "ca", "cache_kib", "cert",
    "connect_timeout", "connections", "consistency", "create", "datacenter", "dbname", "dc", "directconnection", "dns", "horizon",
    "host", "hostaddr", "lanes",
    "login", "namespace", "pool", "port", "prepare", "profile", "readconcernlevel", "readers", "readpreference", "region",
    "replicas", "replicaset", "retrywrites", "serial", "sentinel_tls", "shards", "sslmode", "sslrootcert",
    "target_session_attrs", "timeout", "tls", "tlscafile", "vfs", "w",
})  # fmt: skip
"""Options whose values are no secrets."""
_SHORT, _ANYWHERE = 3, 6
"""Characters: what is shorter than the first is not looked for, and what is shorter than the second only as a word of its own."""


def shown_url(url: str) -> str:
    """A URL as it may be shown: scheme, hosts and path, as far as they are certain to be that; a local path whole."""
    scheme = re.match(_SCHEME, url)
    if scheme is None:
        return HIDDEN
    rest, query = _parted(url[scheme.end() :])
    if scheme[1] in _FILES and rest.startswith("///"):
        return f"{scheme[0]}//{shown_path(rest[2:])}{_shown_query(query)}"
    if url == "memory:":
        return url
    if not rest.startswith("//"):  # What comes before the colon may be a user.
        return HIDDEN
    if "@" in query:
        return f"{scheme[0]}//{HIDDEN}"
    return f"{scheme[0]}//{_shown_place(rest[2:].rpartition('@')[2])}"


def _parted(rest: str) -> tuple[str, str]:
    """What comes before the first ? or #, and what comes from there on."""
    found = re.search(r"[?#]", rest)
    return (rest, "") if found is None else (rest[: found.start()], rest[found.start() :])


def _plain(text: str) -> str:
    """Without percent-encoding, however often it was encoded."""
    while (found := unquote(text)) != text:
        text = found
    return text


def shown_path(path: str) -> str:
    """A local path; nothing of one that could be a URL with a login."""
    return HIDDEN if _LOGIN_IN_PATH.search(_plain(path)) else path


def _shown_query(query: str) -> str:
    parts = query[1:].split("&") if query.startswith("?") else []
    known = all(re.fullmatch(r"[\d.]*", part.partition("=")[2]) and part.partition("=")[0] in HARMLESS for part in parts)
    return query if known and parts else ""


def _shown_place(text: str) -> str:
    hosts, slash, path = text.partition("/")
    if hosts and not is_hosts(hosts):
        return HIDDEN
    sure = _PATH.fullmatch(path) and not set(_plain(path)) & set("@:?#=&")
    return f"{hosts}{slash}{path if sure else HIDDEN}"


def is_hosts(text: str) -> bool:
    """Whether a text can be nothing else than hosts with their ports."""
    return HOSTS.fullmatch(text) is not None and not set("@:?#&=").intersection(_plain(re.sub(r"\[[^]]*\]|:\d+", "", text)))


def option_named(url: str, query: Sequence[tuple[str, str]], number: int) -> str:
    """An option of a query as a message may call it: by its name, or by its number where the name could be part of a secret."""
    name = query[number][0]
    plain = re.fullmatch(r"[a-z_]{2,30}", name) and "@" not in url.partition("?")[2]
    if plain and all(before in HARMLESS for before, _ in query[:number]):
        return repr(name)
    return f"like number {number + 1} of its query"


def shown_value(value: object) -> str:
    """A value for a message. Python writes no number of many thousand digits."""
    return "so large a number" if isinstance(value, int) and value.bit_length() > 200 else repr(value)


class Secrets:
    """What may be a secret in a URL, to be taken out of texts and errors."""

    def __init__(self, url: str) -> None:
        found = {variant for text in _candidates(url) for variant in _variants(text)}
        words = sorted((text for text in found if len(text) >= _SHORT), key=len, reverse=True)
        parts = [re.escape(word) if len(word) >= _ANYWHERE else rf"(?<!\w){re.escape(word)}(?!\w)" for word in words]
        place = shown_url(url).replace(HIDDEN, "")
        kept = rf"({re.escape(place)}(?!\w))" if place else "($.)"  # The second never matches.
        self._pattern = re.compile("|".join([kept, *parts])) if parts else None

    def clean(self, text: str) -> str:
        """The text without the secrets. What is shown of the URL stays as it is."""
        return text if self._pattern is None else self._pattern.sub(lambda found: found[1] or HIDDEN, text)

    def cleaned(self, error: BaseException) -> BaseException:
        """The error to raise: this one with its message cleaned, or where it is foreign and holds a secret, one that stands for it. So are
        those that it came from: a traceback prints them."""
        return error if self._pattern is None else self._walked(error, {})

    def _walked(self, error: BaseException, seen: dict[int, BaseException]) -> BaseException:
        if id(error) in seen:
            return seen[id(error)]
        kept = error if isinstance(error, Error) or not self._in(error) else self._stand_in(error)
        seen[id(error)] = kept
        if isinstance(kept, Error):
            kept.detail = self.clean(kept.detail)
            kept.args = (kept.detail,)
        if hasattr(kept, "__notes__"):
            kept.__notes__ = [self.clean(note) for note in kept.__notes__]
        suppressed = error.__suppress_context__
        kept.__cause__ = error.__cause__ and self._walked(error.__cause__, seen)
        kept.__context__ = error.__context__ and self._walked(error.__context__, seen)
        kept.__suppress_context__ = suppressed
        return kept

    def _in(self, error: BaseException) -> bool:
        """Whether a foreign error holds a secret, in its text or in what it carries."""
        members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
        texts = (str(error), repr(error), repr(vars(error)))
        return any(text != self.clean(text) for text in texts) or any(self._in(member) for member in members)

    def _stand_in(self, error: BaseException) -> BaseException:
        return RuntimeError(f"{type(error).__qualname__}: {self.clean(str(error))}").with_traceback(error.__traceback__)


def _candidates(url: str) -> set[str]:
    """Everything in a URL that could be meant as a secret, whole and in the pieces that it may be taken apart into."""
    found = _unsure(url)
    pieces = {piece for text in found for piece in re.split(r"[/:?#@&=]", text)}
    return (found | pieces) - HARMLESS - {"password", "user"}


def _unsure(url: str) -> set[str]:
    rest = url.partition(":")[2]
    before, after = _parted(rest)
    found = {before.rpartition("@")[0].lstrip("/")}
    shown = _shown_place(before[2:].rpartition("@")[2]) if before.startswith("//") else HIDDEN
    if shown.endswith(HIDDEN) and not re.match(rf"(?:{'|'.join(_FILES)}):", url):
        found.add(before if shown == HIDDEN else before[2:].rpartition("@")[2].partition("/")[2])
    if hidden := _LOGIN_IN_PATH.search(_plain(before)):
        found.add(hidden[0])
    if "@" in after:
        found.add(rest.rpartition("@")[0].lstrip("/"))
    begun = False
    for part in after[1:].split("&"):
        name, equals, value = part.partition("=")
        if name.lower() in HARMLESS and equals:
            continue
        if begun or not equals:  # What comes after a secret may be its end.
            found.add(name)
        inner = _plain(value)
        found |= {value, *(_unsure(inner) if "://" in inner else ())}
        begun = True
    return found


def _variants(text: str) -> set[str]:
    """As it may stand in a message: decoded, or escaped as Python and JSON do."""
    plain = {text, unquote(text), unquote_plus(text), _plain(text)}
    return plain | {repr(one)[1:-1] for one in plain} | {json.dumps(one)[1:-1] for one in plain}
