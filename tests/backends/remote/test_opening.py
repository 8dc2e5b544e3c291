"""Opening an engine by its URL: what was connected is let go of where it cannot be started."""

from __future__ import annotations

import threading

import pytest

from perdure.backends.remote import open_address, parse_address
from perdure.backends.remote.urls import seconds
from perdure.errors import Unsupported
from tests.support.backends.memory_driver import MemoryDriver, memory


async def test_a_driver_that_cannot_be_started_is_closed() -> None:
    """Its error is the one that is raised; the driver is closed once, and its thread has ended."""
    closed = list[str]()

    class Closing(MemoryDriver):
        async def close(self) -> None:
            closed.append(threading.current_thread().name)

    async def connect() -> Closing:
        return Closing(memory())

    async def start(driver: Closing) -> None:
        raise Unsupported("This server is too old.")

    address = parse_address("strange://host/name", {"timeout": (2.0, seconds)})
    with pytest.raises(Unsupported, match="too old"):
        await open_address(address, connect, start)
    assert closed == ["perdure-strange"]
    assert "perdure-strange" not in {thread.name for thread in threading.enumerate()}


async def test_a_driver_that_was_started_serves() -> None:
    """`start` is called once, on the loop that owns the driver, before anything is asked of it."""
    started = list[str]()

    async def connect() -> MemoryDriver:
        return MemoryDriver(memory())

    async def start(driver: MemoryDriver) -> None:
        started.append(threading.current_thread().name)

    backend = await open_address(parse_address("strange://host/name", {"timeout": (2.0, seconds)}), connect, start)
    try:
        assert started == ["perdure-strange"]
        assert repr(backend) == "<RemoteBackend [open] strange://host/name>"
    finally:
        await backend.close()
