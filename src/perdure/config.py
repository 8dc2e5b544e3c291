"""Settings: frozen, each with its unit and default; from arguments and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_type_hints

import msgspec

from perdure.errors import Invalid
from perdure.redaction import shown_url, shown_value

__all__ = ["ENVIRONMENT_ARCHIVE", "ENVIRONMENT_URL", "URL_DEFAULT", "Settings", "default_url", "make_settings", "shown_url"]

URL_DEFAULT = "sqlite:///perdure.db"
ENVIRONMENT_URL = "PERDURE_URL"
ENVIRONMENT_ARCHIVE = "PERDURE_ARCHIVE"
"""Where the command line finds the place of archived commits."""
SECONDS_MAX = 86_400
"""Longest `cache_ttl` and `max_staleness`: a day."""
ENVIRONMENT_BLOBS = "PERDURE_BLOBS"
"""Where the commands look for the place of large bodies; a program passes `blobs=`."""
BLOB_BYTES_MIN = 1 << 10
"""Least `blob_bytes`: what takes a body's place has some 60 bytes and the event types."""
RATE_MAX = 10**12
"""Largest quota a second."""
BURST_MAX = 86_400
"""Longest burst, in seconds: a day."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a store. All sizes in bytes."""

    format: Literal["json", "msgpack"] = "json"
    """How new commits and snapshots are written; any format is read."""
    cache_bytes: int = 64 << 20
    """About how much memory the states of hot sessions may take, as encoded."""
    cache_ttl: float = 60.0
    """Seconds for which a state that was known to be the newest answers eventual reads from memory; then they look at the head."""
    cache_timeout: float = 0.02
    """Seconds for which a read waits for the shared cache, before it loads from the engine."""
    snapshot_bytes_min: int = 64 << 10
    """A snapshot is due when the log since the last one weighs more than this and more than the snapshot."""
    attempts: int = 64
    """How often a write that others overtake is tried on the new head before it is `Busy`."""
    watch_every: float = 0.5
    """Seconds between two looks of watchers at an engine that does not notify by itself: one request for all of them."""
    spool_bytes: int = 256 << 20
    """About how much the writes in a spool may take; when it is full, `enqueue` is refused."""
    spool_wait: float = 10.0
    """Seconds for which a direct write waits for what is queued for its session, before it is `Busy`."""
    watch_outage: float = 60.0
    """Seconds for which a watch goes on trying while its engine is away, before that is `Unavailable`."""
    blob_bytes: int = 64 << 10
    """A stored body (encoded, compressed) above this goes to the place `blobs=`, if there is one; at least `BLOB_BYTES_MIN`."""
    warn_bytes: int = 1 << 20
    """A state above this, encoded, is logged and counted once a session."""
    quota_commits_per_second: float | None = None
    """Commits that each tenant may write in a second through this store object; `None`: any number."""
    quota_bytes_per_second: float | None = None
    """Stored bytes of commits that each tenant may write in a second through this store object; `None`: any number."""
    quota_burst: float = 10.0
    """Seconds' worth of a quota that a tenant which wrote less can save up and write at once."""


def install(extra: str) -> str:
    """The line that installs what an engine or an adapter needs. Perdure is in no package index yet, so it is one for a clone."""
    return f"run pip install '.[{extra}]' in a clone of Perdure"


def default_url() -> str:
    """`PERDURE_URL`, else a file `perdure.db` in the working folder."""
    return os.environ.get(ENVIRONMENT_URL) or URL_DEFAULT


def make_settings(**options: object) -> Settings:
    """Checked settings. Raises `Invalid` for an unknown name or a bad value."""
    unknown = set(options) - set(Settings.__struct_fields__)
    if unknown:
        raise Invalid(f"Unknown settings {sorted(unknown)}; there are {', '.join(Settings.__struct_fields__)}.")
    try:
        settings = msgspec.convert(options, Settings)
    except msgspec.ValidationError:
        raise Invalid(f"The setting {mistake(Settings, options)}.") from None
    if settings.cache_bytes < 0 or settings.snapshot_bytes_min < 0 or settings.attempts < 1:
        raise Invalid("cache_bytes and snapshot_bytes_min must not be negative, attempts must be at least 1.")
    if not 0.01 <= settings.watch_every <= 3600 or not 0 <= settings.watch_outage < float("inf"):
        raise Invalid("watch_every must be 0.01 to 3,600 seconds, watch_outage must not be negative.")
    if settings.spool_bytes < 1 or not 0 <= settings.spool_wait < float("inf"):
        raise Invalid("spool_bytes must be at least 1, spool_wait must not be negative.")
    if not 0.001 <= settings.cache_ttl <= SECONDS_MAX or not 0.001 <= settings.cache_timeout <= 10:
        raise Invalid(f"cache_ttl must be 0.001 to {SECONDS_MAX:,} seconds, cache_timeout 0.001 to 10 seconds.")
    if settings.blob_bytes < BLOB_BYTES_MIN or settings.warn_bytes < 1:
        raise Invalid(f"blob_bytes must be at least {BLOB_BYTES_MIN:,}, warn_bytes at least 1.")
    rates = settings.quota_commits_per_second, settings.quota_bytes_per_second
    if any(rate is not None and not 0 < rate <= RATE_MAX for rate in rates) or not 0 < settings.quota_burst <= BURST_MAX:
        raise Invalid(
            f"quota_commits_per_second and quota_bytes_per_second must be above 0 and at most {RATE_MAX:,}; quota_burst is above 0 "
            f"and at most {BURST_MAX:,} seconds."
        )
    return settings


_WORDS = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def mistake(kind: type[msgspec.Struct], given: Mapping[str, Any], *, strict: bool = True, show: bool = True) -> str:
    """Which of the values given for the fields of `kind` is of a wrong type: "cache_bytes must be a whole number, not '64 MB'".

    Without `show` the value is left out, as it must be where it could be a secret.
    """
    for name, wanted in get_type_hints(kind).items():
        if name not in given:
            continue
        try:
            msgspec.convert(given[name], wanted, strict=strict)
        except msgspec.ValidationError:
            words = _WORDS.get(wanted) or f"one of {', '.join(map(repr, get_args(wanted)))}"
            return f"{name} must be {words}" + (f", not {shown_value(given[name])}" if show else "")
    return "values do not fit together"
