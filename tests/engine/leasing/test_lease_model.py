"""Holders, challengers, sweepers, lost answers and lives, played on simulated clocks; each rule switched off once, and found."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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
from perdure.model.lifecycle import SECOND
from perdure.ops import session_steps
from tests.support.engine import lease_judge
from tests.support.engine.lease_judge import Judge
from tests.support.engine.lease_story import BrokenRule
from tests.support.engine.lease_world import ACTIONS, SWEPT_ACTIONS, play, play_well, random_steps, shortest

STEPS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2), st.integers(0, 59)), max_size=120)


@pytest.fixture
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweeper looks again after five seconds at a session that is held."""
    monkeypatch.setattr(session_steps, "HELD_DELAY", 5 * SECOND)


@settings(max_examples=60)
@given(st.integers(0, 1 << 30), STEPS)
def test_every_play_keeps_the_rules(seed: int, steps: list[Any]) -> None:
    """Whoever is paused, dies, loses answers or comes back: no write under a lease that was lost, no holder that answers deposed, no
    lease that nobody gets in the end."""
    play(seed, steps)


@pytest.mark.parametrize("seed", range(30))
def test_long_plays(seed: int) -> None:
    """The same for plays of 300 steps."""
    play_well(seed, random_steps(seed, 300))


@pytest.mark.slow("minutes: 100,000 steps")
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("actions", [ACTIONS, SWEPT_ACTIONS], ids=["workers", "and a sweeper"])
def test_a_hundred_thousand_steps(soon_again: None, actions: Sequence[str]) -> None:
    """The same for more plays than a commit has to wait for, without a sweeper and with one."""
    for seed in range(1000, 1200):
        play_well(seed, random_steps(seed, 500, actions))


@pytest.fixture
def short_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease can be challenged three times only, before it needs a new grant."""
    for module in (epochs, rules, fence):
        monkeypatch.setattr(module, "SEQUENCE_MAX", 5)
    monkeypatch.setattr(Judge, "sequence_end", 5)


@pytest.mark.parametrize("seed", range(20))
def test_plays_in_which_the_sequence_ends(short_sequence: None, seed: int) -> None:
    """A holder whose sequence is used up takes a new grant, and keeps its lease."""
    play_well(seed, random_steps(seed, 200))


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
    patch.setattr(rules, "is_as_claimed", lambda basis, claim: True)  # Else a take of another owner is `KeyReused`.


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


def _broken(mutant: str, actions: Sequence[str] = ACTIONS) -> tuple[int, list[Any], BrokenRule]:
    """A play that breaks a rule: its seed and steps, and the story."""
    for seed in range(200):
        steps = random_steps(seed, 200, actions)
        try:
            play(seed, steps)
        except BrokenRule as broken:
            return seed, steps, broken
    raise AssertionError(f"No play found out: {mutant}.")


STORIES = {
    "a challenge need not stand for a ttl": lease_judge.WHOLE_TTL,
    "a lease is taken without a challenge": lease_judge.ASKED,
    "a holder does not answer": lease_judge.ANSWERED,
    "a write fits any lease": lease_judge.FENCED,
}
"""Mutants, and the rule that is broken then."""


@pytest.mark.parametrize("mutant", STORIES)
def test_a_broken_rule_is_told_as_a_story(monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    """Of the steps those are left that are needed; a line says when and who; holder, challenger and tokens have names; at the end stands
    the rule that was broken, and by whom."""
    MUTANTS[mutant](monkeypatch)
    *lines, last = str(shortest(*_broken(mutant))).splitlines()
    assert len(lines) <= 25
    assert all(re.fullmatch(r"t= *\d+\.\ds  (ann|bob|cid|an operator|the engine) .+", line) for line in lines), lines
    end = re.fullmatch(rf"BROKEN RULE: {re.escape(STORIES[mutant])} (\w+) (held|holds) (token \d+)\b.*, and (\w+) .+", last)
    assert end is not None, last
    told = "\n".join(lines)
    holder, held, token, other = end.groups()
    taken = re.findall(r"(\w+) takes the lease of trip-42(?: from (\w+))?, (token \d+), ttl \d+ s", told)
    assert (holder, token) in [(who, which) for who, _, which in taken]
    if held == "held":  # It was taken from its holder.
        assert (other, holder) in [(who, victim) for who, victim, _ in taken]
    assert re.search(r"(ann|bob|cid) challenges (ann|bob|cid), who holds token \d+ \[version \d+\]", told)


@pytest.mark.parametrize("seed", range(20))
def test_plays_with_a_sweeper(soon_again: None, seed: int) -> None:
    """The session is to expire when nobody uses it. A sweeper asks those who hold it; it ends no session that is held, and deposes no
    holder that answers."""
    play_well(seed, random_steps(seed, 300, SWEPT_ACTIONS))


def test_the_sweeper_has_its_part_in_the_plays(soon_again: None) -> None:
    """It challenges, takes leases of the dead, and ends sessions: else the plays would show nothing of it."""
    told = "\n".join("\n".join(play(seed, random_steps(seed, 300, SWEPT_ACTIONS))) for seed in range(20))
    for what in ("challenges", "takes the lease of trip-42 from", "releases", "deletes trip-42"):
        assert f"perdure sweep {what}" in told, what


def test_a_sweeper_that_does_not_care_for_leases_is_found(monkeypatch: pytest.MonkeyPatch, soon_again: None) -> None:
    """With the rule switched off, the story names the holder, and says that the sweeper ended its session."""
    monkeypatch.setattr(session_steps, "lease_forbids", lambda epoch, *, ending: False)
    story = str(shortest(*_broken("the sweeper ends what is held", SWEPT_ACTIONS)))
    last = story.splitlines()[-1]
    assert re.fullmatch(rf"BROKEN RULE: {re.escape(lease_judge.SWEPT)} \w+ holds token \d+, and the sweeper ended .+", last), story
    assert re.search(r"perdure sweep deletes trip-42, which (ann|bob|cid) holds with token \d+", story)
