"""From a URL to a place. Its scheme says whether it is a folder or a cloud's bucket; objects lie below its path."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from urllib.parse import unquote

from perdure.backends.objects.folder import Folder
from perdure.backends.remote import parse_address
from perdure.clock import Clock
from perdure.config import install
from perdure.errors import Invalid, NotFound, Unsupported
from perdure.model.record import Durability
from perdure.places.place import Place
from perdure.redaction import Secrets, shown_url

CLOUDS = {"s3": "s3", "gs": "gs", "az": "az"}
"""The module of each scheme of a cloud, beside the engine's."""
_SCHEMES = "file:///folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"


async def open_place(url: str, *, clock: Clock, option: str, create: bool = True) -> Place:
    """Open the place that a URL names and see that it can be used: with `create` that it can be written, else that it can be read.

    `option` is what the caller calls it. A bucket's URL takes the options of a store's on the same cloud, but `namespace` and `shards`.
    Raises `Invalid`, `Unauthorized`, `Unavailable`, `NotFound` (without `create`), and `Unsupported` for a missing extra.
    """
    if type(url) is not str or ":" not in url:
        raise Invalid(f"{option} is the URL of a place for objects, such as {_SCHEMES}.")
    try:
        place = _place(url, option, clock, create=create)
        try:
            await (place.check(clock) if create else place.check_there())
        except BaseException:
            await place.close()
            raise
        return place
    except Exception as error:  # noqa: BLE001 - raised below, and not from here: it would keep what it was before as its context
        failed = Secrets(url).cleaned(error)
    raise failed


def _place(url: str, option: str, clock: Clock, *, create: bool) -> Place:
    scheme = url.partition(":")[0]
    if scheme == "file":
        return _folder(url, create=create)
    if scheme not in CLOUDS:
        raise Invalid(f"{option} is no place for objects: {shown_url(url)!r}. Write {_SCHEMES}.")
    try:
        cloud, service = import_module("perdure.backends.objects.cloud"), import_module(f"perdure.backends.objects.{CLOUDS[scheme]}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("perdure"):
            raise
        raise Unsupported(f"{scheme}: needs the module {error.name!r}: {install('objects')}.") from error
    address = parse_address(url, {**cloud.CLIENT_OPTIONS, **service.OPTIONS})
    durability = Durability.buffered if address.options["endpoint"] else Durability.quorum
    return Place(cloud.Cloud(address, service.service, service.asked, clock), durability, address.secrets)


def _folder(url: str, *, create: bool) -> Place:
    address = parse_address(url, {}, hostless=True, path_any=True)
    path = unquote(address.path)
    if address.hosts or address.user or len(path) < 2:
        raise Invalid(f"{address.place!r} names no folder: write file:///absolute/folder.")
    if not create and not Path(path).is_dir():
        raise NotFound(f"There is no folder {address.place}.", missing="place")
    return Place(Folder(Path(path)), Durability.local, address.secrets)
