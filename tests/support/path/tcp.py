"""Cross traffic: flows that behave as Linux's cubic and BBR (version 1) do, as far as sharing a queue goes.

Both acknowledge each train, take a packet for lost when three later ones arrived, and never run out of data. Facts are from
RFC 9438 (cubic), RFC 9406 (HyStart++) and draft-cardwell-iccrg-bbr-congestion-control-00.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.path.link import Train

PACKET_BYTES = 1_200
INITIAL_PACKETS = 10
REORDER_PACKETS = 3
TRAIN_PACKETS = 16
RTO_MIN_S = 0.2


@dataclass(slots=True)
class _Sent:
    first: int
    packets: int
    sent_at: float
    delivered: int
    delivered_at: float
    acked: int = 0


class _Tcp:
    """What both have in common: what is outstanding, what was lost, the round trip; ``allowed`` is the window in packets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rtt_s = 0.1
        self.rtt_min_s = float("inf")
        self.in_flight = 0
        self.delivered = 0
        self.delivered_at = 0.0
        self.next_number = 0
        self.recovery_until = -1
        self._outstanding: deque[_Sent] = deque()
        self._highest = -1
        self._pending: list[tuple[_Sent, int]] = []

    def start(self, now: float) -> None:
        self.now = self.delivered_at = now

    def window(self) -> int:
        raise NotImplementedError

    def pace_at(self) -> float:
        """Not before this time."""
        return self.now

    def sent(self, packets: int, now: float) -> None:
        """So many were sent."""

    def acked(self, sent: _Sent, packets: int, rtt_s: float, now: float) -> None:
        raise NotImplementedError

    def lost(self, packets: int, first: int, now: float) -> None:
        raise NotImplementedError

    def timed_out(self, now: float) -> None:
        raise NotImplementedError

    def _timeout_at(self) -> float:
        return self._outstanding[0].sent_at + max(RTO_MIN_S, 2 * self.rtt_s)

    def next_send_time(self) -> float | None:
        times = [self._timeout_at()] if self._outstanding else []
        if self.in_flight < self.window():
            times.append(self.pace_at())
        return min(times) if times else None

    def send(self, now: float) -> Train | None:
        self.now = now
        if self._outstanding and self._timeout_at() <= now:
            self._outstanding.clear()
            self.in_flight = 0
            self.recovery_until = self.next_number
            self.timed_out(now)
        packets = min(self.window() - self.in_flight, self.train_packets())
        if packets <= 0 or now < self.pace_at():
            return None
        sent = _Sent(self.next_number, packets, now, self.delivered, self.delivered_at if self.in_flight else now)
        self.next_number += packets
        self.in_flight += packets
        self._outstanding.append(sent)
        self.sent(packets, now)
        return Train(packets, PACKET_BYTES, sent)

    def train_packets(self) -> int:
        return TRAIN_PACKETS

    def on_deliver(self, now: float, train: Train, kept: Sequence[int]) -> float | None:
        self._pending.append((train.content, len(kept)))
        return now

    def report(self, now: float) -> list[tuple[_Sent, int]]:
        pending, self._pending = self._pending, []
        return pending

    def on_ack(self, now: float, report: list[tuple[_Sent, int]]) -> None:
        self.now = now
        for sent, kept in report:
            if not self._outstanding or sent.first < self._outstanding[0].first or sent.acked:
                continue
            sent.acked = kept
            self._highest = max(self._highest, sent.first + sent.packets - 1)
            self.in_flight -= kept
            self.delivered += kept
            self.delivered_at = now
            rtt = now - sent.sent_at
            self.rtt_s = 0.875 * self.rtt_s + 0.125 * rtt
            self.rtt_min_s = min(self.rtt_min_s, rtt)
            self.acked(sent, kept, rtt, now)
        while self._outstanding:
            head = self._outstanding[0]
            missing = head.packets - head.acked
            if missing and head.first + head.packets + REORDER_PACKETS > self._highest:
                break
            self._outstanding.popleft()
            if missing:
                self.in_flight -= missing
                self.lost(missing, head.first, now)


class Cubic(_Tcp):
    """Slow start that ends when the queue grows, then cubic growth; 0.7 of the window after a loss, once a round trip."""

    C, BETA = 0.4, 0.7

    def __init__(self) -> None:
        super().__init__()
        self.cwnd = float(INITIAL_PACKETS)
        self.ssthresh = float("inf")
        self.w_max = 0.0
        self.w_reno = 0.0
        self.epoch: float | None = None
        self.k = 0.0

    def window(self) -> int:
        return int(self.cwnd)

    def acked(self, sent: _Sent, packets: int, rtt_s: float, now: float) -> None:
        if sent.first < self.recovery_until:
            return
        if self.cwnd < self.ssthresh:
            self.cwnd += packets
            if rtt_s > self.rtt_min_s + min(max(self.rtt_min_s / 8, 0.004), 0.016) and self.cwnd > 16:
                self.ssthresh = self.cwnd
            return
        if self.epoch is None:
            self.epoch = now
            self.w_max = max(self.w_max, self.cwnd)
            self.k = ((self.w_max - self.cwnd) / self.C) ** (1 / 3)
            self.w_reno = self.cwnd
        self.w_reno += packets / self.cwnd * (3 * (1 - self.BETA) / (1 + self.BETA) if self.w_reno < self.w_max else 1.0)
        target = self.w_max + self.C * (now + self.rtt_s - self.epoch - self.k) ** 3
        target = min(max(target, self.cwnd), 1.5 * self.cwnd)
        self.cwnd += packets * (target - self.cwnd) / self.cwnd
        self.cwnd = max(self.cwnd, self.w_reno)

    def lost(self, packets: int, first: int, now: float) -> None:
        if first < self.recovery_until:
            return
        self.recovery_until = self.next_number
        self.w_max = self.cwnd * (1 + self.BETA) / 2 if self.cwnd < self.w_max else self.cwnd
        self.cwnd = self.ssthresh = max(self.cwnd * self.BETA, 2.0)
        self.epoch = None

    def timed_out(self, now: float) -> None:
        self.ssthresh = max(self.cwnd * self.BETA, 2.0)
        self.w_max, self.cwnd, self.epoch = self.cwnd, 2.0, None


