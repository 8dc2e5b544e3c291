"""Cases of notifications: an engine that has them notifies of all records, of any writer; one that has none refuses to listen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from perdure.backends.conformance.kit import Kit, S, behind, case, case_of_two, refuses
from perdure.backends.spi import Appended, Notifying
from perdure.errors import Unsupported
from perdure.model.ids import SessionKey

HEARD_WITHIN = 20.0
"""Seconds that a case waits for a notification."""


class Ear:
    """What was heard: the highest version of each session."""

    def __init__(self) -> None:
        self.newest: dict[SessionKey, int] = {}
        self._loop, self._heard = asyncio.get_running_loop(), asyncio.Event()

    def hear(self, session: SessionKey | None, version: int) -> None:
        if session is not None:
            self.newest[session] = max(version, self.newest.get(session, 0))
            self._loop.call_soon_threadsafe(self._heard.set)

    async def until(self, heard: Callable[[], bool]) -> None:
        """Wait until this is true of what was heard."""
        async with asyncio.timeout(HEARD_WITHIN):
            while not heard():
                await self._heard.wait()
                self._heard.clear()


async def _listening(kit: Kit) -> Ear | None:
    """An ear on the backend, or `None` after it has refused what it does not declare."""
    backend, ear = kit.backend, Ear()
    if not backend.capabilities.notification:
        if isinstance(backend, Notifying):
            await refuses(Unsupported, backend.listen(ear.hear))
        return None
    assert isinstance(backend, Notifying), "an engine that declares notification needs `listen` and `hears`"
    await backend.listen(ear.hear)
    assert backend.hears
    return ear


@case
async def own_records_are_heard(kit: Kit) -> None:
    """A listener hears of what this handle stores, and of no version that is not there."""
    await kit.chain(S, 2)
    ear = await _listening(kit)
    if ear is None:
        return
    await kit.chain(S, 3)
    await ear.until(lambda: ear.newest.get(S) == 5)


@case_of_two
async def records_of_others_are_heard(kit: Kit) -> None:
    """A listener hears of what another handle stores, in every session, the newest version too."""
    sessions = [SessionKey("acme", f"s{number} ü:/{{}}%") for number in range(20)]
    ear = await _listening(kit)
    if ear is None:
        return
    for _ in range(3):
        outcomes = await kit.other.append([behind(session) for session in sessions])
        assert all(isinstance(outcome, Appended) for outcome in outcomes), outcomes
    await kit.other.append([behind(SessionKey("another tenant", "s1"))])
    await ear.until(lambda: all(ear.newest.get(session) == 3 for session in sessions) and SessionKey("another tenant", "s1") in ear.newest)
