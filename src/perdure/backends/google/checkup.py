"""What weakens a database: asked of Firestore's admin API, which answers for both modes and says more than the services themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError

from perdure.backends.google import channel
from perdure.backends.remote.loop import gather_all
from perdure.backends.spi import Checkup, Finding
from perdure.errors import Error

KINDS = ("store", "session", "record", "piece", "key", "snapshot", "log")
"""The collections of a store, or its kinds."""


class Settings(NamedTuple):
    """What a database is set to; `None`: it was not asked, or the service that answered does not know."""

    expiring: Sequence[str] | None
    """Fields of our kinds with a time to live, as `kind.field`."""
    recovery: bool | None
    """Whether its past can be read or restored at any point in time."""
    protection: bool | None
    """Whether it has to be unlocked before it can be deleted."""
    look: str
    """The commands that show them."""


Ask = Callable[[], Awaitable[Settings]]


async def asked(options: Mapping[str, Any], place: tuple[str, str], host: str) -> Settings:
    """Ask of the database `place` (project and name). Never raises: what is not answered is `None`."""
    # Imported here: it takes as long as a third of all else that this engine imports, for one who asks.
    from google.cloud.firestore_admin_v1.services.firestore_admin import FirestoreAdminAsyncClient, transports

    named = f"--project={place[0]} --database='{place[1]}'"
    look = f"gcloud firestore fields ttls list {named}; gcloud firestore databases describe {named}"
    try:
        transport = await channel.connected(transports.FirestoreAdminGrpcAsyncIOTransport, options, host)
    except Error:
        return Settings(None, None, None, look)
    client, call = FirestoreAdminAsyncClient(transport=transport), {"retry": None, "timeout": options["timeout"]}
    name = f"projects/{place[0]}/databases/{place[1]}"
    try:
        about, *fields = await gather_all(_database(client, name, call), *[_expiring(client, name, kind, call) for kind in KINDS])
    finally:
        await transport.close()
    found = None if None in fields else [one for some in fields for one in some]
    if about is None:
        return Settings(found, None, None, look)
    recovery = {"POINT_IN_TIME_RECOVERY_ENABLED": True, "POINT_IN_TIME_RECOVERY_DISABLED": False}
    protection = {"DELETE_PROTECTION_ENABLED": True, "DELETE_PROTECTION_DISABLED": False}
    return Settings(
        found, recovery.get(about.point_in_time_recovery_enablement.name), protection.get(about.delete_protection_state.name), look
    )


async def _database(client: Any, name: str, call: Mapping[str, Any]) -> Any:
    try:
        return await client.get_database({"name": name}, **call)
    except (GoogleAPICallError, GoogleAuthError):
        return None


async def _expiring(client: Any, name: str, kind: str, call: Mapping[str, Any]) -> list[str] | None:
    request = {"parent": f"{name}/collectionGroups/{kind}", "filter": "ttlConfig:*"}
    try:
        found = [field async for field in await client.list_fields(request, **call)]
    except (GoogleAPICallError, GoogleAuthError):
        return None
    return [f"{kind}.{field.name.rpartition('/')[2]}" for field in found if "ttl_config" in field]


async def checkup(server: str, place: str, ask: Ask, *, is_production: bool) -> Checkup:
    """See `spi.Examined`. `is_production`: whether it is Google's service. What was not answered is a fact that says where to look."""
    settings = await ask()
    unasked = f"not asked; look with: {settings.look}"
    facts = {
        "server": server,
        "database": place,
        "times to live": unasked if settings.expiring is None else ", ".join(settings.expiring) or "none on the store's kinds",
        "point-in-time recovery": unasked if settings.recovery is None else ("off", "on")[settings.recovery],
        "delete protection": unasked if settings.protection is None else ("off", "on")[settings.protection],
    }
    findings = []
    if not is_production:
        what = "This is an emulator: it keeps everything in memory."
        findings.append(Finding("warning", "corrupt", what, "use it for tests alone; unset its variable, or leave out ?emulator="))
    for field in settings.expiring or ():
        what = f"There is a time to live on {field}: what has a time there vanishes. Perdure writes none; a hand that does removes commits."
        kind, _, name = field.partition(".")
        mend = f"gcloud firestore fields ttls update {name} --collection-group={kind} --disable-ttl, unless other data of yours needs it"
        findings.append(Finding("warning", "corrupt", what, mend))
    if settings.recovery is False:
        mend = "gcloud firestore databases update --enable-pitr"
        findings.append(Finding("warning", "corrupt", "Point-in-time recovery is off: what a person deletes is gone.", mend))
    if settings.protection is False:
        mend = "gcloud firestore databases update --delete-protection"
        findings.append(Finding("warning", "not_found", "Delete protection is off: one command deletes the database.", mend))
    return Checkup(facts, findings)
