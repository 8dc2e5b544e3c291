"""`gs://`: Google Cloud Storage. Its conditions are on generations, which no two contents of an object share."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, unquote

from obstore.store import GCSStore

from perdure.backends.objects.cloud import open_cloud
from perdure.backends.objects.settings import Asking, Settings
from perdure.backends.remote import RemoteBackend
from perdure.backends.remote.urls import Address, Parser, one_of
from perdure.clock import Clock
from perdure.errors import Invalid

OPTIONS: dict[str, tuple[Any, Parser]] = {
    "credentials": ("", unquote),
    "login": ("yes", one_of("yes", "no")),
}

_SCOPES = ["https://www.googleapis.com/auth/devstorage.read_only"]
_OLD = ("numNewerVersions", "daysSinceNoncurrentTime", "noncurrentTimeBefore", "daysSinceCustomTime", "customTimeBefore")
"""Conditions that no object of a store's ever meets while it is one."""
_NO_LOGIN = json.dumps({"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""})
"""The key file that object_store takes for: send no token. Its `skip_signature` is for reads alone."""


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:
    """Open `gs://bucket/prefix?option=value`. Raises as `open_cloud`."""
    return await open_cloud(url, OPTIONS, service, asked, clock, create=create)


def service(address: Address) -> tuple[type[GCSStore], dict[str, Any]]:
    """The key file of `credentials`, else the environment's (GOOGLE_APPLICATION_CREDENTIALS …) or the machine's own account."""
    options = address.options
    if address.user is not None:
        raise Invalid(f"{address.place!r}: Google takes no user and password: name a key file with ?credentials=/path/to/key.json.")
    config: dict[str, Any] = {}
    if options["endpoint"]:
        config["base_url"] = options["endpoint"]
    if options["credentials"]:
        config["application_credentials"] = options["credentials"]
    if options["login"] == "no":
        config["service_account_key"] = _NO_LOGIN
    return GCSStore, config


def asked(asking: Asking) -> Settings:
    """The bucket as Google's JSON API gives it. With `login=no` requests are not signed; else google-auth has to be installed."""
    address = asking.address
    look = f"gcloud storage buckets describe gs://{address.hosts}"
    token = _token(address)
    data = None
    if token is not None:
        base = address.options["endpoint"].rstrip("/") or "https://storage.googleapis.com"
        data = asking.get(f"{base}/storage/v1/b/{quote(address.hosts, safe='')}", {"Authorization": f"Bearer {token}"} if token else {})
    try:
        about = json.loads(data) if data else None
        if about is None or about.get("kind") != "storage#bucket":
            return Settings(None, None, look)
        rules = about.get("lifecycle", {}).get("rule", [])
        return Settings([said for rule in rules if (said := _removing(asking, rule))], _keeping(about), look)
    except (ValueError, TypeError, AttributeError):
        return Settings(None, None, look)


def _removing(asking: Asking, rule: Any) -> str:
    """What a rule does to objects of the store; empty: nothing. Their times of their own are not set, and old versions are not theirs."""
    when = dict(rule.get("condition", {}))
    others = when.get("isLive") is False or any(when.get(name) for name in _OLD)
    prefixes = when.get("matchesPrefix", [""])
    if rule["action"]["type"] != "Delete" or others or not any(map(asking.concerns, prefixes)):
        return ""
    return f"it deletes them on the condition {json.dumps(when, sort_keys=True)}"


def _keeping(about: Any) -> list[str]:
    days = int(about.get("softDeletePolicy", {}).get("retentionDurationSeconds", 0)) / 86_400
    held = int(about.get("retentionPolicy", {}).get("retentionPeriod", 0)) / 86_400
    return [
        *["versioning is on"] * bool(about.get("versioning", {}).get("enabled")),
        *[f"deleted objects can be restored for {days:g} days"] * (days > 0),
        *[f"a retention policy lets nothing be replaced or deleted for {held:g} days, so truncation and purge fail"] * (held > 0),
    ]


def _token(address: Address) -> str | None:
    """What the login at hand is worth now; empty: no login is wanted; `None`: there is none that could be used here."""
    options = address.options
    if options["login"] == "no":
        return ""
    try:
        import google.auth  # not among what this engine needs; users of Google's libraries have it
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request
        from google.oauth2 import service_account
    except ImportError:
        return None
    try:
        if options["credentials"]:
            made: Any = service_account.Credentials
            login = made.from_service_account_file(options["credentials"], scopes=_SCOPES).with_always_use_jwt_access(True)
        else:
            login, _ = google.auth.default(scopes=_SCOPES)
        login.refresh(Request())
    except (GoogleAuthError, OSError, ValueError):
        return None
    return str(login.token)
