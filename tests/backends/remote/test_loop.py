"""The loop that a network client runs on."""

from __future__ import annotations

import asyncio

import pytest

from perdure.backends.remote import IoLoop
from perdure.backends.remote.loop import LOOP_FACTORY
from perdure.cli.commands import serve


async def kind_of_loop() -> type[asyncio.AbstractEventLoop]:
    """What a client that is opened here runs on."""

    async def kind() -> type[asyncio.AbstractEventLoop]:
        return type(asyncio.get_running_loop())

    io = IoLoop("perdure-test")
    try:
        return await io.call(kind())
    finally:
        io.close()


async def test_what_is_opened_in_a_context_runs_on_the_loops_of_its_factory() -> None:
    """And what is opened outside of it on those of asyncio."""

    class Loop(asyncio.SelectorEventLoop):
        pass

    token = LOOP_FACTORY.set(Loop)
    try:
        assert await kind_of_loop() is Loop
    finally:
        LOOP_FACTORY.reset(token)
    assert await kind_of_loop() is type(asyncio.get_running_loop())


def test_the_client_of_a_node_runs_on_uvloop() -> None:
    """As the node itself does, and nothing else of the process."""
    uvloop = pytest.importorskip("uvloop")
    kinds = []

    async def main() -> None:
        kinds.extend([type(asyncio.get_running_loop()), await kind_of_loop()])

    serve._run(main())
    assert kinds == [uvloop.Loop, uvloop.Loop]
    assert asyncio.run(kind_of_loop()) is not uvloop.Loop
