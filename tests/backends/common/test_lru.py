"""The map that keeps what was used last."""

from __future__ import annotations

import threading
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.lru import LruMap

STEPS = st.lists(st.tuples(st.sampled_from(["put", "get", "pop"]), st.integers(0, 5), st.integers(0, 9)), max_size=40)


@given(STEPS, st.integers(0, 12), st.booleans())
def test_it_holds_what_was_used_last_and_no_more_than_fits(steps: list[tuple[str, int, int]], most: int, keep_newest: bool) -> None:
    """After any steps it holds what a plain model holds, in the same order, and its size is the weight of that."""
    lru = LruMap[int, int](most, weigh=lambda value: value, keep_newest=keep_newest)
    model: OrderedDict[int, int] = OrderedDict()
    for step, key, value in steps:
        if step == "put":
            lru.put(key, value)
            model[key] = value
            model.move_to_end(key)
            while sum(model.values()) > most and len(model) > keep_newest:
                model.popitem(last=False)
        elif step == "get":
            assert lru.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        else:
            assert lru.pop(key) == model.pop(key, None)
        assert (list(lru), lru.values(), lru.size, len(lru)) == (list(model), list(model.values()), sum(model.values()), len(model))
        assert all((key in lru) == (key in model) for key in range(6))


def test_without_weights_each_counts_as_one() -> None:
    """Three fit; the one that was read last outlives one that was written later, and the size is their number."""
    lru = LruMap[str, int](3)
    for number, key in enumerate("abc"):
        lru.put(key, number)
    assert lru.get("a") == 0
    lru.put("d", 3)
    assert (list(lru), lru.size) == (["c", "a", "d"], 3)
    lru.clear()
    assert (list(lru), lru.size) == ([], 0)


def test_a_value_that_grew_is_weighed_again_when_it_is_put_again() -> None:
    """The weight that counts is the one at the last put, also where the value itself was changed meanwhile."""
    lru, ids = LruMap[str, set[int]](4, weigh=len, keep_newest=True), {1, 2}
    lru.put("a", ids)
    ids |= {3, 4, 5}
    lru.put("b", {1})
    assert lru.size == 3
    lru.put("a", ids)
    assert (list(lru), lru.size) == (["a"], 5)


def test_an_interrupt_leaves_the_size_right() -> None:
    """A put that is interrupted between keeping a value and weighing it leaves a size that is the weight of what is there."""

    class Interrupted(dict[str, int]):
        def __setitem__(self, key: str, value: int) -> None:
            super().__setitem__(key, value)
            raise KeyboardInterrupt

    lru = LruMap[str, int](100, weigh=lambda value: value)
    lru.put("a", 5)
    lru._weights = Interrupted(lru._weights)
    with pytest.raises(KeyboardInterrupt):
        lru.put("b", 7)
    assert lru.size == sum(lru.values()) == 12
    lru.put("a", 1)
    assert lru.size == 8


def test_threads_that_share_it_never_fail() -> None:
    """Without weights many threads may put, get and remove at once: nothing raises, and no more is kept than fits."""
    lru, failed = LruMap[int, int](3), list[BaseException]()

    def use(seed: int) -> None:
        try:
            for number in range(20_000):
                key = (number * seed) % 7
                lru.put(key, number)
                lru.get((key + 1) % 7)
                lru.pop((key + 2) % 7)
        except BaseException as error:  # noqa: BLE001 - shown below
            failed.append(error)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in (1, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    lru.put(0, 0)
    assert len(lru) <= 3
