"""Between threads and loops."""

from __future__ import annotations

import asyncio
import threading

import pytest

from perdure.concurrency.mailbox import Mailbox


def test_a_mailbox_wakes_its_loop_once_for_all_that_came_together() -> None:
    """Functions put in by another thread run in their order; those that came while the loop was busy woke it once."""
    wakes = 0

    class Loop(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *arguments: object, **context: object) -> asyncio.Handle:
            nonlocal wakes
            wakes += 1
            return super().call_soon_threadsafe(*arguments, **context)  # type: ignore[arg-type]

    seen: list[int] = []

    async def scenario() -> None:
        box = Mailbox(asyncio.get_running_loop())
        for start in (0, 100):
            thread = threading.Thread(target=lambda start=start: [box.put(lambda n=n: seen.append(n)) for n in range(start, start + 100)])
            thread.start()
            thread.join()  # The loop is busy meanwhile.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(scenario())
        before = wakes
    assert seen == list(range(200))
    assert before == 2


def test_a_mailbox_of_a_closed_loop_says_so() -> None:
    """Each function put in after the loop's end is refused: nobody waits for an answer that cannot come."""
    loop = asyncio.new_event_loop()
    box = Mailbox(loop)
    loop.close()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            box.put(lambda: None)
