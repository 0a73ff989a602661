"""The default: as fast as the path carries, whatever it loses by chance, and a fair share of it when others use it too.

It models the path by three figures: the rate at which it delivers (the highest of ten round trips), the round trip without a queue
(the lowest of ten seconds), and what it loses while no queue stands. It paces at delivery / (1 - loss).
"""

from __future__ import annotations

from collections import deque

from labxchange.wire.data.congestion import Feedback

DATAGRAM_BYTES = 1_200
START_BYTES = 32 * DATAGRAM_BYTES
ROUND_MIN_S = 0.010
ROUNDS = 10
CYCLE = 8
RTT_MEMORY_S = 10.0


class Fair:
    def __init__(self, *, cap_bytes_s: float | None = None) -> None:
        self.cap_bytes_s = cap_bytes_s
        self._forget()

    def _forget(self) -> None:
        self._state = "start"
        self._window = float(START_BYTES)
        self._rtt_min: float | None = None
        self._rtt_min_at = 0.0
        self._rtt_next = float("inf")  # the lowest of the last half of the memory
        self._rates: deque[tuple[int, float]] = deque()
        self._round = 0
        self._seen_round = -1
        self._round_at = 0.0
        self._gain = self._gain_before = 1.0
        self._phase = 2
        self._push = 0.25
        self._lost = self._sent = 0.0
        self._depth: float | None = None
        self._depth_at = 0.0
        self._contested = False
        self._busy_rounds = 0
        self._stubborn = 0.0
        self._full_rate, self._full_rounds = 0.0, 0
        self._before_push = 0.0
        self._clear_round()

    def _clear_round(self) -> None:
        self._r_acked = self._r_lost = 0
        self._r_rtt_min, self._r_rtt_max = float("inf"), 0.0
        self._r_rate = 0.0
        self._r_limited = False

    # what is asked

    @property
    def base_bytes_s(self) -> float:
        return max((rate for _, rate in self._rates), default=0.0) / (1.0 - self.loss)

    @property
    def loss(self) -> float:
        return min(self._lost / self._sent, 0.5) if self._sent else 0.0

    @property
    def rate_bytes_s(self) -> float:
        rtt = self._rtt_min or 0.1
        rate = self._window / rtt if self._state == "start" else max(self._gain * self.base_bytes_s, 4 * DATAGRAM_BYTES / rtt)
        return min(rate, self.cap_bytes_s) if self.cap_bytes_s is not None else rate

    @property
    def window_bytes(self) -> int:
        if self._state == "start" or self._rtt_min is None:
            return int(2 * self._window)
        rtt = self._rtt_min
        base = self.base_bytes_s
        if self._state == "drain":
            return int(max(base * (rtt + 0.01), START_BYTES))
        if self._contested:
            depth = self._depth or rtt
            return int(
                max(base * (rtt + (0.85 + 0.65 * min(max(self._stubborn - 0.25, 0.0) * 2, 1.0)) * depth + 0.005), START_BYTES)
            )
        return int(max(base * (1.5 * rtt + 0.03), START_BYTES))

    # what is told

    def on_feedback(self, feedback: Feedback) -> None:
        now = feedback.now
        if feedback.rtt_s is not None:
            self._on_rtt(feedback.rtt_s, now)
        self._r_acked += feedback.acked_packets
        self._r_lost += feedback.lost_packets
        self._r_limited |= feedback.limited
        rate = feedback.delivery_bytes_s
        if rate > 0.0 and (not feedback.limited or rate > self.base_bytes_s):
            self._r_rate = max(self._r_rate, rate)
            while self._rates and self._rates[-1][1] <= rate:
                self._rates.pop()
            self._rates.append((self._round, rate))
        if self._state == "start":
            if not feedback.limited:
                self._window += feedback.acked_bytes
            if self._queue_grew():
                self._leave_start(now)
        elif self._state == "drain" and feedback.in_flight_bytes <= self.base_bytes_s * (self._rtt_min or 0.1):
            self._state = "cruise"
            self._phase = 2
            self._gain = 1.0
        if self._seen_round < 0:
            self._seen_round, self._round_at = feedback.round, now
        elif feedback.round != self._seen_round and now - self._round_at >= ROUND_MIN_S:
            self._on_round(now)
            self._seen_round, self._round_at = feedback.round, now

    def _on_rtt(self, rtt: float, now: float) -> None:
        self._r_rtt_min, self._r_rtt_max = min(self._r_rtt_min, rtt), max(self._r_rtt_max, rtt)
        self._rtt_next = min(self._rtt_next, rtt)
        if self._rtt_min is None or rtt <= self._rtt_min:
            self._rtt_min, self._rtt_min_at = rtt, now
            self._rtt_next = float("inf")
        elif now - self._rtt_min_at > RTT_MEMORY_S:
            self._rtt_min, self._rtt_min_at = self._rtt_next, now
            self._rtt_next = float("inf")

    def _queue_grew(self) -> bool:
        assert self._rtt_min is not None
        return self._r_rtt_min < float("inf") and self._r_rtt_min > self._rtt_min + max(self._rtt_min / 8, 0.002)

    def _leave_start(self, now: float) -> None:
        self._state = "drain"
        self._gain = 1.0

    def _target_s(self) -> float:
        assert self._rtt_min is not None
        target = min(max(self._rtt_min / 10, 0.002), 0.010)
        return min(target, self._depth / 4) if self._depth else target

    def _on_round(self, now: float) -> None:
        rtt, length = self._rtt_min, now - self._round_at
        if rtt is None or not self._r_acked or self._r_rtt_min == float("inf"):
            self._clear_round()
            return
        queue, queue_max = self._r_rtt_min - rtt, self._r_rtt_max - rtt
        sent = self._r_acked + self._r_lost
        loss = self._r_lost / sent
        target = self._target_s()
        excess = loss > self.loss + 0.01 + 2 * (0.05 / sent) ** 0.5 and queue_max > target
        if excess and (self._depth is None or queue_max > self._depth or now - self._depth_at > 10):
            self._depth, self._depth_at = queue_max, now
        quiet = queue < 1.5 * target
        if quiet and (self._state == "start" or self._gain_before <= 1.0) and not excess:
            keep = 1 - min(sent / 20_000, 0.1)
            self._lost, self._sent = self._lost * keep + self._r_lost, self._sent * keep + sent
        self._round += 1
        while self._rates and self._rates[0][0] < self._round - ROUNDS:
            self._rates.popleft()
        if self._state == "start":
            if self._r_rate >= 1.25 * self._full_rate:
                self._full_rate, self._full_rounds = self._r_rate, 0
            elif not self._r_limited:
                self._full_rounds += 1
                if self._full_rounds >= 3:
                    self._leave_start(now)
        elif self._state == "cruise":
            self._cruise(now, queue, queue_max, target, excess, length)
        self._clear_round()

    def _cruise(self, now: float, queue: float, queue_max: float, target: float, excess: bool, length: float) -> None:
        assert self._rtt_min is not None
        span = max(self._rtt_min, ROUND_MIN_S)
        if queue > 2 * target:
            self._busy_rounds += 1
        else:
            self._busy_rounds = 0
            if self._contested and queue < target:
                self._contested = False
        if self._busy_rounds > 6:
            self._contested = True
        self._stubborn += (excess - self._stubborn) / 16
        was = self._gain_before
        self._gain_before = self._gain
        expected = was * self.base_bytes_s * (1 - self.loss)
        if not self._contested and queue > 2 * target and self._r_rate < 0.8 * expected:
            while len(self._rates) > 1 and self._rates[0][0] < self._round - 2:
                self._rates.popleft()
        self._phase = (self._phase + 1) % CYCLE
        if self._contested:
            self._gain = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)[self._phase]
            return
        room = (self._depth or 0.05) / 2
        if self._phase == 0:
            self._before_push = self._r_rate
            self._gain = 1 + max(min(self._push, (room - queue) / span), 0.01)
        elif self._phase == 1:
            self._gain = 1 - min(0.25, max((queue_max) / span, 0.02))
            self._gain = 1.0
        elif self._phase == 2:
            pushed = self._gain_before
            if self._r_rate > self._before_push * 1.02 and queue < target and not excess and not self._r_limited:
                self._push = min(self._push * 2, 1.0)
                self._phase = 0
                self._before_push = self._r_rate
                self._gain = 1 + self._push
            else:
                self._push = 0.25
                self._gain = 1 - min(0.25, max(queue_max / span, 0.02))
        else:
            self._gain = 1 + min(max(0.5 * (target - queue) / span, -0.25), 0.05)

    def on_silence(self, now: float) -> None:
        self._gain = 0.1

    def on_new_path(self, now: float) -> None:
        self._forget()
