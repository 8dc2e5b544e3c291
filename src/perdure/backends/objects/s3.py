"""`s3://`: Amazon S3, and what speaks its language."""

from __future__ import annotations

import hashlib
import hmac
import os
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

from obstore.store import S3Store

from perdure.backends.objects.cloud import open_cloud
from perdure.backends.objects.settings import Asking, Settings
from perdure.backends.remote import RemoteBackend
from perdure.backends.remote.urls import Address, Parser, one_of
from perdure.clock import Clock

OPTIONS: dict[str, tuple[Any, Parser]] = {
    "region": ("", str),
    "addressing": ("path", one_of("path", "virtual")),
}


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:
    """Open `s3://KEY:SECRET@bucket/prefix?option=value`. Raises as `open_cloud`."""
    return await open_cloud(url, OPTIONS, service, asked, clock, create=create)


def service(address: Address) -> tuple[type[S3Store], dict[str, Any]]:
    """Without a login in the URL, that of the environment (AWS_ACCESS_KEY_ID …) or of the machine's role."""
    options = address.options
    config: dict[str, Any] = {"virtual_hosted_style_request": options["addressing"] == "virtual"}
    if options["endpoint"]:
        config["endpoint"] = options["endpoint"]
    if options["region"] or options["endpoint"]:
        config["region"] = options["region"] or "us-east-1"
    if address.user is not None:
        config |= {"access_key_id": address.user, "secret_access_key": address.password or ""}
    return S3Store, config


def asked(asking: Asking) -> Settings:
    """The rules and the versions of a bucket, with the login of the URL or of the environment's variables."""
    bucket = asking.address.hosts
    look = f"aws s3api get-bucket-lifecycle-configuration --bucket {bucket}; aws s3api get-bucket-versioning --bucket {bucket}"
    rules, versions = _part(asking, "lifecycle"), _part(asking, "versioning")
    keeping = None if versions is None else ["versioning is on"] if _text(versions, "Status") == "Enabled" else []
    return Settings(None if rules is None else [said for rule in rules.iter("Rule") if (said := _removing(asking, rule))], keeping, look)


def _removing(asking: Asking, rule: ET.Element) -> str:
    """What a rule does to objects of the store; empty: nothing. They have no tags, so one for a tag is for others."""
    prefixes = [found.text or "" for found in rule.iter("Prefix")] or [""]
    if _text(rule, "Status") != "Enabled" or next(rule.iter("Tag"), None) is not None or not all(map(asking.concerns, prefixes)):
        return ""
    name = f"{_text(rule, 'ID') or 'without a name'} (prefix {prefixes[0]!r})"
    ends = [f"{part.tag.lower()} {part.text}" for found in rule.iter("Expiration") for part in found if part.tag in ("Days", "Date")]
    cold = [place.text or "" for found in rule.iter("Transition") for place in found.iter("StorageClass")]
    away = [place for place in cold if place in ("GLACIER", "DEEP_ARCHIVE")]
    does = []
    if ends:
        does.append(f"removes them after {' '.join(ends)}")
    if away:
        does.append(f"moves them to {', '.join(away)}, where they cannot be read")
    return f"{name} {' and '.join(does)}" if does else ""


def _text(found: ET.Element, name: str) -> str:
    return (found.findtext(name) or "").strip()


def _part(asking: Asking, part: str) -> ET.Element | None:
    """A part of the bucket's configuration, without its names' space; without children where the bucket has none."""
    data = _signed_get(asking, part)
    if data is None:
        return None
    try:
        found = ET.fromstring(data or b"<None/>")  # noqa: S314 - expat limits what entities can grow to
    except ET.ParseError:
        return None
    for one in found.iter():
        one.tag = one.tag.rpartition("}")[2]
    return found


def _signed_get(asking: Asking, part: str) -> bytes | None:
    """`GET ?part=` of the bucket, signed by AWS's Signature Version 4 (see its documentation)."""
    address, options = asking.address, asking.address.options
    key, secret, token = address.user, address.password or "", ""
    if key is None:
        key, secret, token = [os.environ.get(f"AWS_{name}", "") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")]
    if not key or not secret:
        return None
    region = options["region"] or ("" if options["endpoint"] else os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"))
    region = region or "us-east-1"
    base = (options["endpoint"] or f"https://s3.{region}.amazonaws.com").rstrip("/")
    if options["addressing"] == "virtual" and not options["endpoint"]:
        base = base.replace("://", f"://{address.hosts}.")
    elif options["addressing"] == "path":
        base = f"{base}/{quote(address.hosts)}"
    place, empty = urlsplit(base), hashlib.sha256(b"").hexdigest()
    when = datetime.fromtimestamp(asking.now // 10**9, UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": place.netloc, "x-amz-content-sha256": empty, "x-amz-date": when}
    if token:
        headers["x-amz-security-token"] = token
    names, scope = ";".join(headers), f"{when[:8]}/{region}/s3/aws4_request"
    lines = ["GET", place.path or "/", f"{part}=", *[f"{name}:{value}" for name, value in headers.items()], "", names, empty]
    text = "\n".join(["AWS4-HMAC-SHA256", when, scope, hashlib.sha256("\n".join(lines).encode()).hexdigest()])
    signing = f"AWS4{secret}".encode()
    for step in scope.split("/"):
        signing = hmac.digest(signing, step.encode(), hashlib.sha256)
    signature = hmac.digest(signing, text.encode(), hashlib.sha256).hex()
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return asking.get(f"{base}{'' if place.path else '/'}?{part}=", headers)
