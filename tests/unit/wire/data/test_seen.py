"""Which numbers came: against a plain set."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labxchange.wire.data.seen import RING, Seen

NEAR = st.integers(-300, 300)
STEP = st.sampled_from([0, 0, 0, 0, 1, 44, 200, RING - 60, RING - 1, RING, RING + 1, 3 * RING])


def check(seen: Seen, came: set[int], newest: int, numbers: list[int]) -> None:
    fresh = seen.fresh(np.array(numbers, np.int64)).tolist()
    want = {number for number in numbers if number not in came and number > newest - RING}
    assert [numbers[place] for place in fresh] == list(dict.fromkeys(number for number in numbers if number in want))
    assert fresh == [numbers.index(numbers[place]) for place in fresh], "of repeats in a batch the first"
    assert [seen.is_fresh(number) for number in numbers] == [number in want for number in numbers]


@given(batches=st.lists(st.tuples(STEP, st.lists(NEAR, max_size=44), st.integers(0, 2**44)), max_size=25))
@settings(max_examples=80, deadline=None)
def test_like_a_set(batches: list[tuple[int, list[int], int]]) -> None:
    seen, came, newest, base = Seen(), set[int](), -1, 0
    for step, offsets, opened in batches:
        base = min(base + step, 2**32 - 400)
        numbers = [max(base + offset, 0) for offset in offsets]
        check(seen, came, newest, numbers)
        fresh = seen.fresh(np.array(numbers, np.int64)).tolist()
        marked = [numbers[place] for bit, place in enumerate(fresh) if opened >> bit & 1]
        if len(marked) == 1:
            seen.mark_one(marked[0])
        else:
            seen.mark(np.array(marked, np.int64))
        came |= set(marked)
        newest = max([newest, *marked])
        assert seen.newest == newest
        count = min(400, newest + 1)
        assert seen.last(400).tolist() == [newest - place in came for place in range(count)]


@example(start=RING - 10, count=44, again=20)
@given(start=st.integers(0, 2 * RING), count=st.integers(1, 44), again=st.integers(0, 44))
def test_a_batch_as_it_was_sent(start: int, count: int, again: int) -> None:
    """The short way for such a batch says what the long one says."""
    seen = Seen()
    numbers = np.arange(start, start + count)
    assert seen.fresh(numbers).tolist() == list(range(count))
    seen.mark(numbers[:again])
    assert seen.fresh(numbers).tolist() == list(range(min(again, count), count))
    seen.mark(numbers)
    assert seen.fresh(numbers).tolist() == []


def test_what_did_not_open_moves_nothing() -> None:
    seen = Seen()
    seen.mark(np.arange(10))
    forged = np.array([2**32 - 1, 11, 5])
    assert seen.fresh(forged).tolist() == [0, 1]
    assert seen.newest == 9
    assert seen.fresh(np.array([10, 11])).tolist() == [0, 1]
