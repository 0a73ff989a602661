"""Whose queue is it? Now and then a lane that waits in a queue sends half and looks how fast the queue drains.

When all who share the bottleneck do so at the same time, the queue drains at half of its rate. What it drains less is the share
of others, who do not give way to a growing queue. Lanes of one machine look at the same moments, since these are multiples of a
time on the clock that they have in common: so ten of ours find that none of them is a stranger, and see the round trip without a
queue. What a lane does with the verdict is left to ``fair``.
"""

from __future__ import annotations

from enum import Enum

from labxchange.wire.data.congestion.path import Path

PERIOD_S = 2.5
"""The shortest time between two looks; longer ones are this, doubled, so that they fall together."""

DOUBLINGS = 2
ROUNDS_BETWEEN = 15
LOOK_GAIN = 0.5
"""Of the rate, while looking."""

FAIR_SHARE = 0.5
DRAIN = 0.35
"""A queue that drains slower than this part of the time is held up by others: they have more than 30 % of the link."""

ROUNDS_MIN, ROUNDS_MAX = 2, 8
MARGIN_S = 0.002


class Verdict(Enum):
    """What a look found."""

    OURS = "ours"
    OTHERS = "others"
    LONGER = "longer"
    """It is no queue at all: the way became longer."""


class Look:
    """When to look, for how long, and what was found.

    Attributes:
        share: what this lane, and others of ours, have of the link, by how fast the queue drained.
    """

    __slots__ = ("_asked_at", "_doublings", "_ends_at", "_first", "_lost", "_queue_s", "_started_at", "share")

    def __init__(self) -> None:
        self._asked_at = 0.0
        self._doublings = 0
        self.share = FAIR_SHARE
        self._started_at: float | None = None
        self._ends_at = 0.0
        self._first: tuple[float, float] | None = None
        self._queue_s = 0.0
        self._lost = False

    def due(self, now: float, path: Path) -> bool:
        """Whether a moment to look passed since this was last asked."""
        period = PERIOD_S * 2**self._doublings
        while period < ROUNDS_BETWEEN * path.span_s:
            period *= 2
        passed = int(now / period) != int(self._asked_at / period)
        self._asked_at = now
        return passed and self._started_at is None

    def begin(self, now: float, *, queue_s: float, path: Path) -> None:
        """Send half from now on."""
        rounds = min(max(queue_s / DRAIN / path.span_s, ROUNDS_MIN), ROUNDS_MAX)
        self._started_at, self._ends_at = now, now + rounds * path.span_s
        self._queue_s, self._lost, self._first = queue_s, False, None

    def yielding(self, now: float) -> bool:
        """Whether to send half."""
        return self._started_at is not None and now < self._ends_at

    @property
    def open(self) -> bool:
        """Whether a verdict is still to come."""
        return self._started_at is not None

    def saw(self, now: float, rtt_s: float, *, lost: bool, path: Path) -> Verdict | None:
        """A packet that left a round trip ago found this; the verdict, once it left at the end of the look."""
        if self._started_at is None:
            return None
        self._lost |= lost
        left_at = now - rtt_s
        if self._first is None and left_at >= self._started_at:
            self._first = (left_at, path.queue_s)
        if left_at < self._ends_at:
            return None
        self._started_at = None
        queue_s = path.queue_s
        if queue_s <= MARGIN_S + 0.15 * self._queue_s + path.jitter_s:
            found = Verdict.OURS
        elif not self._lost and path.rtt_spread_s < 0.1 * queue_s:
            found = Verdict.LONGER
        else:
            found = Verdict.OTHERS
        if found is Verdict.OTHERS and self._first is not None and left_at > self._first[0]:
            drained = (self._first[1] - queue_s) / (left_at - self._first[0])
            self.share += (min(max(drained / (1.0 - LOOK_GAIN), 0.0), 1.0) - self.share) / 2
        elif found is not Verdict.OTHERS:
            self.share = FAIR_SHARE
        self._doublings = min(self._doublings + 1, DOUBLINGS) if found is Verdict.OTHERS else 0
        return found
