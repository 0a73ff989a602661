"""What the reports of one lane tell of its path: how much it delivers, how long its way is, what it loses by chance.

Rules: rates and losses are taken round trip by round trip, one that takes at least 10 ms, since what a report or two say is
noise. Loss counts as chance only where no queue stood. What to do with these figures is left to ``fair``.
"""

from __future__ import annotations

import math
from collections import deque

from labxchange.wire.data.congestion import Feedback

ROUND_MIN_S = 0.010
"""Shorter round trips are taken together."""

RATE_ROUNDS = 10
"""The highest delivery rate of so many is what the path delivers."""

RTT_MEMORY_S = 10.0
CHANCE_PACKETS, CHANCE_WEIGHT = 4_000, 0.25
ALL_PACKETS, ALL_WEIGHT = 4_000, 0.1
"""How soon a change of what is lost is believed: by chance, which few rounds tell of, and in all."""

JITTER_REPORTS = 16
JITTER_OF_THREE = 0.75
"""The shortest of three is about so much of the jitter above the least, when all are equally likely within bounds."""

BEHIND_BYTES = 4 << 20
"""So much may be in flight beyond the round trip, while a receiver is late with its reports. When it is late because it is busy,
no more than twice that fits into its buffers."""

LOSS_MAX = 0.06
"""What is made up for at most: lanes that all made up for what they cause themselves would cause ever more."""


class Round:
    """The sums of one round trip."""

    __slots__ = ("acked", "limited", "lost", "rate_bytes_s", "rtt_max_s", "rtt_min_s", "started_at")

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self.acked = self.lost = 0
        self.rtt_min_s, self.rtt_max_s = float("inf"), 0.0
        self.rate_bytes_s = 0.0
        self.limited = False

    def add(self, feedback: Feedback, *, limited: bool) -> None:
        self.acked += feedback.acked_packets
        self.lost += feedback.lost_packets
        self.limited |= limited
        self.rate_bytes_s = max(self.rate_bytes_s, feedback.delivery_bytes_s)
        if feedback.rtt_s is not None:
            self.rtt_min_s = min(self.rtt_min_s, feedback.rtt_s)
            self.rtt_max_s = max(self.rtt_max_s, feedback.rtt_s)

    @property
    def loss(self) -> float:
        return self.lost / (self.acked + self.lost)


class _Share:
    """What part is lost, as a mean in which a round weighs as its part of so many packets, and so much at most."""

    __slots__ = ("_packets", "_weight", "lost", "sent")

    def __init__(self, packets: int, weight: float) -> None:
        self._packets, self._weight = packets, weight
        self.lost = self.sent = 0.0

    @property
    def share(self) -> float:
        return self.lost / self.sent if self.sent else 0.0

    def add(self, round_: Round) -> None:
        packets = round_.acked + round_.lost
        keep = 1.0 - min(packets / self._packets, self._weight)
        self.lost, self.sent = self.lost * keep + round_.lost, self.sent * keep + packets


