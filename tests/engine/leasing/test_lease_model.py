"""Holders, challengers, lost answers, forced ends and lives, played on simulated clocks; and each rule switched off once, and found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.backends.spi import Append, Head
from perdure.codec import records
from perdure.engine.leasing import rules
from perdure.engine.leasing.leases import Leases
from perdure.engine.write import controls, resolve
from perdure.engine.write.controls import Basis, ControlCommits
from perdure.model import epoch as epochs
from perdure.model import fence
from perdure.model.epoch import is_challenged, is_held
from perdure.model.fence import Fence
from tests.support.engine.lease_world import ACTIONS, BrokenRule, World, play, random_steps

STEPS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2), st.integers(0, 59)), max_size=120)


@settings(max_examples=60)
@given(st.integers(0, 1 << 30), STEPS)
def test_every_play_keeps_the_rules(seed: int, steps: list[Any]) -> None:
    """Whoever is paused, dies, loses answers or comes back: no write under a lease that was lost, no holder that answers deposed, no
    lease that nobody gets in the end."""
    play(seed, steps)


@pytest.mark.parametrize("seed", range(30))
def test_long_plays(seed: int) -> None:
    """The same for plays of 300 steps."""
    play(seed, random_steps(seed, 300))


@pytest.mark.slow("minutes: 100,000 steps")
@pytest.mark.timeout(3_000)
def test_a_hundred_thousand_steps() -> None:
    """The same for more plays than a commit has to wait for."""
    for seed in range(1000, 1200):
        play(seed, random_steps(seed, 500))


@pytest.fixture
def short_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease can be challenged three times only, before it needs a new grant."""
    for module in (epochs, rules, fence):
        monkeypatch.setattr(module, "SEQUENCE_MAX", 5)
    monkeypatch.setattr(World, "sequence_end", 5)


@pytest.mark.parametrize("seed", range(20))
def test_plays_in_which_the_sequence_ends(short_sequence: None, seed: int) -> None:
    """A holder whose sequence is used up takes a new grant, and keeps its lease."""
    play(seed, random_steps(seed, 200))


Patch = pytest.MonkeyPatch


def _impatient(patch: Patch) -> None:
    patch.setattr(rules, "may_take", lambda basis, seen, now: not is_held(basis.head.epoch) or is_challenged(basis.head.epoch))


def _unchallenged(patch: Patch) -> None:
    def may_take(basis: Basis, seen: Any, now: float) -> bool:
        return not is_held(basis.head.epoch) or (seen is not None and seen.epoch == basis.head.epoch and now - seen.since >= 30)

    patch.setattr(rules, "may_take", may_take)


def _old_sight(patch: Patch) -> None:
    patch.setattr(rules, "see", lambda before, epoch, now: rules.Seen(epoch, now if before is None else before.since, None))


def _silent(patch: Patch) -> None:
    async def judge(self: Leases, lease: Any, head: Head | None, began: float) -> None:
        lease.reached(began)

    patch.setattr(Leases, "_judge", judge)


def _mute_writer(patch: Patch) -> None:
    def epoch_after(session: Any, head: Head | None, held: Fence | None) -> int | None:
        fence.epoch_after(session, head, held)
        return None

    patch.setattr(resolve, "epoch_after", epoch_after)


def _no_fence(patch: Patch) -> None:
    patch.setattr(Fence, "admits", lambda self, head: head is not None)


def _any_grant(patch: Patch) -> None:
    patch.setattr(Fence, "admits", lambda self, head: head is not None and is_held(head.epoch))


def _same_grant(patch: Patch) -> None:
    patch.setattr(rules, "granted", lambda epoch, step, *, exclusive: epochs.granted(epoch, 0, exclusive=exclusive))


def _low_release(patch: Patch) -> None:
    patch.setattr(rules, "raised", lambda epoch, step: epoch)


def _immortal(patch: Patch) -> None:
    patch.setattr(controls, "raised", lambda epoch, step: epoch if step else epochs.raised(epoch, 0))


def _double_challenge(patch: Patch) -> None:
    patch.setattr(rules, "may_challenge", lambda basis, seen, now, pause: is_held(basis.head.epoch))


def _challenge_unasked(patch: Patch) -> None:
    asking = Leases.attempt
    patch.setattr(Leases, "attempt", lambda self, session, claim, *, ask: asking(self, session, claim, ask=True))


def _shared(patch: Patch) -> None:
    patch.setattr(fence, "check_exclusive", lambda session, head: None)


def _stranger(patch: Patch) -> None:
    patch.setattr(rules, "is_own", lambda basis, claim: True)


def _forgetful(patch: Patch) -> None:
    patch.setattr(rules, "is_own", lambda basis, claim: False)


def _held_fork(patch: Patch) -> None:
    patch.setattr(records, "raised", lambda epoch, step: epoch)


def _any_epoch(patch: Patch) -> None:
    """What was decided on an epoch follows another one too."""
    making = ControlCommits._append_of

    def append_of(self: ControlCommits, session: Any, basis: Basis, *rest: Any, **options: Any) -> Append:
        append = making(self, session, basis, *rest, **options)

        def finish(head: Head | None) -> Any:
            return append.finish(head and msgspec.structs.replace(head, epoch=basis.head.epoch))

        return msgspec.structs.replace(append, finish=finish)

    patch.setattr(ControlCommits, "_append_of", append_of)


def _no_new_grant(patch: Patch) -> None:
    patch.setattr(rules, "needs_grant", lambda epoch: False)
    patch.setattr(rules, "answered", lambda epoch: epoch)


MUTANTS: dict[str, Callable[[Patch], None]] = {
    "a challenge need not stand for a ttl": _impatient,
    "a lease is taken without a challenge": _unchallenged,
    "an answer does not begin the wait again": _old_sight,
    "a holder does not answer": _silent,
    "a write under the lease does not answer": _mute_writer,
    "a write under a lease is not fenced": _no_fence,
    "a write fits any lease": _any_grant,
    "a take does not raise the grant": _same_grant,
    "a release changes nothing": _low_release,
    "a tombstone does not raise the grant": _immortal,
    "what is challenged is challenged again": _double_challenge,
    "wait=0 challenges": _challenge_unasked,
    "an exclusive lease is not exclusive": _shared,
    "everybody takes the lease for his own": _stranger,
    "a take whose answer was lost is not known": _forgetful,
    "a fork is held": _held_fork,
    "an epoch that was not seen is followed": _any_epoch,
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_rule_is_needed(monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    """With the rule switched off, a play breaks, and tells how: the model would see it."""
    MUTANTS[mutant](monkeypatch)
    _broken(mutant)


def test_the_new_grant_at_the_end_of_a_sequence_is_needed(monkeypatch: pytest.MonkeyPatch, short_sequence: None) -> None:
    """Without it a holder that answers is deposed."""
    _no_new_grant(monkeypatch)
    _broken("no new grant")


def _broken(mutant: str) -> None:
    for seed in range(200):
        try:
            play(seed, random_steps(seed, 200))
        except BrokenRule:
            return
    raise AssertionError(f"No play found out: {mutant}.")
