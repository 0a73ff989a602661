"""A bounded number of open files, by index; shared by threads.

The least recently used is closed when room is needed; one that is in use never is, so with many threads the bound is exceeded by
at most their number.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock


class Descriptors:
    """Open descriptors by index.

    Args:
        capacity: how many stay open.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = Lock()
        self._open: OrderedDict[int, list[int]] = OrderedDict()  # index -> [descriptor, uses]

    @contextmanager
    def use(self, index: int, opener: Callable[[int], int]) -> Iterator[int]:
        """The descriptor of ``index``, opened by ``opener(index)`` when it is not open; not closed within the block."""
        with self._lock:
            held = self._open.get(index)
            if held is None:
                held = [opener(index), 1]
                self._open[index] = held
                self._shrink()
            else:
                held[1] += 1
                self._open.move_to_end(index)
        try:
            yield held[0]
        finally:
            with self._lock:
                held[1] -= 1
                if held[1] == 0 and self._open.get(index) is not held:
                    os.close(held[0])

    def forget(self, index: int) -> None:
        """Close ``index`` now, or when its last use ends."""
        with self._lock:
            held = self._open.pop(index, None)
            if held is not None and held[1] == 0:
                os.close(held[0])

    def close(self) -> None:
        for index in list(self._open):
            self.forget(index)

    def _shrink(self) -> None:
        if len(self._open) <= self._capacity:
            return
        for index, held in self._open.items():
            if held[1] == 0:
                del self._open[index]
                os.close(held[0])
                return
