"""`az://`: Azure Blob Storage."""

from __future__ import annotations

from typing import Any

from obstore.store import AzureStore

from perdure.backends.objects.cloud import open_cloud
from perdure.backends.remote import RemoteBackend
from perdure.backends.remote.urls import Address, Parser
from perdure.clock import Clock

OPTIONS: dict[str, tuple[Any, Parser]] = {}


async def open(url: str, *, clock: Clock) -> RemoteBackend:
    """Open `az://ACCOUNT:KEY@container/prefix?option=value`. Raises as `open_cloud`."""
    return await open_cloud(url, OPTIONS, service, clock)


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
