"""Sets of chunk or file numbers as inclusive intervals: how they are stored, asked for and signed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Interval = tuple[int, int]


def of_mask(mask: NDArray[np.bool_]) -> list[Interval]:
    """The runs of True, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(first), int(end) - 1) for first, end in edges.reshape(-1, 2)]


def to_mask(intervals: Iterable[Interval], size: int) -> NDArray[np.bool_]:
    """The set as an array; what lies outside ``size`` is dropped."""
    mask = np.zeros(size, np.bool_)
    for first, last in intervals:
        mask[max(first, 0) : last + 1] = True
    return mask


def of_numbers(numbers: Iterable[int]) -> list[Interval]:
    """Numbers in any order, without repeats, as intervals."""
    out: list[Interval] = []
    for number in sorted(numbers):
        if out and number == out[-1][1] + 1:
            out[-1] = (out[-1][0], number)
        else:
            out.append((number, number))
    return out


def count(intervals: Iterable[Interval]) -> int:
    return sum(last - first + 1 for first, last in intervals)


def without(intervals: Iterable[Interval], taken: Iterable[Interval]) -> list[Interval]:
    """What is in ``intervals`` (in order, apart) and not in ``taken``."""
    out: list[Interval] = []
    gone = sorted(taken)
    for first, last in intervals:
        for begin, end in gone:
            if end < first or begin > last:
                continue
            if begin > first:
                out.append((first, begin - 1))
            first = end + 1
        if first <= last:
            out.append((first, last))
    return out