class Path:
    """The figures.

    Attributes:
        rounds: how many have ended.
        rtt_min_s: without a queue; None until something was acknowledged.
        rtt_min_at: when it was last seen.
        jitter_s: by how much a report's round trip differs from the mean of its neighbours'.
    """

    __slots__ = (
        "_all",
        "_chance",
        "_deep",
        "_low",
        "_middles",
        "_number",
        "_rates",
        "_recent",
        "current",
        "jitter_s",
        "rounds",
        "rtt_min_at",
        "rtt_min_s",
    )

    def __init__(self) -> None:
        self.rounds = 0
        self.rtt_min_s: float | None = None
        self.rtt_min_at = 0.0
        self.current: Round | None = None
        self._number = 0
        self._rates: deque[tuple[int, float]] = deque()
        self._chance, self._all = _Share(CHANCE_PACKETS, CHANCE_WEIGHT), _Share(ALL_PACKETS, ALL_WEIGHT)
        self._deep: deque[tuple[float, float]] = deque()
        self._low: deque[tuple[float, float]] = deque()
        self._recent: deque[float] = deque(maxlen=3)
        self._middles = 0
        self.jitter_s = 0.0

    @property
    def delivery_bytes_s(self) -> float:
        """The highest rate of the last ten rounds; 0.0 until one is known."""
        return self._rates[0][1] if self._rates else 0.0

    @property
    def loss(self) -> float:
        """The share that is lost by chance: what was lost while less was sent than the path carries."""
        return min(self._chance.share, LOSS_MAX)

    @property
    def excess(self) -> float:
        """The share that is lost beyond that, and beyond what may be noise, at the rate that is sent at."""
        low, high = self._chance, self._all
        noise = 2.0 * math.sqrt(max(low.share, 1e-4) * (1.0 / max(low.sent, 1.0) + 1.0 / max(high.sent, 1.0)))
        return max(high.share - low.share - noise, 0.0)

    @property
    def span_s(self) -> float:
        """How long a round takes at least."""
        return max(self.rtt_min_s or 0.0, ROUND_MIN_S)

    @property
    def depth_s(self) -> float:
        """The longest wait in a queue of the last ten seconds."""
        return max((rtt for _, rtt in self._deep), default=0.0) - (self.rtt_min_s or 0.0) if self._deep else 0.0

    @property
    def rtt_spread_s(self) -> float:
        """Between the longest and the shortest round trip of the last ten seconds."""
        return self._deep[0][1] - self._low[0][1] if self._deep else 0.0

    @property
    def rtt_lowest_s(self) -> float:
        """The shortest round trip of the last ten seconds."""
        return self._low[0][1]

    def add(self, feedback: Feedback, *, limited: bool) -> Round | None:
        """A report came; returns the round that ended with it."""
        now = feedback.now
        ended = None
        if self.current is None:
            self.current, self._number = Round(now), feedback.round
        elif feedback.round != self._number and now - self.current.started_at >= ROUND_MIN_S and self.current.acked:
            ended = self.current
            self.current, self._number = Round(now), feedback.round
            if not ended.limited:  # what was not asked for says nothing of what the path carries, however long
                self.rounds += 1
            while len(self._rates) > 1 and self._rates[0][0] < self.rounds - RATE_ROUNDS:
                self._rates.popleft()
        self.current.add(feedback, limited=limited)
        if feedback.rtt_s is not None:
            self._add_rtt(feedback.rtt_s, now)
        rate = feedback.delivery_bytes_s
        if rate > 0.0 and (not limited or rate > self.delivery_bytes_s):
            while self._rates and self._rates[-1][1] <= rate:
                self._rates.pop()
            self._rates.append((self.rounds, rate))
        return ended

    @property
    def queue_s(self) -> float:
        """How long packets wait now: the shortest of three reports, less what that is above the least by jitter alone."""
        if not self._recent or self.rtt_min_s is None:
            return 0.0
        return max(min(self._recent) - self.rtt_min_s - JITTER_OF_THREE * self.jitter_s, 0.0)

    def _add_rtt(self, rtt_s: float, now: float) -> None:
        self._recent.append(rtt_s)
        if len(self._recent) == 3:
            # What stands out between its neighbours: a queue that grows or drains does not.
            before_s, middle_s, after_s = self._recent
            self._middles += self._middles < JITTER_REPORTS
            self.jitter_s += (abs(middle_s - (before_s + after_s) / 2.0) - self.jitter_s) / self._middles
        if self.rtt_min_s is None or rtt_s <= self.rtt_min_s:
            self.rtt_min_s, self.rtt_min_at = rtt_s, now
        elif rtt_s <= self.rtt_min_s + max(0.02 * self.rtt_min_s, 0.0005):
            self.rtt_min_at = now
        while self._deep and self._deep[-1][1] <= rtt_s:
            self._deep.pop()
        self._deep.append((now, rtt_s))
        while self._low and self._low[-1][1] >= rtt_s:
            self._low.pop()
        self._low.append((now, rtt_s))
        for memory in (self._deep, self._low):
            while memory[0][0] < now - RTT_MEMORY_S:
                memory.popleft()

    def learn_loss(self, round_: Round, *, by_chance: bool) -> None:
        """Count what was lost; ``by_chance`` while less was sent than the path carries, and no queue stood."""
        (self._chance if by_chance else self._all).add(round_)

    def accept_rtt(self, now: float) -> None:
        """The way itself became longer: without a queue it now takes the shortest time of the last ten seconds."""
        self.rtt_min_s, self.rtt_min_at = self._low[0][1], now

    def lower(self, rate_bytes_s: float) -> None:
        """The path delivers less than it did."""
        self._rates.clear()
        self._rates.append((self.rounds, rate_bytes_s))

    def restore(self, rate_bytes_s: float) -> None:
        """What was delivered before less was sent on purpose."""
        if rate_bytes_s > self.delivery_bytes_s:
            self._rates.clear()
            self._rates.append((self.rounds, rate_bytes_s))
