"""The default: as fast as the path carries, whatever it loses by chance, and a fair share of it where others send too.

Loss alone does not slow a lane down; a queue that grows does, and loss that exceeds what the path loses without a queue.

1. *Start*: the rate grows 2.5 times each round trip until the queue grows, arrivals stop growing, or more is lost than by chance.
2. *Drain*: what is too much in flight is waited for.
3. *Quiet*: the lane keeps a queue of a few milliseconds, so that the link never runs empty: it sends more while the queue is
   shorter, less while it is longer. Each lane adds a few packets of its own to the queue that it keeps, and slow ones aim at
   more, so lanes that meet come to equal rates. Now and then it pushes for a round trip, to find out whether the path carries
   more, and takes as much back in the next.
4. *Contested*: a ``Look`` found others, who fill the queue whatever is done. The lane then sends at the highest rate that arrived
   in ten round trips, pushes by a quarter, and keeps in flight what a flow has that holds its part of a queue nearly as deep as
   the deepest that was seen; or deeper, while the look says that it has much less than half of the link.

Facts are from the drafts of BBR (rate as a windowed maximum, round trip as a minimum, pushing by a quarter), LEDBAT and Copa (a
small queue as the aim, packets of one's own in it); ``docs/explain/rate-control.md`` has the reasons and what was measured.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum

from labxchange.wire.data.congestion import Feedback
from labxchange.wire.data.congestion.look import LOOK_GAIN, Look, Verdict
from labxchange.wire.data.congestion.path import BEHIND_BYTES, LOSS_MAX, ROUND_MIN_S, RTT_MEMORY_S, Path, Round
from labxchange.wire.data.congestion.start import START_BYTES, Start

DATAGRAM_BYTES = 1_200
RTT_FIRST_S = 0.1
"""Taken for the round trip until one was measured."""

REPORT_S = 0.010
"""The longest that a report is held."""

BEHIND_S = 0.030
"""So long a receiver may be late with its reports, as far as ``BEHIND_BYTES`` go."""

START_EMPTY_S = 0.001
"""A queue that never was longer while the rate grew did not make what was lost, unless that is very much."""

DRAIN_ROUNDS, SETTLE_ROUNDS = 4, 2
"""The drain takes no longer; what is reported in the rounds after it was sent before its end."""

QUEUE_SHARE, QUEUE_MIN_S, QUEUE_MAX_S = 1 / 20, 0.002, 0.005
"""The queue that a lane alone keeps at 1 Gbit/s, as a part of the round trip, within these bounds."""

OCTAVE, OCTAVE_BYTES_S = 0.3, 125e6
"""That queue is longer by this part for each halving of the rate below 1 Gbit/s."""

OWN_PACKETS = 8
"""A lane keeps these in the queue beside; at 10 Mbit/s they are 8 ms, and make lanes equal."""

PROPORTIONAL, INTEGRAL = 0.5, 0.1
"""How much of a wrong queue is put right within a round trip, and how much of that stays. Smooth for ten lanes on one link."""

STEADY_MAX, STEADY_MIN, INTEGRAL_MAX = 1.05, 0.75, 0.02
"""Within these bounds, a round trip."""

LEAD, LEAD_BYTES_S = 1.1, 250e6
"""The pace leads what arrives by no more; on a short way, faster than 2 Gbit/s and without a queue, by as much within a round:
it was the receiver that was busy."""

ROUNDS_A_CYCLE, ROUNDS_VARY = 6, 5
"""From one push to the next: six to ten rounds."""

PUSH, PUSH_MIN, PUSH_MAX, PUSH_QUEUE_S = 0.25, 0.04, 1.0, 0.012
"""Push by a quarter, but not so that the queue grows by more than 12 ms; twice as much each time that the path carried it."""

GREW = 0.6
"""A push was carried when arrivals grew by this part of it while hardly a queue was seen."""

LOSS_MARGIN = 0.01
"""More than so much beyond chance, and beyond what may be noise, is excess."""

CROWDED_QUEUES, CROWDED_EXCESS, CROWDED_ROUNDS = 1.5, 0.03, 10
"""A queue of more than so many times the lane's own, or such excess loss, calls for a look after so many rounds; a round without
counts half against it."""

SNAP = 0.9
"""When less than this part of what was sent arrives through a long queue, the lane goes on at the rate of the arrivals."""

CONTESTED_GAINS = (1.25, 0.75, 1.0)
QUEUE_PART_MIN, QUEUE_PART_MAX = 0.9, 1.4
SHARE_ENOUGH, SHARE_SHORT = 0.45, 0.25
"""Of the deepest queue seen: what is kept in flight by a lane that has 45 % of the link, and by one that has 20 % or less."""

OVER = 1.25
"""While more is lost than by chance: at most this much more than what arrived lately."""

LOW_GAIN, EXCESS, DIP, SHALLOW = 0.97, 5.0, 0.10, 0.06
"""What is lost at 97 % of the rate or less is lost by chance. What is lost beyond that lowers the rate as a queue of five such
parts of a round trip would; where the queue is shallower than 6 % of one, a push is followed by a tenth less, to tell the two
apart."""

WAKE_MIN = 1 / 16
"""Of the rate, while nothing is heard."""


class _Mode(Enum):
    START = "start"
    DRAIN = "drain"
    SETTLE = "settle"
    QUIET = "quiet"
    CONTESTED = "contested"


class Fair:
    """The strategy. ``cap_bytes_s`` bounds the rate from above and may change at any time; None is no bound."""

    def __init__(self, *, cap_bytes_s: float | None = None) -> None:
        self.cap_bytes_s = cap_bytes_s
        self._begin()

    def _begin(self) -> None:
        self._path = Path()
        self._look = Look()
        self._mode = _Mode.START
        self._start = Start()
        self._drain_round = self._settling = 0
        self._arriving: deque[float] = deque(maxlen=3)
        self._pace = 0.0
        self._gain = self._gain_before = self._wake = 1.0
        self._round_of_cycle, self._cycle = 2, ROUNDS_A_CYCLE
        self._push, self._before_push = PUSH, 0.0
        self._shallow_s: float | None = None
        self._crowded, self._before_crowd = 0.0, 0.0
        self._lossy_rounds = 0
        self._settle()

    # --- what is asked ------------------------------------------------------------------------------------------------
    @property
    def rate_bytes_s(self) -> float:
        """Pace at this rate."""
        return self._wanted if self.cap_bytes_s is None else min(self._wanted, self.cap_bytes_s)

    def _settle(self) -> None:
        """Each batch asks for these, and they change with reports only."""
        self._wanted, self.window_bytes = self._next_wanted(), self._next_window()

    def _next_window(self) -> int:
        rtt = self._path.rtt_min_s
        if rtt is None or self._mode is _Mode.START:
            return int(self._wake * self._start.window_bytes(rtt, arriving_bytes_s=self._path.delivery_bytes_s))
        queue_s = 0.5 * rtt + min(BEHIND_S, BEHIND_BYTES / max(self._base, 1.0))
        if self._mode is _Mode.DRAIN:
            queue_s = 0.010 + min(rtt / 8, 0.020)
        elif self._mode is _Mode.CONTESTED:
            short = min(max((SHARE_ENOUGH - self._look.share) / SHARE_SHORT, 0.0), 1.0)
            queue_s = (QUEUE_PART_MIN + (QUEUE_PART_MAX - QUEUE_PART_MIN) * short) * self._path.depth_s + 0.005
        return max(int(self._wake * self._base * (rtt + queue_s)), START_BYTES)

    def _next_wanted(self) -> float:
        rtt, rate = self._path.rtt_min_s, self._gain * self._base
        if self._mode is _Mode.START:
            rate = self._start.rate_bytes_s(rtt, arriving_bytes_s=self._path.delivery_bytes_s)
        return max(self._wake * rate, 2 * DATAGRAM_BYTES / (rtt or RTT_FIRST_S))

    @property
    def _base(self) -> float:
        return self._pace if self._mode is _Mode.QUIET else self._carried

    @property
    def _carried(self) -> float:
        """What is to be sent so that as much arrives as the path is known to deliver."""
        rate = self._path.delivery_bytes_s
        if self._lossy_rounds and len(self._arriving) == 3:
            rate = min(rate, OVER * max(self._arriving))
        return rate / (1.0 - self._path.loss)

    @property
    def _alone_s(self) -> float:
        """The queue that one lane keeps; a quarter of the deepest one at most, where more was seen to be dropped."""
        queue_s = min(max(self._path.span_s * QUEUE_SHARE, QUEUE_MIN_S), QUEUE_MAX_S)
        queue_s *= min(max(1.0 + OCTAVE * math.log2(OCTAVE_BYTES_S / max(self._base, 1.0)), 0.5), 4.0)
        return queue_s if self._shallow_s is None else min(queue_s, self._shallow_s / 4)

    @property
    def _aim_s(self) -> float:
        return self._alone_s + OWN_PACKETS * DATAGRAM_BYTES / max(self._base, DATAGRAM_BYTES)

    # --- what is told -------------------------------------------------------------------------------------------------
    def on_feedback(self, feedback: Feedback) -> None:
        """A report came."""
        self._take(feedback)
        self._settle()

    def _take(self, feedback: Feedback) -> None:
        path, now = self._path, feedback.now
        # A cap, too, hides what the path could carry: nothing is forgotten, and nothing grows, while one holds the lane back.
        limited = feedback.limited or (self.cap_bytes_s is not None and self.cap_bytes_s < self._wanted)
        ended = path.add(feedback, limited=limited)
        if feedback.rtt_s is not None:
            verdict = self._look.saw(now, feedback.rtt_s, lost=feedback.lost_packets > 0, path=path)
            if verdict is not None:
                self._found(verdict, now)
        if path.rtt_min_s is None:
            return
        if self._mode is _Mode.START:
            if not limited:
                self._start.grow(feedback.acked_bytes / (1.0 - path.loss))  # or what is lost by chance slows the start
            if path.queue_s > self._start.queue_limit_s(path):
                self._drain()
        elif self._mode is _Mode.DRAIN:
            # A report is held for a quarter of a round trip; what arrives meanwhile is in flight too.
            drained = feedback.in_flight_bytes <= self._base * (path.rtt_min_s + min(path.rtt_min_s / 4, REPORT_S))
            if drained or path.rounds - self._drain_round >= DRAIN_ROUNDS:
                self._mode, self._settling = _Mode.SETTLE, SETTLE_ROUNDS
        if ended is not None and ended.acked:
            self._on_round(ended, now)

    def on_silence(self, now: float) -> None:
        """Nearly stop; each round trip that is reported then doubles the rate, up to what it was."""
        self._wake = max(self._wake / 4, WAKE_MIN)
        self._gain, self._round_of_cycle = 1.0, 2
        self._settle()

    def on_new_path(self, now: float) -> None:
        """What was learned of the path is void."""
        self._begin()

    def _on_round(self, ended: Round, now: float) -> None:
        path, queue_s = self._path, ended.rtt_min_s - (self._path.rtt_min_s or 0.0)
        if self._wake < 1.0:
            self._wake = min(2 * self._wake, 1.0)
            return
        sent = ended.acked + ended.lost
        chance = LOSS_MARGIN + 3 * math.sqrt(max(path.loss, 1 / sent) / sent)
        lossy = ended.loss > path.loss + chance
        self._lossy_rounds = self._lossy_rounds + 1 if lossy else 0
        queue_max_s = ended.rtt_max_s - (path.rtt_min_s or 0.0)
        if self._shallow_s is not None or (lossy and (queue_max_s > self._aim_s or path.excess > CROWDED_EXCESS / 2)):
            self._shallow_s = max(queue_max_s, self._shallow_s or 0.0)
        if self._gain_before >= 1.0 and not ended.limited:
            self._arriving.append(ended.rate_bytes_s)
        if self._mode is _Mode.START:  # while no queue stood, little enough was sent
            low = not lossy or (queue_max_s < START_EMPTY_S + path.jitter_s and ended.loss < 2 * LOSS_MAX)
        else:
            low = self._gain_before <= LOW_GAIN
        if low and queue_s < 1.5 * self._aim_s:
            path.learn_loss(ended, by_chance=True)
        if self._mode is _Mode.QUIET and queue_max_s < 2 * self._aim_s:
            path.learn_loss(ended, by_chance=False)
        if self._mode is _Mode.START:
            if self._start.is_over(ended, now, path=path, lossy=lossy):
                self._drain()
        elif self._mode is _Mode.SETTLE:
            self._pace = self._carried
            self._settling -= 1
            self._mode = _Mode.SETTLE if self._settling else _Mode.QUIET
        elif self._mode is not _Mode.DRAIN:
            self._judge_queue(ended, queue_s)
            self._gain_before, self._gain = self._gain, self._next_gain(ended, queue_s, now)

    def _drain(self) -> None:
        self._mode, self._drain_round = _Mode.DRAIN, self._path.rounds

    def _judge_queue(self, ended: Round, queue_s: float) -> None:
        """Gather what speaks for a queue that others fill."""
        if self._mode is _Mode.CONTESTED or self._look.open:
            return
        if queue_s <= CROWDED_QUEUES * self._alone_s and self._path.excess < CROWDED_EXCESS:
            self._crowded = max(self._crowded - 0.5, 0.0)
            return
        if not self._crowded:
            self._before_crowd = self._path.delivery_bytes_s
        self._crowded = min(self._crowded + 1.0, 2 * CROWDED_ROUNDS)
        arriving = ended.rate_bytes_s / (1.0 - self._path.loss)
        long = queue_s > CROWDED_QUEUES * self._alone_s
        if ended.rate_bytes_s and long and arriving < SNAP * self._gain_before * self._pace and not ended.limited:
            self._pace = arriving
            self._path.lower(ended.rate_bytes_s)

    def _found(self, verdict: Verdict, now: float) -> None:
        """A look ended."""
        self._round_of_cycle, self._crowded = 2, 0.0
        if verdict is Verdict.OURS:
            if self._mode is _Mode.CONTESTED:
                self._pace = min(self._carried, max(self._arriving, default=math.inf) / (1.0 - self._path.loss))
            self._mode = _Mode.QUIET
            return
        if verdict is Verdict.LONGER:
            self._path.accept_rtt(now)
        self._path.restore(self._before_crowd)
        self._pace = self._carried
        self._mode = _Mode.CONTESTED if verdict is Verdict.OTHERS else _Mode.QUIET

    def _next_gain(self, ended: Round, queue_s: float, now: float) -> float:
        path = self._path
        self._round_of_cycle += 1
        if self._round_of_cycle >= self._cycle:
            # Varies by what happened to be acknowledged, so that lanes do not push at the same moments for ever.
            self._round_of_cycle, self._cycle = 0, ROUNDS_A_CYCLE + ended.acked % ROUNDS_VARY
        contested = self._mode is _Mode.CONTESTED
        stale = now - path.rtt_min_at > RTT_MEMORY_S
        if self._look.due(now, path) and (contested or stale or self._crowded >= CROWDED_ROUNDS):
            if contested or not self._crowded:
                self._before_crowd = path.delivery_bytes_s
            self._look.begin(now, queue_s=queue_s, path=path)
        if self._look.open:
            return LOOK_GAIN if self._look.yielding(now) else 1.0
        if contested:
            return CONTESTED_GAINS[min(self._round_of_cycle, 2)]
        return self._quiet_gain(ended, queue_s, now)

    def _quiet_gain(self, ended: Round, queue_s: float, now: float) -> float:
        path, span_s, seen_s = self._path, self._path.span_s, self._path.queue_s
        error = (self._aim_s - seen_s) / (span_s + seen_s)
        if seen_s < self._aim_s / 2:  # a queue that is seen says it all
            error -= EXCESS * path.excess
        error = max(min(error, 0.5), -0.5)
        more = 0.0 if ended.limited else INTEGRAL_MAX
        self._pace = min(self._pace * (1.0 + min(INTEGRAL * error, more)), max(LEAD * self._carried, self._pace * (1 - INTEGRAL)))
        steady = min(max(1.0 + PROPORTIONAL * error, STEADY_MIN), STEADY_MAX)
        if queue_s > 2 * self._aim_s or ended.limited:
            self._round_of_cycle = max(self._round_of_cycle, 2)
            return steady
        if span_s <= ROUND_MIN_S and self._pace > LEAD_BYTES_S and seen_s < self._aim_s / 2 and path.excess < LOSS_MARGIN:
            self._pace = max(self._pace, LEAD * min(self._carried, self._pace))
        if self._round_of_cycle == 0:
            return self._begin_push(
                ended, min(PUSH, (min(span_s / 4, PUSH_QUEUE_S, (self._shallow_s or 1.0) / 2) - queue_s) / span_s)
            )
        if self._round_of_cycle == 1:
            stale = now - path.rtt_min_at > RTT_MEMORY_S / 2
            back = min(self._push, PUSH) + (queue_s / (span_s + queue_s) if stale else 0.0)
            shallow = self._shallow_s is not None and self._shallow_s < SHALLOW * span_s
            return 1.0 - min(max(back, DIP if shallow else 0.0), 0.5)
        if self._round_of_cycle == 2:
            carried = ended.rate_bytes_s > self._before_push * (1.0 + GREW * self._push)
            if carried and queue_s < max(self._alone_s / 4, 0.001) + path.jitter_s / 2 and path.excess < LOSS_MARGIN:
                self._pace = max(self._pace, self._carried)
                self._round_of_cycle = 0
                return self._begin_push(ended, min(2 * self._push, PUSH_MAX))
        return steady

    def _begin_push(self, ended: Round, push: float) -> float:
        self._push, self._before_push = max(push, PUSH_MIN), ended.rate_bytes_s
        return 1.0 + self._push