class Bbr(_Tcp):
    """Startup at 2.89, drain, eight phases of 1.25, 0.75 and six of 1, two windows in flight, four packets each ten seconds."""

    HIGH = 2.885
    CYCLE = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self.state = "startup"
        self.round = 0
        self._round_ends = 0
        self._samples: deque[tuple[int, float]] = deque()
        self._full, self._full_rounds = 0.0, 0
        self._phase, self._phase_at = 0, 0.0
        self._lost_in_phase = False
        self._min_s, self._min_at = float("inf"), 0.0
        self._probe_until: float | None = None
        self._next_at = 0.0
        self._cwnd = float(INITIAL_PACKETS)
        self._conserve = False

    def start(self, now: float) -> None:
        super().start(now)
        self._next_at = now

    def bandwidth(self) -> float:
        """Packets a second."""
        return max((rate for _, rate in self._samples), default=INITIAL_PACKETS / 0.001)

    def gain(self) -> float:
        if self.state == "startup":
            return self.HIGH
        return {"drain": 1 / self.HIGH, "probe_rtt": 1.0}.get(self.state, self.CYCLE[self._phase])

    def bdp(self, gain: float) -> float:
        return gain * self.bandwidth() * self._min_s if self._samples else INITIAL_PACKETS

    def window(self) -> int:
        return 4 if self.state == "probe_rtt" else max(int(self._cwnd), 4)

    def pace_at(self) -> float:
        return max(self._next_at, self.now)

    def train_packets(self) -> int:
        return min(TRAIN_PACKETS, max(int(0.001 * self.bandwidth()), 1))

    def sent(self, packets: int, now: float) -> None:
        self._next_at = max(self._next_at, now) + packets / (self.gain() * self.bandwidth())

    def acked(self, sent: _Sent, packets: int, rtt_s: float, now: float) -> None:
        round_start = sent.delivered >= self._round_ends
        if round_start:
            self.round += 1
            self._round_ends = self.delivered
            if self._conserve and sent.first >= self.recovery_until:
                self._conserve = False
        elapsed = now - sent.delivered_at
        if elapsed > 0:
            rate = (self.delivered - sent.delivered) / elapsed
            while self._samples and (self._samples[0][0] < self.round - 10):
                self._samples.popleft()
            while self._samples and self._samples[-1][1] <= rate:
                self._samples.pop()
            self._samples.append((self.round, rate))
        expired = now > self._min_at + 10.0
        if rtt_s <= self._min_s or expired:
            self._min_s, self._min_at = rtt_s, now
        self._advance(round_start, expired, now)
        target = self.bdp(self.HIGH if self.state == "startup" else 2.0) + 3 * self.train_packets()
        if self._conserve:
            self._cwnd = max(self._cwnd, self.in_flight + packets)
        elif self.state != "startup":
            self._cwnd = min(self._cwnd + packets, target)
        else:
            self._cwnd = self._cwnd + packets if self._cwnd < target or self.delivered < INITIAL_PACKETS else self._cwnd

    def _advance(self, round_start: bool, expired: bool, now: float) -> None:
        if self.state == "startup" and round_start:
            if self.bandwidth() >= 1.25 * self._full:
                self._full, self._full_rounds = self.bandwidth(), 0
            else:
                self._full_rounds += 1
                if self._full_rounds >= 3:
                    self.state = "drain"
        if self.state == "drain" and self.in_flight <= self.bdp(1.0):
            self._enter_cycle(now)
        if self.state == "cycle":
            elapsed = now - self._phase_at > self._min_s
            gain = self.CYCLE[self._phase]
            if gain > 1:
                done = elapsed and (self._lost_in_phase or self.in_flight >= self.bdp(1.25))
            elif gain < 1:
                done = elapsed or self.in_flight <= self.bdp(1.0)
            else:
                done = elapsed
            if done:
                self._phase, self._phase_at, self._lost_in_phase = (self._phase + 1) % 8, now, False
        if expired and self.state != "probe_rtt":
            self.state, self._probe_until = "probe_rtt", None
        if self.state == "probe_rtt":
            if self._probe_until is None and self.in_flight <= 4:
                self._probe_until = now + max(0.2, self._min_s)
            elif self._probe_until is not None and now >= self._probe_until:
                self._min_at = now
                if self._full_rounds >= 3:
                    self._enter_cycle(now)
                else:
                    self.state = "startup"

    def _enter_cycle(self, now: float) -> None:
        self.state = "cycle"
        self._phase = self._random.choice((0, 2, 3, 4, 5, 6, 7))
        self._phase_at = now

    def lost(self, packets: int, first: int, now: float) -> None:
        self._lost_in_phase = True
        if first >= self.recovery_until:
            self.recovery_until = self.next_number
            self._conserve = True
            self._cwnd = max(self.in_flight, 4.0)

    def timed_out(self, now: float) -> None:
        self._cwnd, self._conserve = 4.0, False
