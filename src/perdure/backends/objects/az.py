"""`az://`: Azure Blob Storage."""

from __future__ import annotations

import base64
import binascii
import email.utils
import hashlib
import hmac
import os
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from obstore.store import AzureStore

from perdure.backends.objects.cloud import open_cloud
from perdure.backends.objects.settings import Asking, Settings
from perdure.backends.remote import RemoteBackend
from perdure.backends.remote.urls import Address, Parser
from perdure.clock import Clock

OPTIONS: dict[str, tuple[Any, Parser]] = {}


async def open(url: str, *, clock: Clock, create: bool = True) -> RemoteBackend:
    """Open `az://ACCOUNT:KEY@container/prefix?option=value`. Raises as `open_cloud`."""
    return await open_cloud(url, OPTIONS, service, asked, clock, create=create)


def service(address: Address) -> tuple[type[AzureStore], dict[str, Any]]:
    """ACCOUNT without KEY, or neither: what is missing is the environment's (AZURE_STORAGE_ACCOUNT_NAME …) or the machine's identity."""
    config: dict[str, Any] = {}
    if address.options["endpoint"]:
        config["endpoint"] = address.options["endpoint"]
    if address.user is not None:
        config["account_name"] = address.user
    if address.password is not None:
        config["account_key"] = address.password
    return AzureStore, config


def asked(asking: Asking) -> Settings:
    """How long the account keeps deleted blobs. Its lifecycle rules and versions are known to Azure's management alone, which takes no key
    of an account."""
    address = asking.address
    account = address.user or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    named = f"--account-name {account or 'ACCOUNT'}"
    look = f"az storage account management-policy show {named}; az storage account blob-service-properties show {named}"
    key = address.password or ("" if address.user else os.environ.get("AZURE_STORAGE_ACCOUNT_KEY", ""))
    data = _signed_get(asking, account, key) if account and key else None
    try:
        policy = ET.fromstring(data).find("DeleteRetentionPolicy") if data else None  # noqa: S314 - expat limits what entities can grow to
    except ET.ParseError:
        policy = None
    if policy is None:
        return Settings(None, None, look)
    days = policy.findtext("Days") if policy.findtext("Enabled") == "true" else None
    return Settings(None, None if days is None else [f"deleted blobs can be restored for {days} days"], look)


def _signed_get(asking: Asking, account: str, key: str) -> bytes | None:
    """`GET ?restype=service&comp=properties` of the account, signed with its key (see Azure's documentation of Shared Key)."""
    base = (asking.address.options["endpoint"] or f"https://{account}.blob.core.windows.net").rstrip("/")
    headers = {"x-ms-date": email.utils.formatdate(asking.now / 1e9, usegmt=True), "x-ms-version": "2021-08-06"}
    resource = f"/{account}{urlsplit(base).path or '/'}"
    lines = ["GET", *[""] * 11, *[f"{name}:{value}" for name, value in headers.items()], resource, "comp:properties", "restype:service"]
    try:
        signature = hmac.digest(base64.b64decode(key), "\n".join(lines).encode(), hashlib.sha256)
    except binascii.Error:
        return None
    headers["Authorization"] = f"SharedKey {account}:{base64.b64encode(signature).decode()}"
    return asking.get(f"{base}{'' if urlsplit(base).path else '/'}?restype=service&comp=properties", headers)
