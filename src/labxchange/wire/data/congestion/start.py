"""The start of ``fair``: double the rate each round trip, and notice when that no longer brings more.

The window grows by what is acknowledged, as in TCP's slow start, but is paced. When the queue grows is for ``fair`` to see.
"""

from __future__ import annotations

import math

from labxchange.wire.data.congestion.path import Round

START_BYTES = 32 * 1_200
"""In the first round trip."""

GAIN = 1 / math.log(2)
"""What is paced at this many windows a round trip, with each byte acknowledged added to the window, doubles each round trip."""

GROWTH, FLAT_ROUNDS = 1.25, 3
"""It is over when arrivals grew less than this in so many rounds; in one, when more was lost than by chance."""


class Start:
    """How much may be sent before the path is known."""

    __slots__ = ("_best", "_flat_rounds", "_window")

    def __init__(self) -> None:
        self._window: float = START_BYTES
        self._best = 0.0
        self._flat_rounds = 0

    @property
    def window_bytes(self) -> int:
        """Twice what is paced in a round trip: the pacing is what bounds it."""
        return int(2 * self._window)

    def rate_bytes_s(self, rtt_s: float) -> float:
        """Pace at this rate."""
        return GAIN * self._window / rtt_s

    def grow(self, acked_bytes: float) -> None:
        """So much was acknowledged, or lost by chance."""
        self._window += acked_bytes

    def is_over(self, ended: Round, now: float, *, lossy: bool) -> bool:
        """Whether what this round brought says that the path carries no more."""
        arrived = ended.acked / (now - ended.started_at)
        flat = arrived < GROWTH * self._best
        if not flat:
            self._best, self._flat_rounds = arrived, 0
        elif not ended.limited:
            self._flat_rounds += 1
        return self._flat_rounds >= FLAT_ROUNDS or (lossy and flat)
