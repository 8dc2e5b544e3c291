"""A session id as one segment of a path, so that it survives URL parsers, proxies and shells. Pure.

An id of unreserved characters (RFC 3986: letters, digits, `-._~`), `:` and `@` stands as it is. Every other id, and one that is `.` or `..`
or begins with `=`, is written `=` and its UTF-8 in base64url without padding. Percent-encoding is read too, where it arrives.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from urllib.parse import unquote_to_bytes

from perdure.errors import Invalid
from perdure.model.ids import check_name

_PLAIN = re.compile(r"[A-Za-z0-9._~:@-]+\Z")
_CODED = re.compile(r"=[A-Za-z0-9_-]+\Z")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
SEGMENT_CHARS_MAX = 1_024
"""Longest segment that is looked at: 255 bytes of UTF-8, each percent-encoded, fit."""


def segment(session: str) -> str:
    """The id as a segment of a path."""
    if _PLAIN.match(session) and session not in (".", ".."):
        return session
    return "=" + urlsafe_b64encode(session.encode()).decode().rstrip("=")


def session_of(segment: str) -> str:
    """The id that a raw segment (as it came, not decoded) stands for. Raises `Invalid`."""
    if len(segment) > SEGMENT_CHARS_MAX:
        raise Invalid(f"The session id in the path has {len(segment):,} characters; at most {SEGMENT_CHARS_MAX:,} are read.")
    return check_name("A session id", _coded(segment) if segment.startswith("=") else _percent_decoded(segment))


def _coded(segment: str) -> str:
    if _CODED.match(segment):
        try:
            found = urlsafe_b64decode(segment[1:] + "=" * (-(len(segment) - 1) % 4))
            if urlsafe_b64encode(found).decode().rstrip("=") == segment[1:]:
                return found.decode()
        except ValueError:
            pass
    raise Invalid(f"{segment[:60]!r} begins with '=' and is no session id in base64url (UTF-8, no padding).")


def _percent_decoded(segment: str) -> str:
    if "%" not in segment and segment.isascii():
        return segment
    if not segment.isascii() or _PERCENT.search(segment):
        raise Invalid(f"The path's segment {segment[:60]!r} is not percent-encoded as URLs are.")
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise Invalid(f"The path's segment {segment[:60]!r} is no UTF-8.") from None
