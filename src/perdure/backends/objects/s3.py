"""`s3://`: Amazon S3, and what speaks its language."""

from __future__ import annotations

from typing import Any

from obstore.store import S3Store

from perdure.backends.objects.cloud import open_cloud
from perdure.backends.remote import RemoteBackend
from perdure.backends.remote.urls import Address, Parser, one_of
from perdure.clock import Clock

OPTIONS: dict[str, tuple[Any, Parser]] = {
    "region": ("", str),
    "addressing": ("path", one_of("path", "virtual")),
}


async def open(url: str, *, clock: Clock) -> RemoteBackend:
    """Open `s3://KEY:SECRET@bucket/prefix?option=value`. Raises as `open_cloud`."""
    return await open_cloud(url, OPTIONS, service, clock)


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
