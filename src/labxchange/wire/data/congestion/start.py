"""The start of ``fair``: 2.5 times the rate each round trip, or 4 ms, and notice when that no longer brings more.

The first round trip is paced too, at a rate that hardly any path in use is below, so that a long way costs no more round trips
than a short one. The window then grows by one and a half of what is acknowledged.
"""

from __future__ import annotations

import math

from labxchange.wire.data.congestion.path import BEHIND_BYTES, Path, Round

START_BYTES = 32 * 1_200
"""In the first round trip, however short it is."""

START_BYTES_S, START_S = 1.25e6, 0.2
"""The rate before one is known, and for how long at most while nothing is heard."""

TIMES, GROW = 2.5, 1.5
GAIN = TIMES * math.log(TIMES) / GROW
"""A window that grows by GROW of each byte acknowledged, of which GAIN is paced in a round trip, is TIMES as large after each:
the rate e^(at) has a = GAIN x GROW x e^-a, and a = ln TIMES."""

SPAN_MIN_S = 0.004
"""A round trip is taken for no shorter: nobody would see in time what the rate has become. Reports are 4 ms apart."""

AHEAD = 6.0
"""At most so many times what was seen to arrive is sent, which is what was sent up to two round trips ago: without that the rate
would grow without end on a short way that is faster than the machine."""

QUEUE_SHARE, JITTERS, QUEUE_MIN_S = 1 / 16, 1.25, 0.002
"""A queue of so much of the round trip, and so many times its jitter, ends it."""

EARLY_SHARE, EARLY_ROUNDS = 1 / 64, 2
"""So does this much above the longest wait of the round before: what stood there already is no queue of ours. At 2.5 times a
round trip each moment that the queue is seen later costs."""

GROWTH, FLAT_ROUNDS = 1.25, 3
"""It is over when arrivals grew less than this in so many rounds; in one, when more was lost than by chance."""


class Start:
    """How much may be sent before the path is known."""

    __slots__ = ("_best", "_flat_rounds", "_rounds", "_waited_s", "_window")

    def __init__(self) -> None:
        self._window = 0.0
        self._best = 0.0
        self._flat_rounds = 0
        self._rounds = 0
        self._waited_s = 0.0

    def window_bytes(self, rtt_s: float | None, *, arriving_bytes_s: float) -> int:
        """More than what is paced in a round trip: the pacing is what bounds it, and what a receiver that is busy can hold."""
        if rtt_s is None:
            return int(START_BYTES_S * START_S)
        return int(min(2 * self._base(_span_s(rtt_s)), AHEAD * arriving_bytes_s * rtt_s + BEHIND_BYTES))

    def rate_bytes_s(self, rtt_s: float | None, *, arriving_bytes_s: float) -> float:
        """Pace at this rate; ``arriving_bytes_s`` is 0.0 until one is known."""
        if rtt_s is None:
            return START_BYTES_S
        rate = GAIN * self._base(_span_s(rtt_s)) / _span_s(rtt_s)
        return min(rate, AHEAD * (arriving_bytes_s + START_BYTES / rtt_s)) if arriving_bytes_s else rate

    def _base(self, span_s: float) -> float:
        return max(START_BYTES, START_BYTES_S * span_s / GAIN) + self._window

    def grow(self, acked_bytes: float) -> None:
        """So much was acknowledged, or lost by chance."""
        self._window += GROW * acked_bytes

    def queue_limit_s(self, path: Path) -> float:
        """A longer queue says that the path carries no more."""
        if not self._rounds:
            return math.inf  # nothing of ours is in it
        limit_s = max(path.span_s * QUEUE_SHARE, QUEUE_MIN_S) + JITTERS * path.jitter_s
        if self._rounds < EARLY_ROUNDS:
            return limit_s
        return min(limit_s, self._waited_s + max(path.span_s * EARLY_SHARE, QUEUE_MIN_S))

    def is_over(self, ended: Round, now: float, *, path: Path, lossy: bool) -> bool:
        """Whether what this round brought says so."""
        self._rounds += 1
        self._waited_s = ended.rtt_max_s - (path.rtt_min_s or 0.0)
        arrived = ended.acked / (now - ended.started_at)
        flat = arrived < GROWTH * self._best
        if not flat:
            self._best, self._flat_rounds = arrived, 0
        elif not ended.limited:
            self._flat_rounds += 1
        return self._flat_rounds >= FLAT_ROUNDS or (lossy and flat)


def _span_s(rtt_s: float) -> float:
    return max(rtt_s, SPAN_MIN_S)
