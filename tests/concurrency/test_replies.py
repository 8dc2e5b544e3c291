"""Replies: the answer of one call, awaited in a loop or blocking."""

from __future__ import annotations

import asyncio
import threading

from perdure.concurrency.replies import Reply, run_blocking


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
