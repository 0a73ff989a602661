"""Sets of numbers as intervals: each form of a set says the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labxchange.transfer.intervals import count, of_mask, of_numbers, to_mask


@pytest.mark.parametrize(
    ("numbers", "intervals"),
    [
        ([], []),
        ([0], [(0, 0)]),
        ([3, 1, 2], [(1, 3)]),
        ([0, 2, 3, 9], [(0, 0), (2, 3), (9, 9)]),
    ],
)
def test_numbers_become_intervals(numbers: list[int], intervals: list[tuple[int, int]]) -> None:
    assert of_numbers(numbers) == intervals
    assert count(intervals) == len(numbers)


@given(st.sets(st.integers(0, 63)))
@settings(max_examples=200, derandomize=True)
def test_all_forms_agree(numbers: set[int]) -> None:
    mask = np.isin(np.arange(64), sorted(numbers))
    intervals = of_numbers(numbers)
    assert of_mask(mask) == intervals
    assert np.array_equal(to_mask(intervals, 64), mask)
    assert count(intervals) == len(numbers)
    ends = [last for _, last in intervals]
    assert all(first > last + 1 for (first, _), last in zip(intervals[1:], ends[:-1], strict=True)), "no two touch"


def test_what_lies_outside_is_dropped() -> None:
    assert of_mask(to_mask([(-3, 1), (6, 100), (50, 60)], 8)) == [(0, 1), (6, 7)]
    assert of_mask(to_mask([], 0)) == []
