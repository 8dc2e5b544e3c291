"""The check of a writer's version on engines that cannot compare it in a write."""

from __future__ import annotations

import asyncio

import pytest

from perdure.backends.common.schema import MIN_WRITER_SECONDS, WriterCheck
from perdure.backends.common.store_header import StoreHeader
from perdure.errors import Unavailable, Unsupported


class Store:
    """A header that is read slowly, and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now, self.least, self.reads, self.away = 100.0, 2, 0, False
        self.check = WriterCheck("here", StoreHeader(2, "id", 2), self.read, lambda: self.now)

    async def read(self) -> int:
        self.reads += 1
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("It does not answer.")
        return self.least

    async def checked(self, count: int) -> list[object]:
        """So many checks at once."""
        return list(await asyncio.gather(*[self.check.check() for _ in range(count)], return_exceptions=True))


async def test_the_header_is_read_again_in_time_and_once_for_all() -> None:
    """Not before the seconds are over, and then one read serves all that wait; a version that is refused is refused from there on."""
    store = Store()
    store.least = 3
    store.now += MIN_WRITER_SECONDS - 0.1
    assert (await store.checked(5), store.reads) == ([None] * 5, 0)
    store.now += 0.1
    refused = await store.checked(50)
    assert ({type(error) for error in refused}, store.reads) == ({Unsupported}, 1)
    with pytest.raises(Unsupported, match="upgrade perdure"):
        await store.check.check()
    assert store.reads == 1


async def test_a_store_that_does_not_answer_is_asked_again() -> None:
    """All that wait get the error of the one read; the next check reads again, and goes on. A check that is cancelled spoils none."""
    store = Store()
    store.away = True
    store.check.forget()
    assert [type(error) for error in await store.checked(5)] == [Unavailable] * 5
    assert store.reads == 1
    store.away = False
    first = asyncio.create_task(store.check.check())
    second = asyncio.create_task(store.check.check())
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert (first.cancelled() or first.cancelling(), store.reads) == (1, 2)
    store.least = 9
    store.check.forget()
    with pytest.raises(Unsupported):
        await store.check.check()
