"""A bucket in the cloud, by obstore. Its own retries are off: a put that was sent twice could meet itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from perdure.backends.objects import OPTIONS, open_bucket
from perdure.backends.objects.flights import Flights
from perdure.backends.objects.settings import Ask, Asking, Settings
from perdure.backends.remote import RemoteBackend, in_thread, parse_address
from perdure.backends.remote.urls import Address, Parser, count, seconds
from perdure.backends.spi import Durability
from perdure.clock import Clock
from perdure.errors import Error, Invalid, Unauthorized, Unavailable, Unknown

T = TypeVar("T")
Service = Callable[[Address], tuple[type[Any], dict[str, Any]]]
"""How clouds differ: obstore's class for it, and that class's configuration."""

CLIENT_OPTIONS: dict[str, tuple[Any, Parser]] = {
    "timeout": OPTIONS["timeout"],
    "connect_timeout": (5.0, seconds),
    "pool": (32, count(1, 1024)),
    "endpoint": ("", unquote),
    "ca": ("", unquote),
}
"""What every URL of a bucket takes, whatever the bucket is for."""
_RIGHTS = {
    "s3": "s3:GetObject, s3:PutObject and s3:DeleteObject on its objects, s3:ListBucket on the bucket",
    "gs": "roles/storage.objectUser on the bucket",
    "az": "the role Storage Blob Data Contributor, or a key of the account",
}
"""What a login needs, as each cloud calls it."""
CHANGES_MAX = 16
"""Tries to change an object that others change too."""


async def open_cloud(
    url: str, options: Mapping[str, tuple[Any, Parser]], service: Service, ask: Ask, clock: Clock, *, create: bool
) -> RemoteBackend:
    """The engine on a bucket of a cloud; `options` are those of its URLs beside the common ones. `ask` asks what a bucket is set to.

    Raises as `perdure.backends.objects.open`, and `Unauthorized`.
    """
    address = cloud_address(url, options)
    durability = Durability.buffered if address.options["endpoint"] else Durability.quorum
    return await open_bucket(address, Cloud(address, service, ask, clock), durability, clock, create=create)


def cloud_address(url: str, options: Mapping[str, tuple[Any, Parser]]) -> Address:
    """A URL with these options and the common ones, taken apart."""
    return parse_address(url, {**OPTIONS, **CLIENT_OPTIONS, **options})


def mapped(error: Exception, place: str, *, writing: bool) -> Error:
    """What obstore raises, as one of Perdure's errors. Their texts may quote what a server said, so they go no further than the cause."""
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        rights = _RIGHTS[place.partition(":")[0]]
        return Unauthorized(f"{place} refuses these credentials, or they lack the right to read, write, delete or list: {rights}.")
    if isinstance(error, NotFoundError | FileNotFoundError):
        return Invalid(f"{place} does not exist: create the bucket first.", missing="bucket")
    if "InvalidCertificate" in str(error):
        return Unavailable(f"{place}: the certificate at its address is not to be trusted; name its authority with ?ca=/path/to/ca.pem.")
    if "token request" in str(error):
        return Unavailable(f"{place} cannot be asked: no token is to be had for its login. Look at the credentials of the environment.")
    if not writing or "(Connect)" in str(error):
        return Unavailable(f"{place} did not answer ({type(error).__name__}).")
    return Unknown(f"{place} did not answer a write ({type(error).__name__}).")


