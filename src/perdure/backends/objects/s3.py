"""S3 as a bucket, by obstore. Its own retries are off: a put that was sent twice could meet itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
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
from obstore.store import S3Store

from perdure.backends.objects import OPTIONS, open_bucket
from perdure.backends.remote import RemoteBackend, parse_address
from perdure.backends.remote.urls import Address, one_of, seconds
from perdure.backends.spi import Durability
from perdure.clock import Clock
from perdure.errors import Error, Invalid, Unauthorized, Unavailable, Unknown

T = TypeVar("T")

_OPTIONS: dict[str, tuple[Any, Any]] = {
    **OPTIONS,
    "connect_timeout": (5.0, seconds),
    "endpoint": ("", str),
    "region": ("", str),
    "ca": ("", str),
    "addressing": ("path", one_of("path", "virtual")),
}


async def open(url: str, *, clock: Clock) -> RemoteBackend:
    """Open `s3://KEY:SECRET@bucket/prefix?option=value`. Raises as `perdure.backends.objects.open`, and `Unauthorized`."""
    address = parse_address(url, _OPTIONS, foreign=False)
    durability = Durability.buffered if address.options["endpoint"] else Durability.quorum
    return await open_bucket(address, S3(address), durability, clock)


def mapped(error: Exception, place: str, *, writing: bool) -> Error:
    """What obstore raises, in Perdure's words. Their texts may quote what a server said, so they go no further than the cause."""
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return Unauthorized(f"{place} refuses these credentials, or they lack the right to read, write or list.")
    if isinstance(error, NotFoundError):
        return Invalid(f"{place} does not exist: create the bucket first.")
    if not writing or "(Connect)" in str(error):
        return Unavailable(f"{place} did not answer ({type(error).__name__}).")
    return Unknown(f"{place} did not answer a write ({type(error).__name__}).")


CHANGES_MAX = 16
"""Tries to change an object that others change too."""


class S3:
    """A `Bucket` on S3 or what speaks its language. Credentials of the URL, else of the environment (AWS_ACCESS_KEY_ID …)."""

    def __init__(self, address: Address) -> None:
        options: Any = address.options
        prefix = "/".join(part for part in (unquote(address.path).strip("/"), options["namespace"]) if part)
        self.place = f"s3://{address.hosts}/{prefix}"
        self.server = f"S3 by obstore {obstore.__version__}"
        self._timeout: float = options["timeout"]
        endpoint = unquote(options["endpoint"])
        config: dict[str, Any] = {"virtual_hosted_style_request": options["addressing"] == "virtual"}
        if endpoint:
            config["endpoint"] = endpoint
        if options["region"] or endpoint:
            config["region"] = options["region"] or "us-east-1"
        if address.user is not None:
            config |= {"access_key_id": address.user, "secret_access_key": address.password or ""}
        client: dict[str, Any] = {
            "timeout": timedelta(seconds=options["timeout"]),
            "connect_timeout": timedelta(seconds=options["connect_timeout"]),
            "allow_http": endpoint.startswith("http://"),
        }
        try:
            if options["ca"]:
                client["root_certificate"] = Path(unquote(options["ca"])).read_bytes()
            self._store = S3Store(address.hosts, prefix=prefix, config=config, client_options=client, retry_config={"max_retries": 0})  # type: ignore[arg-type]
        except (BaseError, OSError, ValueError, TypeError) as error:
            raise Invalid(f"{address.place!r} cannot be opened ({type(error).__name__}): check its options.") from error

    async def _read(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask again where an answer was cut soon after the question: to read twice harms nothing."""
        start = time.monotonic()
        for wait in (0.02, 0.1, 0.3):
            try:
                return await ask()
            except (BaseError, OSError) as error:
                found = mapped(error, self.place, writing=False)
                if not isinstance(found, Unavailable) or "(Connect)" in str(error) or time.monotonic() - start > self._timeout / 4:
                    raise found from error
            await asyncio.sleep(wait)
        try:
            return await ask()
        except (BaseError, OSError) as error:
            raise mapped(error, self.place, writing=False) from error

    async def create(self, name: str, data: bytes) -> bool:
        """See `Bucket`."""
        try:
            await obstore.put_async(self._store, name, data, mode="create", use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return False
        except (BaseError, OSError) as error:
            raise mapped(error, self.place, writing=True) from error
        return True

    async def put(self, name: str, data: bytes) -> None:
        """See `Bucket`."""
        try:
            await obstore.put_async(self._store, name, data, use_multipart=False)
        except (BaseError, OSError) as error:
            raise mapped(error, self.place, writing=True) from error

    async def change(self, name: str, change: Callable[[bytes], bytes]) -> bytes:
        """See `Bucket`: by `If-Match`."""

        async def tagged() -> tuple[bytes, Any]:
            found = await obstore.get_async(self._store, name)
            return bytes(await found.bytes_async()), found.meta["e_tag"]

        for _ in range(CHANGES_MAX):
            old, tag = await self._read(tagged)
            new = change(old)
            if new == old:
                return old
            try:
                await obstore.put_async(self._store, name, new, mode={"e_tag": tag}, use_multipart=False)
            except PreconditionError:
                continue
            except (BaseError, OSError) as error:
                found = mapped(error, self.place, writing=True)
                if isinstance(found, Unknown):
                    continue  # Whether it was written shows when it is read again.
                raise found from error
            return new
        raise Unavailable(f"Others changed {name} of {self.place} again and again: do it again.")

    async def get(self, name: str) -> bytes | None:
        """See `Bucket`."""

        async def read() -> bytes | None:
            try:
                return bytes(await (await obstore.get_async(self._store, name)).bytes_async())
            except (NotFoundError, FileNotFoundError):
                return None

        return await self._read(read)

    async def delete(self, name: str) -> None:
        """See `Bucket`."""

        async def remove() -> None:
            try:
                await obstore.delete_async(self._store, name)
            except (NotFoundError, FileNotFoundError):
                return

        await self._read(remove)

    async def list(self, folder: str, after: str = "") -> Sequence[str]:
        """See `Bucket`."""

        async def names() -> Sequence[str]:
            found: list[str] = []
            offset = f"{folder}/{after}" if after else None
            async for page in obstore.list(self._store, folder, offset=offset, chunk_size=1000):
                found += [item["path"].rpartition("/")[2] for item in page]
            return sorted(found)

        return await self._read(names)

    async def close(self) -> None:
        """See `Bucket`."""
        del self._store
