"""Replies: the answer of one call, awaited in a loop or blocking."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from perdure.concurrency.replies import Reply, run_blocking, set_all


def test_an_answer_is_waited_for_no_longer_than_is_said() -> None:
    """`Reply.within` says whether the answer came, blocking and in a loop, and leaves it to be taken, before its time and after it."""

    async def wait(reply: Reply[int], seconds: float) -> bool:
        return await reply.within(seconds)

    for run in (run_blocking, asyncio.run):
        late: Reply[int] = Reply()
        assert run(wait(late, 0.0)) is False
        late.set(1)
        assert run(wait(late, 60.0)) is True

        soon: Reply[int] = Reply()
        timer = threading.Timer(0.01, soon.set, (2,))
        timer.start()
        assert run(wait(soon, 60.0)) is True
        timer.join()


def test_answers_that_are_set_together_come_to_each_caller() -> None:
    """Callers of two loops, one that blocks, one that has given up, one that asks later and one that was answered before: each gets its
    own answer, and each loop is woken once."""
    replies: list[Reply[int]] = [Reply() for _ in range(10)]
    got: dict[int, int] = {}
    woken: list[str] = []

    async def take(*numbers: int) -> None:
        async def one(number: int) -> None:
            got[number] = await replies[number]

        loop = asyncio.get_running_loop()
        call_soon = loop.call_soon_threadsafe

        def counted(function: Any, *arguments: Any, **options: Any) -> Any:
            woken.append(threading.current_thread().name)
            return call_soon(function, *arguments, **options)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign]
        tasks = [asyncio.create_task(one(number)) for number in numbers]
        await asyncio.sleep(0)
        waiting.wait()
        gone = asyncio.create_task(one(9))
        await asyncio.sleep(0)
        gone.cancel()
        ready.wait()
        await asyncio.gather(*tasks)

    async def blocked() -> int:
        waiting.wait()
        ready.wait()
        return await replies[8]

    waiting, ready = threading.Barrier(4), threading.Barrier(4)
    threads = [threading.Thread(target=lambda each=each: asyncio.run(take(*each))) for each in ((0, 1, 2), (3, 4, 5))]
    threads.append(threading.Thread(target=lambda: got.update({8: run_blocking(blocked())})))
    for thread in threads:
        thread.start()
    waiting.wait()
    replies[6].set(60)
    ready.wait()
    set_all([(reply, number) for number, reply in enumerate(replies)])
    for thread in threads:
        thread.join()
    assert got == {**{number: number for number in range(6)}, 8: 8}
    assert len(woken) <= 2, woken
    assert asyncio.run(_value(replies[6])) == 60
    assert run_blocking(_value(replies[7])) == 7


async def _value(reply: Reply[int]) -> int:
    return await reply
