"""The connection to Google's services: logins, an emulator's address, and what gRPC's errors mean."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

import google.auth
import grpc
from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError
from google.oauth2 import service_account

from perdure.backends.google.entities import Refused
from perdure.backends.remote.loop import in_thread
from perdure.backends.remote.urls import Address, Parser, name, seconds
from perdure.errors import Error, Invalid, TooLarge, Unauthorized, Unavailable, Unknown

OPTIONS: dict[str, tuple[Any, Parser]] = {
    "namespace": ("perdure", name),
    "connect_timeout": (5.0, seconds),
    "timeout": (10.0, seconds),
    "credentials": ("", unquote),
    "emulator": ("", unquote),
}
"""What URLs of both services take."""
_SCOPES = ["https://www.googleapis.com/auth/datastore"]
_CHANNEL: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 60_000),
]
_REFUSALS = (api.AlreadyExists, api.FailedPrecondition, api.Aborted, api.NotFound)


def database(address: Address) -> tuple[str, str]:
    """Project and database of a URL `scheme://project/database`. Raises `Invalid`."""
    found = unquote(address.path.strip("/")) or "(default)"
    if address.user is not None:
        raise Invalid(f"{address.place!r}: Google takes no user and password: name a key file with ?credentials=/path/to/key.json.")
    if "/" in found or ":" in address.hosts:
        raise Invalid(f"{address.place!r} names no database: it reads {address.scheme}://project/database.")
    return address.hosts, found


def emulator(options: Mapping[str, Any], variable: str) -> str:
    """The `host:port` of an emulator: of the URL, else of the variable that Google's tools set; empty: none."""
    return str(options["emulator"] or os.environ.get(variable, "")).removeprefix("http://")


async def connected(kind: type[Any], options: Mapping[str, Any], host: str) -> Any:
    """A transport of Google's client library, `kind`, with a channel to an emulator (`host`) or to the service.

    Raises `Unauthorized` where there is no login, `Unavailable` where there is no answer within the connect time-out (in seconds).
    """
    limit = options["connect_timeout"]
    settings = [*_CHANNEL, ("grpc.min_reconnect_backoff_ms", int(limit * 1000))]  # So long may one try to connect take.
    made = (
        grpc.aio.insecure_channel(host, options=settings)
        if host
        else kind.create_channel(credentials=await _login(options), options=settings)
    )
    try:
        await asyncio.wait_for(made.channel_ready(), limit)
    except TimeoutError:
        await made.close()
        raise Unavailable(f"{host or 'Google'} cannot be reached within {limit:g} s.") from None
    return kind(channel=made)


async def _login(options: Mapping[str, Any]) -> Any:
    path = options["credentials"]
    try:
        if path:
            login = await in_thread(partial(service_account.Credentials.from_service_account_file, path, scopes=_SCOPES))
        else:
            login, _ = await in_thread(lambda: google.auth.default(scopes=_SCOPES))
    except (GoogleAuthError, OSError, ValueError) as error:
        raise Unauthorized(
            "There is no login for Google: name a service account's key file with ?credentials=/path/to/key.json, "
            "or run gcloud auth application-default login."
        ) from error
    return login


def garbled(place: str, *, writing: bool) -> Error:
    """What an answer is that no service of Google's gives: not of its message (gRPC then gives `None`), or without what was asked for."""
    text = f"{place} answered with something else than was asked for: check its address, something else answers there."
    return Unknown(text) if writing else Unavailable(text)


def mapped(error: Exception, place: str, *, writing: bool) -> Error | Refused:
    """What a call raised, as one of Perdure's errors; the texts of the service go no further than the cause."""
    text = str(error)
    if isinstance(error, api.Unauthenticated | api.Forbidden | GoogleAuthError) or "metadata from plugin failed" in text:
        return Unauthorized(
            f"{place} refuses this login, or it lacks the right to read and write (roles/datastore.user), or the project's API is off."
        )
    if writing and isinstance(error, _REFUSALS):
        return Refused()
    if isinstance(error, api.NotFound | api.FailedPrecondition):
        return Invalid(
            f"{place} cannot be read ({type(error).__name__}): is there such a database, in this mode? "
            "gcloud firestore databases list shows those that are there; databases create makes one.",
            missing="database",
        )
    if isinstance(error, api.InvalidArgument):
        return TooLarge(f"{place} refuses what it was sent as too large or malformed.")
    sent = "failed to connect" not in text.lower() and not isinstance(error, api.ResourceExhausted | api.Aborted)
    if writing and sent:
        return Unknown(f"{place} did not answer a write ({type(error).__name__}).")
    return Unavailable(f"{place} did not answer ({type(error).__name__}).")
