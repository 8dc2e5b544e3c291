"""Notifications from an engine behind a network: what breaks is made again, and a listener learns that it may have missed something."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from perdure.backends.conformance import behind
from perdure.backends.memory import MemoryBackend
from perdure.backends.remote import listening
from perdure.errors import Unauthorized, Unavailable, Unsupported
from perdure.model.ids import SessionKey
from tests.support.backends.memory_driver import MemoryDriver, memory, opened

S = SessionKey("acme", "s")


class Heard:
    """Notices in their order."""

    def __init__(self) -> None:
        self.notices: asyncio.Queue[tuple[SessionKey | None, int]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def hear(self, session: SessionKey | None, version: int) -> None:
        self._loop.call_soon_threadsafe(self.notices.put_nowait, (session, version))

    async def until(self, notice: tuple[SessionKey | None, int]) -> None:
        async with asyncio.timeout(10):
            while await self.notices.get() != notice:
                pass


async def test_a_broken_connection_is_made_again() -> None:
    """After a break whoever listens is told to look, and hears again what is stored from then on."""

    driver = MemoryDriver(memory())
    async with opened(driver) as backend:
        heard = Heard()
        await backend.listen(heard.hear)
        await backend.append([behind(S)])
        await heard.until((S, 1))
        for version in (2, 3):
            await backend.run(driver.break_off())
            await heard.until((None, 0))
            await heard.until((None, 0))  # Once when it broke, and once when it was back.
            assert backend.hears
            await backend.append([behind(S)])
            await heard.until((S, version))
    assert not backend.hears


async def test_listening_to_an_engine_that_is_away_waits_no_longer_than_the_timeout() -> None:
    """`listen` returns though nothing can be heard yet, says so in `hears`, and hears once the engine is back."""

    class Away(MemoryDriver):
        away = True

        async def notices(self):
            if self.away:
                raise Unavailable("no connection")
            async for notice in super().notices():
                yield notice

    driver = Away(memory())
    async with opened(driver, timeout=0.5) as backend:
        heard = Heard()
        await backend.listen(heard.hear)
        assert not backend.hears
        driver.away = False
        await heard.until((None, 0))
        async with asyncio.timeout(10):
            while not backend.hears:
                await heard.notices.get()
        await backend.append([behind(S)])
        await heard.until((S, 1))


async def test_who_never_heard_is_not_told_that_it_missed_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where listening is refused again and again, nobody is woken each time: who looks at heads all the while would read for nothing."""
    monkeypatch.setattr(listening, "AGAIN_AFTER", (0.01,))

    class Refusing(MemoryDriver):
        def __init__(self, backend: MemoryBackend) -> None:
            super().__init__(backend)
            self.refused, self.often = 0, asyncio.Event()

        async def notices(self):
            self.refused += 1
            if self.refused == 5:
                self.often.set()
            raise Unauthorized("no right to listen")
            yield

    driver = Refusing(memory())
    async with opened(driver) as backend:
        heard = Heard()
        await backend.listen(heard.hear)
        await backend.run(driver.often.wait())
        assert heard.notices.empty()


async def test_a_call_that_was_cancelled_may_be_made_again() -> None:
    """Whoever gives up waiting for the first news and listens anew shares the one connection that news comes by."""

    class Slow(MemoryDriver):
        asked = 0

        async def notices(self):
            self.asked += 1
            await self.answers.wait()
            async for notice in super().notices():
                yield notice

    driver = Slow(memory())
    driver.answers = asyncio.Event()
    async with opened(driver) as backend:
        heard = Heard()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(backend.listen(heard.hear), 0.1)
        driver.answers.set()
        await backend.listen(heard.hear)
        assert backend.hears
        assert driver.asked == 1


async def test_an_engine_that_does_not_tell_refuses() -> None:
    """`listen` is `Unsupported` where the server cannot tell, though the driver could."""

    driver = MemoryDriver(memory())
    driver.capabilities = msgspec.structs.replace(driver.capabilities, notification=False)
    async with opened(driver) as backend:
        with pytest.raises(Unsupported):
            await backend.listen(lambda *_: None)


async def test_a_client_that_swallows_its_cancellation_is_closed_all_the_same() -> None:
    """As `asyncio.wait_for` before Python 3.12 does when its work ends at that moment: closing does not wait for ever."""

    class Swallowing(MemoryDriver):
        async def notices(self):
            yield None, 0
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
            await asyncio.sleep(3600)

    async with opened(Swallowing(memory())) as backend:
        await backend.listen(lambda *_: None)
        assert backend.hears
