"""`gs://`: Google Cloud Storage. Its conditions are on generations, which no two contents of an object share."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from obstore.store import GCSStore

from perdure.backends.objects.cloud import open_cloud
from perdure.backends.remote import RemoteBackend
from perdure.backends.remote.urls import Address, Parser, one_of
from perdure.clock import Clock
from perdure.errors import Invalid

OPTIONS: dict[str, tuple[Any, Parser]] = {
    "credentials": ("", unquote),
    "login": ("yes", one_of("yes", "no")),
}

_NO_LOGIN = json.dumps({"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""})
"""The key file that object_store takes for: send no token. Its `skip_signature` is for reads alone."""


async def open(url: str, *, clock: Clock) -> RemoteBackend:
    """Open `gs://bucket/prefix?option=value`. Raises as `open_cloud`."""
    return await open_cloud(url, OPTIONS, service, clock)


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
