"""Which packet numbers of a lane have come: a ring over the last ones, marked only after a datagram was opened.

A number is fresh when it has not come and is not below the ring. A forged datagram can therefore neither move the window nor
make an honest one look like a repeat.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from labxchange.wire.data.datagram import BATCH_DATAGRAMS

RING: Final = 1 << 17
_MASK: Final = RING - 1
_PLACES: Final = np.arange(BATCH_DATAGRAMS)


def in_ring(first: int, end: int, ring: int) -> slice | NDArray[np.int64]:
    """Where in a ring the numbers [first, end) are: a slice, which is much quicker, unless they go round the end."""
    begin = first % ring
    return slice(begin, begin + end - first) if begin + end - first <= ring else np.arange(first, end) % ring


class Seen:
    """Numbers that came, of one lane and direction; ``newest`` is -1 before the first."""

    def __init__(self) -> None:
        self.newest = -1
        self._ring = np.full(RING, -1, np.int64)

    def fresh(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions in ``numbers`` of those that are new and within the window; of a number that stands there twice the first."""
        count = len(numbers)
        if count and numbers[0] > self.newest and not np.count_nonzero(numbers != numbers[0] + _PLACES[:count]):
            return _PLACES[:count]  # as they were sent: most batches
        new = np.flatnonzero((self._ring[numbers & _MASK] != numbers) & (numbers > self.newest - RING))
        if len(new) > 1 and not (np.diff(numbers[new]) > 0).all():
            _, first = np.unique(numbers[new], return_index=True)
            new = new[np.sort(first)]
        return new

    def is_fresh(self, number: int) -> bool:
        """As ``fresh``, of one."""
        return number > self.newest or (number > self.newest - RING and int(self._ring[number & _MASK]) != number)

    def mark_one(self, number: int) -> None:
        """This one was opened."""
        self.newest = max(self.newest, number)
        self._ring[number & _MASK] = number

    def mark(self, numbers: NDArray[np.int64]) -> None:
        """These were opened."""
        if len(numbers):
            highest = int(numbers.max())
            if highest - int(numbers.min()) >= RING:  # of two numbers a ring apart in one batch the newer one stays
                numbers = np.sort(numbers)
            self.newest = max(self.newest, highest)
            self._ring[numbers & _MASK] = numbers

    def last(self, count: int) -> NDArray[np.bool_]:
        """For each i below ``count``: did number ``newest - i`` come?"""
        end = self.newest + 1
        first = end - min(count, RING, end)
        came: NDArray[np.bool_] = self._ring[in_ring(first, end, RING)] == np.arange(first, end)
        return came[::-1]
