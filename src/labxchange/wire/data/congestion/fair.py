"""The default: as fast as the path carries, whatever it loses by chance, and a fair share of it when others use it too."""

from __future__ import annotations

import math

from labxchange.wire.data.congestion import Feedback
from labxchange.wire.data.congestion.look import Look, Verdict
from labxchange.wire.data.congestion.path import RTT_MEMORY_S, Path, Round

DATAGRAM_BYTES = 1_200
START_BYTES = 32 * DATAGRAM_BYTES
START_GAIN = 1 / math.log(2)
FLOOR_BYTES = 4 * DATAGRAM_BYTES
REPORT_S = 0.010
PUSH = 0.25
YIELD_FLOOR = 0.5
LOOK_GAIN = 0.5
BUSY = 10
BUSY_TARGETS = 1.5
F0, F1 = 0.9, 1.2
OVER = 1.15
REFERENCE_BYTES_S = 125e6
OWN_PACKETS = 8
KI = 0.1
KP = 0.5
FRESH = True
GQ = 0.25
GREW = 0.6
SNAP = 0.85


class Fair:
    def __init__(self, *, cap_bytes_s: float | None = None) -> None:
        self.cap_bytes_s = cap_bytes_s
        self._begin()

    def _begin(self) -> None:
        self._path = Path()
        self._state = "start"
        self._window = float(START_BYTES)
        self._gain = self._gain_before = 1.0
        self._phase = 0
        self._length = 8
        self._push = PUSH
        self._pace = 0.0
        self._before_push = 0.0
        self._best, self._flat_rounds = 0.0, 0
        self._recent: list[float] = []
        self._shallow_s: float | None = None
        self._contested = False
        self._busy_rounds = 0.0
        self._busy_base = 0.0
        self._stubborn = 0.0
        self._settle = 0
        self._lossy_rounds = 0
        self._look = Look()
        self._arriving: list[float] = []

    # what is asked

    @property
    def _model(self) -> float:
        """What may be sent so that as much arrives as the path is known to deliver."""
        rate = self._path.delivery_bytes_s
        if self._lossy_rounds and len(self._arriving) == 3:
            rate = min(rate, OVER * max(self._arriving))
        return rate / (1.0 - self._path.loss)

    @property
    def _base(self) -> float:
        return self._pace if self._state == "cruise" and not self._contested else self._model

    @property
    def rate_bytes_s(self) -> float:
        rtt = self._path.rtt_min_s or 0.1
        rate = START_GAIN * self._window / rtt if self._state == "start" else max(self._gain * self._base, FLOOR_BYTES / rtt)
        return min(rate, self.cap_bytes_s) if self.cap_bytes_s is not None else rate

    @property
    def window_bytes(self) -> int:
        rtt = self._path.rtt_min_s
        if rtt is None:
            return START_BYTES
        if self._state == "start":
            return int(1.5 * self._window + 0)
        allowed = 0.5 * rtt + 0.02
        if self._state == "drain":
            allowed = REPORT_S + min(rtt / 8, 0.02)
        elif self._contested:
            allowed = (F0 + (F1 - F0) * min(max(self._stubborn - 0.25, 0.0) * 2, 1.0)) * self._path.depth_s + REPORT_S / 2
        return int(max(self._base * (rtt + allowed), START_BYTES))

    # what is told

    def on_feedback(self, feedback: Feedback) -> None:
        ended = self._path.add(feedback)
        if feedback.rtt_s is not None:
            self._recent = [*self._recent[-2:], feedback.rtt_s]
        if self._state == "start":
            if not feedback.limited:
                self._window += feedback.acked_bytes
            if len(self._recent) == 3 and min(self._recent) > (self._path.rtt_min_s or 0) + max(self._path.span_s / 16, 0.002):
                self._leave_start()
        elif self._state == "drain" and feedback.in_flight_bytes <= self._base * (self._path.rtt_min_s or 0.1):
            self._state, self._phase, self._gain, self._settle = "cruise", 2, 1.0, 2
            self._pace = self._model
        if feedback.rtt_s is not None:
            verdict = self._look.saw(feedback.now, feedback.rtt_s, lost=feedback.lost_packets > 0, path=self._path)
            if verdict is not None:
                self._found(verdict, feedback)
        if ended is not None:
            self._on_round(ended, feedback.now)

    def _leave_start(self) -> None:
        self._state, self._gain = "drain", 1.0

    @property
    def _room_s(self) -> float:
        """The queue that pushing may build."""
        return min(self._path.span_s / 4, 0.012, self._shallow_s / 2 if self._shallow_s is not None else 1.0)

    @property
    def _alone_s(self) -> float:
        """The queue that one lane keeps, so that the link never runs empty; less of it the faster it is."""
        target = min(max(self._path.span_s / 20, 0.001), 0.005)
        target *= min(max(1.0 + 0.3 * math.log2(REFERENCE_BYTES_S / max(self._base, 1.0)), 0.5), 4.0)
        return min(target, self._shallow_s / 4) if self._shallow_s is not None else target

    @property
    def _target_s(self) -> float:
        """The queue at which this lane keeps its rate; a few packets of each lane more than one alone would keep."""
        return self._alone_s + OWN_PACKETS * DATAGRAM_BYTES / max(self._base, 1.0)

    def _on_round(self, ended: Round, now: float) -> None:
        path = self._path
        assert path.rtt_min_s is not None
        queue, queue_max = ended.rtt_min_s - path.rtt_min_s, ended.rtt_max_s - path.rtt_min_s
        sent = ended.acked + ended.lost
        excess = ended.loss > path.loss + 0.01 + 3 * math.sqrt(max(path.loss, 1 / sent) / sent)
        if excess and queue_max > self._target_s:
            self._shallow_s = queue_max if self._shallow_s is None else max(queue_max, self._shallow_s)
        self._lossy_rounds = self._lossy_rounds + 1 if excess else 0
        if self._gain_before >= 1.0 and not ended.limited:
            self._arriving = [*self._arriving[-2:], ended.rate_bytes_s]
        if not excess and queue < 1.5 * self._target_s and self._gain_before <= 1.0:
            path.learn_loss(ended)
        if self._state == "start":
            rate = ended.acked / (now - ended.started_at)
            if rate >= 1.25 * self._best:
                self._best, self._flat_rounds = rate, 0
            elif not ended.limited:
                self._flat_rounds += 1
            if self._flat_rounds >= 3 or excess:
                self._leave_start()
        elif self._settle:
            self._settle -= 1
            self._pace = self._model
        elif self._state == "cruise":
            gain = self._gain
            self._judge(ended, queue, excess, now)
            self._gain = self._next_gain(ended, queue, excess, now)
            self._gain_before = gain

    def _judge(self, ended: Round, queue: float, excess: bool, now: float) -> None:
        """Gather what speaks for a queue that is not ours."""
        path = self._path
        self._stubborn += (excess - self._stubborn) / 16
        if self._contested or self._look.open:
            return
        if queue <= BUSY_TARGETS * self._alone_s and self._lossy_rounds < 2:
            self._busy_rounds = max(self._busy_rounds - 0.5, 0.0)
            return
        if not self._busy_rounds:
            self._busy_base = path.delivery_bytes_s
        self._busy_rounds = min(self._busy_rounds + 1, 2 * BUSY)
        arriving = ended.rate_bytes_s / (1.0 - path.loss)
        if arriving < SNAP * self._gain_before * self._pace:
            self._pace = max(arriving, YIELD_FLOOR * self._busy_base / (1 - path.loss))

    def _found(self, verdict: Verdict, feedback: Feedback) -> None:
        """The look ended."""
        path = self._path
        self._phase = 2
        if verdict is Verdict.OURS:
            self._calm()
            return
        if verdict is Verdict.LONGER:
            path.accept_rtt(path.rtt_lowest_s, feedback.now)
        self._contested = verdict is Verdict.OTHERS
        path.restore(self._busy_base)
        self._pace = self._model
        self._busy_rounds = 0.0

    def _calm(self) -> None:
        if self._contested:
            self._pace = min(self._model, max(self._arriving, default=self._model) / (1 - self._path.loss))
        self._contested, self._busy_rounds = False, 0.0

    def _next_gain(self, ended: Round, queue: float, excess: bool, now: float) -> float:
        path = self._path
        span = path.span_s
        self._phase += 1
        if self._phase >= self._length:
            self._phase = 0
            self._length = 6 + ended.acked % 5
        suspicious = self._contested or self._busy_rounds >= BUSY or now - path.rtt_min_at > RTT_MEMORY_S
        if self._look.due(now, path) and suspicious:
            if self._contested or not self._busy_rounds:
                self._busy_base = path.delivery_bytes_s
            self._look.begin(now, queue_s=queue, path=path)
        if self._look.open:
            self._phase = 2
            return LOOK_GAIN if self._look.yielding(now) else 1.0
        if self._contested:
            return (1.25, 0.75, 1.0)[min(self._phase, 2)]
        fresh = min(self._recent) - path.rtt_min_s if FRESH else queue
        error = max(min((self._target_s - fresh) / (span + fresh), 0.5), -0.5)
        self._pace *= 1 + max(min(KI * error, 0.02), -0.1)
        self._pace = min(self._pace, 1.1 * self._model)
        steady = 1 + min(max(KP * error, -0.25), 0.05)
        if queue > 2 * self._target_s or self._lossy_rounds >= 2:
            self._phase = max(self._phase, 2)
            return min(steady, 0.9) if excess else steady
        if self._phase == 2:
            grew = ended.rate_bytes_s > self._before_push * (1 + GREW * self._push)
            if grew and queue < self._alone_s * GQ and not excess and not ended.limited:
                self._phase = 0
                self._push = min(2 * self._push, 1.0)
                self._before_push = ended.rate_bytes_s
                self._pace = max(self._pace, self._model)
                return 1 + self._push
            return steady
        if self._phase == 0:
            self._push = max(min(PUSH, (self._room_s - queue) / span), 0.01)
            self._before_push = ended.rate_bytes_s
            return 1 + self._push
        if self._phase == 1:
            stale = now - path.rtt_min_at > 5.0
            return 1 - min(min(self._push, 0.25) + (queue / span if stale else 0.0), 0.5)
        return steady

    def on_silence(self, now: float) -> None:
        self._gain = 0.1

    def on_new_path(self, now: float) -> None:
        self._begin()
