"""From a URL to an open store."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

from perdure.backends.registry import is_served, open_backend
from perdure.backends.spi import Backend, Durability
from perdure.clock import Clock, SystemClock
from perdure.codec.codec import Codec
from perdure.codec.upcast import Upcaster
from perdure.config import default_url, make_settings
from perdure.engine.core import Core
from perdure.engine.options import check_durability, parse_durability
from perdure.engine.read import bodies, segments
from perdure.engine.read.shared.client import open_client
from perdure.engine.store import Store
from perdure.engine.unentered import Asynchronous
from perdure.errors import Invalid
from perdure.model.ids import check_tenant

if TYPE_CHECKING:
    from perdure.engine.spool.file import SpoolFile
    from perdure.places.place import Place


class Opening(Asynchronous):
    """What `perdure.open` returns: `async with` it, or `await` it and close the store yourself."""

    _right = "async with perdure.open(...) as store"

    def __init__(
        self,
        url: str | None,
        tenant: str,
        clock: Clock | None,
        durability: Durability | str | None,
        upcasters: Mapping[str, Upcaster],
        blobs: str | None,
        shared_cache: str | None,
        archive: str | None,
        settings: dict[str, Any],
        *,
        spool: str | None,
        create: bool,
    ) -> None:
        self._shared_cache = shared_cache
        self._url, self._tenant, self._clock, self._durability, self._create = url, tenant, clock, durability, create
        self._upcasters, self._blobs, self._settings, self._spool = upcasters, blobs, settings, spool
        self._archive = archive
        self._store: Store | None = None

    async def _open(self) -> Store:
        url = default_url() if self._url is None else self._url
        tenant = check_tenant(self._tenant)
        settings = make_settings(**self._settings)
        codec = Codec(settings.format, self._upcasters)
        parse_durability(self._durability)
        if type(url) is str and is_served(url):
            self._leave_to_nodes()
        file = None if self._spool is None else _spool_file(self._spool)
        if self._blobs is None and "blob_bytes" in self._settings:
            raise Invalid("blob_bytes is for a store with a place for large bodies: pass blobs= too, or leave it out.")
        clock = self._clock or SystemClock()
        client = None if self._shared_cache is None else open_client(self._shared_cache, settings.cache_timeout)
        place = archive = None
        try:
            if self._blobs is not None:
                place = await _open_place(self._blobs, clock, "blobs", create=self._create)
            if self._archive is not None:
                archive = await _open_place(self._archive, clock, "archive", create=self._create)
            backend = await open_backend(url, clock=clock, create=self._create)
            try:
                strongest = backend.capabilities.durability
                safest = Durability.quorum if place is None else place.durability
                durability = check_durability(self._durability, min(Durability.local, strongest), backend.capabilities, safest)
                if place is not None:
                    await _claim(place, bodies.FOLDER, "bodies", backend, create=self._create)
                if archive is not None:
                    await _claim(archive, segments.FOLDER, "archive", backend, create=self._create)
            except BaseException:
                await backend.close()
                raise
        except BaseException:
            for each in (place, archive):
                if each is not None:
                    await each.close()
            raise
        core = Core(backend, url, clock, settings, durability, codec, place, archive)
        if client is not None:
            try:
                await core.share(client, create=self._create)
            except BaseException:
                await core.close()
                raise
        if file is not None:
            await _open_spool(core, file, create=self._create)
        return Store(core, tenant)

    def _leave_to_nodes(self) -> None:
        """Raise `Invalid` for options that belong to the nodes of a service."""
        asked = {"blobs": self._blobs, "shared_cache": self._shared_cache, "archive": self._archive}
        for name, value in asked.items():
            if value is not None:
                raise Invalid(f"{name} is set where a service is started, not in its clients: `perdure serve URL` opens the store with it.")

    def __await__(self) -> Generator[Any, Any, Store]:
        return self._open().__await__()

    async def __aenter__(self) -> Store:
        self._store = await self._open()
        return self._store

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._store is not None:
            await self._store.close()


async def _claim(place: Place, folder: str, contents: str, backend: Backend, *, create: bool) -> None:
    from perdure.places.owner import claim  # places load the buckets of the engines, which most stores do not need

    await claim(place, folder, contents, backend.store_id, create=create)


def _spool_file(url: str) -> SpoolFile:
    """A spool's file, not opened yet. Raises `Invalid`."""
    from perdure.engine.spool.file import SpoolFile

    if type(url) is not str:
        raise Invalid(f"spool must be a URL such as sqlite:///spool.db, not {type(url).__name__}.")
    return SpoolFile(url)


async def _open_spool(core: Core, file: SpoolFile, *, create: bool) -> None:
    """Open the spool of a store that was just opened; the store is closed where that fails."""
    from perdure.engine.spool.spool import Spool

    spool = Spool(
        file,
        core.backend,
        core.codec,
        core.reader,
        core.cache,
        core.keys,
        core.committer,
        core.durability,
        core.clock,
        core.settings,
        core.telemetry,
        core.url,
        core.bodies,
    )
    try:
        await spool.open(create=create)
    except BaseException:
        await core.close()
        raise
    core.spool = spool


async def _open_place(url: str, clock: Clock, option: str, *, create: bool) -> Place:
    from perdure.places.opening import open_place  # loads the buckets of the engines, which most stores do not need

    return await open_place(url, clock=clock, option=option, create=create)


def open(
    url: str | None = None,
    *,
    tenant: str = "default",
    durability: Durability | str | None = None,
    spool: str | None = None,
    create: bool = True,
    clock: Clock | None = None,
    upcasters: Mapping[str, Upcaster] = MappingProxyType({}),
    blobs: str | None = None,
    shared_cache: str | None = None,
    archive: str | None = None,
    **settings: Any,
) -> Opening:
    """Open a store: `async with perdure.open("sqlite:///agents.db") as store`.

    `url` chooses the engine; without one, the environment's `PERDURE_URL`, else `sqlite:///perdure.db`. `tenant` scopes every
    call. `durability` is the least level that receipts may name (default: `local`, or the engine's strongest if that is
    weaker). `spool` names a file on the local disk, `sqlite:///spool.db`, from which `store.enqueue` ships. `create=False` opens what is
    there and makes nothing: no file, schema, table or key; where there is no store it raises `NotFound`. `upcasters` say, by event type,
    how old events read today; `history` applies them. `blobs` is the URL of a place for large bodies (`file:///folder`,
    `s3://bucket/prefix`, `gs://`, `az://`): a stored body above `blob_bytes` goes there, and a store that has such bodies is always opened
    with it. `shared_cache` is a `redis://`, `rediss://` or `memcached://` URL: states that one process has loaded save others the load. It
    is never needed, and never trusted. `archive` is the URL of a place for archived commits, of the same kinds as `blobs`: one for each
    store. It is proven now that it can be written; with `create=False` that it can be read. `settings` are the fields of
    `perdure.Settings`.

    Raises `Invalid`, `NotFound`, `Unauthorized`, `Unsupported`, `Unavailable`, `Corrupt`.
    """
    return Opening(url, tenant, clock, durability, upcasters, blobs, shared_cache, archive, settings, spool=spool, create=create)
