"""The thread that keeps leases goes on after whatever a look raises, and a mistake is seen."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

import perdure
from perdure.engine.leasing.keeper import Keeper


@pytest.mark.parametrize(("error", "logged"), [(perdure.Unavailable("It is away."), 0), (ZeroDivisionError("a mistake"), 1)])
async def test_a_look_that_fails_is_not_the_last(error: Exception, logged: int, caplog: pytest.LogCaptureFixture) -> None:
    """After an error of the engine, and after a programming error, the next look comes; the second is logged with where it arose."""
    again = threading.Event()
    looks: list[int] = []

    async def look(leases: Sequence[Any]) -> None:
        looks.append(len(leases))
        if len(looks) == 1:
            raise error
        again.set()
        for lease in leases:
            lease._look_at = 1_000.0

    keeper = Keeper(look, lambda: 0.0)
    lease: Any = SimpleNamespace(_look_at=0.0, ttl=30.0)
    with caplog.at_level(logging.ERROR, logger="perdure"):
        keeper.add(lease)
        assert again.wait(30)
    await keeper.close()
    found = [record for record in caplog.records if record.name == "perdure"]
    assert len(found) == logged
    assert all(record.exc_info is not None and record.exc_info[1] is error for record in found)
