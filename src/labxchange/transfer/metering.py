"""Rates over the last second or so, of counters that only grow. Pure: time is an argument."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 1.0


class Meter:
    """Adds up, and says how much came in the last ``window_s``."""

    def __init__(self, *, window_s: float = WINDOW_S) -> None:
        self.total = 0.0
        self._window_s = window_s
        self._marks: deque[tuple[float, float]] = deque()

    def add(self, amount: float, now: float) -> None:
        """So much more."""
        self.reach(self.total + amount, now)

    def reach(self, total: float, now: float) -> None:
        """So much in all."""
        self._forget(now)
        if not self._marks:
            self._marks.append((now, self.total))
        self.total = total
        self._marks.append((now, total))

    def in_window(self, now: float) -> float:
        """How much came in the window, or since the beginning."""
        self._forget(now)
        return self.total - self._marks[0][1] if self._marks else 0.0

    def per_second(self, now: float) -> float:
        """The same as a rate, also before the window has passed."""
        self._forget(now)
        span_s = now - self._marks[0][0] if self._marks else 0.0
        return self.in_window(now) / span_s if span_s > 0 else 0.0

    def _forget(self, now: float) -> None:
        """The newest mark that is a window old stays: what came since is asked for."""
        while len(self._marks) > 1 and now - self._marks[1][0] >= self._window_s:
            self._marks.popleft()
        if len(self._marks) == 1 and now - self._marks[0][0] > self._window_s:
            self._marks[0] = (now - self._window_s, self.total)
