"""A lane of ours as a model: paced, bound by a window, a status report each quarter of a round trip, resends - no bytes.

It drives a ``Controller`` with the same ``Feedback`` that the real sender gives it. A packet is taken for lost when one that was
sent 128 packets later was acknowledged, or after 1.25 round trips.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labxchange.wire.data.congestion import Controller, Feedback
from tests.support.path.link import Train

DATAGRAM_BYTES = 1_200
"""UDP payload of a packet; the model's links carry nothing else."""

BATCH_PACKETS, BATCH_S = 44, 0.001
REPORT_S, REPORT_PACKETS = 0.010, 1_000
REORDER_PACKETS = 128
PATIENCE_RTT = 1.25
RATE_S = 0.020
"""A delivery rate is taken over the last round trip, and over at least this time."""


@dataclass(slots=True)
class _Sent:
    first: int
    packets: int
    sent_at: float
    acked: int = 0
    given_up: bool = False


@dataclass(slots=True)
class Report:
    trains: list[tuple[_Sent, int]]
    arrived_at: float
    held_s: float


class Lane:
    """Both ends of a lane that has ``total_bytes`` to move, or no end of them."""

    def __init__(
        self, control: Controller, *, total_bytes: int | None = None, rate_limit: Callable[[float], float] | None = None
    ) -> None:
        self.control = control
        self.finished_at: float | None = None
        self.resent_packets = 0
        self.quickest_s = float("inf")
        self.rtt_s: float | None = None
        self._left = -(-total_bytes // DATAGRAM_BYTES) if total_bytes is not None else None
        self._unacked = self._left
        self._application = rate_limit
        self._newest_rtt = 0.0
        self._starved = False
        self._outstanding: deque[_Sent] = deque()
        self._in_flight = 0
        self._next_number = 0
        self._next_at = 0.0
        self._started = 0.0
        self._heard_at = 0.0
        self._round = 0
        self._round_ends = 0
        self._highest = -1
        self._marks: deque[tuple[float, float, int]] = deque()
        self._acked = 0
        self._last_sent = 0.0
        self._now = 0.0
        self._pending: list[tuple[_Sent, int]] = []
        self._report_due = False
        self._arrived_at = 0.0

    # the sender

    def start(self, now: float) -> None:
        self._next_at = self._heard_at = self._started = self._now = now
        self._marks.append((now, 0.0, 0))

    def _patience(self) -> float:
        return PATIENCE_RTT * (max(self.rtt_s, self._newest_rtt) if self.rtt_s is not None else 1.0) + REPORT_S

    def next_send_time(self) -> float | None:
        if self.finished_at is not None:
            return None
        times = []
        if self._outstanding:
            times.append(self._outstanding[0].sent_at + self._patience())
        if self._left != 0 and self._in_flight + DATAGRAM_BYTES <= self.control.window_bytes:
            times.append(self._next_at)
        return min(times) if times else None

    def send(self, now: float) -> Train | None:
        self._now = now
        if self._outstanding and self._outstanding[0].sent_at + self._patience() <= now:
            self._time_out(now)
        if self._left == 0 or self._in_flight + DATAGRAM_BYTES > self.control.window_bytes or now < self._next_at:
            return None
        rate = self.control.rate_bytes_s
        self._starved = False
        if self._application is not None and self._application(now) < rate:
            rate, self._starved = self._application(now), True
        room = (self.control.window_bytes - self._in_flight) // DATAGRAM_BYTES
        packets = max(min(BATCH_PACKETS, int(BATCH_S * rate / DATAGRAM_BYTES), room), 1)
        if self._left is not None:
            packets = min(packets, self._left)
            self._left -= packets
        sent = _Sent(self._next_number, packets, now)
        self._next_number += packets
        self._outstanding.append(sent)
        self._in_flight += packets * DATAGRAM_BYTES
        self._next_at = max(self._next_at, now - BATCH_S) + packets * DATAGRAM_BYTES / rate
        return Train(packets, DATAGRAM_BYTES, sent)

    def _time_out(self, now: float) -> None:
        silent = now - self._heard_at > 3 * self._patience()
        lost = self._take_lost(now)
        if lost and silent:
            self._heard_at = now
            self.control.on_silence(now)
        elif lost:
            self._tell(now, rtt_s=None, acked=0, lost=lost, delivery=0.0)

    def _take_lost(self, now: float) -> int:
        lost = 0
        before = now - self._patience() + 1e-9  # rounding must not keep the timer from ending
        while self._outstanding:
            head = self._outstanding[0]
            missing = head.packets - head.acked
            if missing and head.first + head.packets + REORDER_PACKETS > self._highest and head.sent_at > before:
                break
            self._outstanding.popleft()
            head.given_up = True
            lost += missing
        self._in_flight -= lost * DATAGRAM_BYTES
        self.resent_packets += lost
        if self._left is not None:
            self._left += lost
        return lost

    def on_ack(self, now: float, report: Report) -> None:
        self._heard_at = now
        acked = late = 0
        newest = report.trains[-1][0]
        for sent, kept in report.trains:
            sent.acked = kept
            acked += kept
            late += kept if sent.given_up else 0
            self._highest = max(self._highest, sent.first + sent.packets - 1)
        rtt = now - newest.sent_at - report.held_s
        self._newest_rtt = rtt
        self.rtt_s = rtt if self.rtt_s is None else 0.875 * self.rtt_s + 0.125 * rtt
        if self._left is not None:
            self._left = max(self._left - late, 0)
        self._in_flight -= (acked - late) * DATAGRAM_BYTES
        self._acked += acked * DATAGRAM_BYTES
        delivery = self._delivery(newest.sent_at, report.arrived_at, rtt)
        if newest.first >= self._round_ends:
            self._round += 1
            self._round_ends = self._next_number
        lost = self._take_lost(now)
        self._tell(now, rtt_s=rtt, acked=acked, lost=lost, delivery=delivery)
        if self._unacked is not None:
            self._unacked -= acked
            if self._unacked <= 0:
                self.finished_at = now

    def _delivery(self, sent_at: float, arrived_at: float, rtt: float) -> float:
        """Bytes over the longer of the time in which they left and in which they arrived."""
        span = max(rtt, RATE_S)
        self._marks.append((sent_at, arrived_at, self._acked))
        while len(self._marks) > 2 and self._marks[1][1] <= arrived_at - span:
            self._marks.popleft()
        sent_before, arrived_before, acked_before = self._marks[0]
        if not acked_before:  # nothing arrived before the first report
            arrived_before = arrived_at - (sent_at - sent_before)
        elapsed = max(sent_at - sent_before, arrived_at - arrived_before)
        return (self._acked - acked_before) / elapsed if elapsed > 0 else 0.0

    def _tell(self, now: float, *, rtt_s: float | None, acked: int, lost: int, delivery: float) -> None:
        self.control.on_feedback(
            Feedback(
                now=now,
                rtt_s=rtt_s,
                acked_bytes=acked * DATAGRAM_BYTES,
                acked_packets=acked,
                lost_bytes=lost * DATAGRAM_BYTES,
                lost_packets=lost,
                delivery_bytes_s=delivery,
                in_flight_bytes=self._in_flight,
                limited=self._starved or self._left == 0,
                round=self._round,
            )
        )

    # the receiver

    def on_deliver(self, now: float, train: Train, kept: Sequence[int]) -> float | None:
        self._pending.append((train.content, len(kept)))
        self._arrived_at = now
        self.quickest_s = min(self.quickest_s, now - train.content.sent_at)
        if self._report_due:
            return None
        self._report_due = True
        return now + min((self.rtt_s or 0.0) / 4, REPORT_S)

    def report(self, now: float) -> Report:
        self._report_due = False
        trains, self._pending = self._pending, []
        return Report(trains, self._arrived_at, now - self._arrived_at)