class Cloud:
    """A `Bucket` of a cloud's service, or of what speaks its language at an `endpoint`. Credentials of the URL, else of the environment.

    Its objects lie below the address's path, and below the option `namespace` where the address has that.
    """

    def __init__(self, address: Address, service: Service, ask: Ask, clock: Clock) -> None:
        options: Any = address.options
        prefix = "/".join(part for part in (unquote(address.path).strip("/"), options.get("namespace")) if part)
        self.place = f"{address.scheme}://{address.hosts}/{prefix}"
        self._ask = lambda: ask(Asking(address, f"{prefix}/", clock.now()))
        self._timeout: float = options["timeout"]
        self._pool = asyncio.Semaphore(options["pool"])
        """What may be asked at once: the client library opens a connection for each request that finds none idle, without a limit."""
        client: dict[str, Any] = {
            "timeout": timedelta(seconds=options["timeout"]),
            "connect_timeout": timedelta(seconds=options["connect_timeout"]),
            "pool_max_idle_per_host": str(options["pool"]),
            "allow_http": options["endpoint"].startswith("http://"),
        }
        try:
            if options["ca"]:
                client["root_certificate"] = Path(options["ca"]).read_bytes()
            kind, config = service(address)
            self._store = kind(address.hosts, prefix=prefix or None, config=config, client_options=client, retry_config={"max_retries": 0})
        except (BaseError, OSError, ValueError, TypeError) as error:
            raise Invalid(f"{address.place!r} cannot be opened ({type(error).__name__}): check its options.") from error
        self._flights = Flights(lambda: repr(self._store))
        self.server = f"{kind.__name__.removesuffix('Store')} by obstore {obstore.__version__}"

    async def _read(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask again where an answer was cut soon after the question: to read twice harms nothing."""
        start = time.monotonic()
        for wait in (0.02, 0.1, 0.3):
            try:
                async with self._pool:
                    return await ask()
            except (BaseError, OSError) as error:
                found = mapped(error, self.place, writing=False)
                if not isinstance(found, Unavailable) or "(Connect)" in str(error) or time.monotonic() - start > self._timeout / 4:
                    raise found from error
            await asyncio.sleep(wait)
        try:
            async with self._pool:
                return await ask()
        except (BaseError, OSError) as error:
            raise mapped(error, self.place, writing=False) from error

    async def create(self, name: str, data: bytes) -> bool:
        """See `Bucket`."""
        try:
            await self._put(name, data, "create")
        except (AlreadyExistsError, PreconditionError):
            return False
        except (BaseError, OSError) as error:
            raise mapped(error, self.place, writing=True) from error
        return True

    async def _put(self, name: str, data: bytes, mode: Any) -> None:
        async with self._pool:
            await self._flights.begin(lambda: obstore.put_async(self._store, name, data, mode=mode, use_multipart=False))

    async def put(self, name: str, data: bytes) -> None:
        """See `Bucket`."""
        try:
            await self._put(name, data, "overwrite")
        except (BaseError, OSError) as error:
            raise mapped(error, self.place, writing=True) from error

    async def change(self, name: str, change: Callable[[bytes], bytes]) -> bytes:
        """See `Bucket`: on the condition of its tag, or of Google's generation."""

        async def tagged() -> tuple[bytes, Any]:
            found = await self._flights.begin(lambda: obstore.get_async(self._store, name))
            tags = {"e_tag": found.meta["e_tag"], "version": found.meta["version"]}
            return bytes(await self._flights.begin(found.bytes_async)), {key: tag for key, tag in tags.items() if tag is not None}

        for _ in range(CHANGES_MAX):
            old, tag = await self._read(tagged)
            new = change(old)
            if new == old:
                return old
            try:
                await self._put(name, new, tag)
            except PreconditionError:
                continue
            except (BaseError, OSError) as error:
                found = mapped(error, self.place, writing=True)
                if isinstance(found, Unknown):
                    continue  # Whether it was written shows when it is read again.
                raise found from error
            return new
        raise Unavailable(f"Others changed {name} of {self.place} again and again: do it again.")

    async def get(self, name: str, start: int = 0, end: int | None = None) -> bytes | None:
        """See `Bucket`. Services refuse a range that has no byte."""
        part: Any = None if not start and end is None else {"range": {"offset": start} if end is None else (start, max(start + 1, end))}

        async def read() -> bytes | None:
            try:
                found = await self._flights.begin(lambda: obstore.get_async(self._store, name, options=part))
                data = bytes(await self._flights.begin(found.bytes_async))
            except (NotFoundError, FileNotFoundError):
                return None
            except BaseError:
                if part is None or (await self._measure(name) or 0) > start:
                    raise
                return b""
            return data if end is None else data[: max(0, end - start)]

        return await self._read(read)

    async def size(self, name: str) -> int | None:
        """See `Bucket`."""
        return await self._read(lambda: self._measure(name))

    async def _measure(self, name: str) -> int | None:
        try:
            return int((await self._flights.begin(lambda: obstore.head_async(self._store, name)))["size"])
        except (NotFoundError, FileNotFoundError):
            return None

    async def delete(self, name: str) -> None:
        """See `Bucket`."""

        async def remove() -> None:
            try:
                await self._flights.begin(lambda: obstore.delete_async(self._store, name))
            except (NotFoundError, FileNotFoundError):
                return

        await self._read(remove)

    async def list(self, folder: str, after: str = "") -> Sequence[str]:
        """See `Bucket`. A service may begin its list where it likes: Azure's begins at the name itself, an emulator's at the first."""

        async def names() -> Sequence[str]:
            found: list[str] = []
            offset = f"{folder}/{after}" if after else None
            async for page in self._pages(folder, offset):
                found += [item["path"].rpartition("/")[2] for item in page]
            return sorted(name for name in found if name > after)

        return await self._read(names)

    async def walk(self, folder: str, after: str, limit: int) -> Sequence[str]:
        """See `Bucket`."""

        async def names() -> Sequence[str]:
            found: list[str] = []
            async with aclosing(self._pages(folder or None, after or None)) as pages:
                async for page in pages:
                    found += [item["path"] for item in page if item["path"] > after]
                    if len(found) >= limit:
                        break
            return sorted(found)[:limit]

        return await self._read(names)

    async def _pages(self, folder: str | None, offset: str | None) -> AsyncGenerator[Sequence[Any], None]:
        pages = obstore.list(self._store, folder, offset=offset, chunk_size=1000)
        with suppress(StopAsyncIteration):
            while True:
                yield await self._flights.begin(pages.__anext__)

    async def settings(self) -> Settings:
        """See `Bucket`."""
        return await in_thread(self._ask)

    async def close(self) -> None:
        """See `Bucket`. Requests that are in flight are cancelled."""
        await self._flights.close()
        del self._store
