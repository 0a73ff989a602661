"""The sending end of a lane: asked-for ranges of the line go out, at the rate of the controller, until each has arrived.

Life of a byte: asked for -> read -> sealed and sent, so many at once as ``pacing`` says -> named in a report, or lost and sent
again: read anew, under a new number. Lost bytes go before new ones. When nothing new is left, what nobody reported is sent again
after 1.25 round trips, and what was lost goes twice more while the path stands idle, as each loss then costs the whole transfer a
round trip; when nobody reports at all, one datagram at a time with growing pauses, for 15 s. Sizes above 1,200 bytes are probed
and used once a probe arrived; they are given up where the path changes or falls silent.

Which ranges may be asked for is judged before; reading is a function that is given (``Read``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from labxchange.wire.data.asked import Gone, Queue, Range, Read
from labxchange.wire.data.congestion import Controller, Feedback
from labxchange.wire.data.datagram import OVERHEAD_BYTES, SIZES, Kind
from labxchange.wire.data.events import Address, Failed
from labxchange.wire.data.lane import NEVER, Batch, Keys, Lane, Opened
from labxchange.wire.data.pacing import BURST_S, QUANTUM_S, datagrams_at_once
from labxchange.wire.data.recovery import LATE_ROUND_TRIPS, Recovery
from labxchange.wire.data.status import decode

REPORTS_BYTES: Final = 4 << 20
"""The most under way merely because reports come at intervals, as a receiver holds no more."""
AHEAD_S: Final = 0.0005
"""What is due so soon goes out now: where there are many lanes, each turn of the loop then serves several of them."""
SILENCE_MAX_S: Final = 15.0
_PROBE_TRIES: Final = 8
SKIP_EVERY: Final = 1000
"""Of so many numbers one on average is left out."""
TAIL_MIN_S, _RTO_MIN_S, _RTO_MAX_S = 0.02, 0.05, 2.0
_READ_AGAIN_S: Final = 0.0005
ECHOES: Final = 2
ECHO_ROUND_TRIPS: Final = 0.25
"""So often, and so many round trips apart, bytes that were lost at the tail go once more, if the path is at least half empty."""
ECHO_LOSS_MAX: Final = 0.1
"""Where more than this part was lost, what goes once more would be much."""


class SenderStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a screen shows of a lane."""

    rate_bytes_s: float
    delivery_bytes_s: float
    rtt_s: float
    min_rtt_s: float
    in_flight_bytes: int
    window_bytes: int
    sent_bytes: int
    resent_bytes: int
    lost_packets: int
    sent_packets: int
    late_packets: int
    size: int
    limit: str


class _Echo(NamedTuple):
    """Bytes that go once more at a time, and how often they may still."""

    at: float
    lost: list[Range]
    left: int


class Sender(Lane):
    """See the module.

    Args:
        read: gives the bytes.
        controller: the strategy of rate control.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        slot: int,
        now: float,
        random_bytes: Callable[[int], bytes],
        address: Address | None = None,
        proven: bool,
        known_host: str = "",
        read: Read,
        controller: Controller,
        sizes: Sequence[int] = SIZES,
    ) -> None:
        super().__init__(
            keys, slot=slot, now=now, random_bytes=random_bytes, address=address, proven=proven, known_host=known_host
        )
        self.controller = controller
        self.recovery = Recovery()
        self._queue = Queue(read, self._events)
        self._echoes: deque[_Echo] = deque()
        self._next_send = now
        self._skip_in = self._draw_skip()
        self._limited = True
        self._starved_at = NEVER
        self._rto_at = NEVER
        self._rto_times = 0
        self._tail_at = NEVER
        self._sizes = tuple(sizes)
        self._probe_tries = 0
        self._probe_at = now
        self._report_gap_s = QUANTUM_S
        self._reported_at = NEVER
        self._resent_bytes = 0
        self._lost_packets = 0
        self._late_packets = 0
        self._delivery = 0.0
        self.limit = "nothing to send"
        self.remote_dropped = 0

    # --- what the worker asks -----------------------------------------------------------------------------------------
    def ask(self, request: int, ranges: Sequence[tuple[int, int]]) -> None:
        """Send bytes [start, end) of the line, in this order, after what was asked for before."""
        self._queue.ask(request, ranges)

    @property
    def has_work(self) -> bool:
        return self._queue.has_lost or self._queue.has_new

    def stats(self) -> SenderStats:
        recovery = self.recovery
        return SenderStats(
            rate_bytes_s=self.controller.rate_bytes_s,
            delivery_bytes_s=self._delivery,
            rtt_s=recovery.srtt_s,
            min_rtt_s=recovery.min_rtt_s if recovery.heard else 0.0,
            in_flight_bytes=recovery.in_flight_bytes,
            window_bytes=self.controller.window_bytes,
            sent_bytes=self.sent_bytes,
            resent_bytes=self._resent_bytes,
            lost_packets=self._lost_packets,
            sent_packets=self.sent_datagrams,
            late_packets=self._late_packets,
            size=self.size,
            limit=self.limit,
        )

    # --- in -----------------------------------------------------------------------------------------------------------
    def _on_opened(self, opened: Opened, now: float) -> None:
        for kind, payload in opened.words():
            if kind == Kind.STATUS:
                self._on_status(payload, opened.at)
            else:
                self._on_word(kind, payload, opened.at, now)

    def _on_status(self, payload: memoryview, now: float) -> None:
        status = decode(payload)
        recovery = self.recovery
        report = recovery.on_status(status, now)
        if self._reported_at < NEVER:
            self._report_gap_s += (min(now - self._reported_at, 0.1) - self._report_gap_s) / 8
        self._reported_at = now
        self.remote_dropped = status.dropped
        self._lost_packets += report.lost_packets
        self._late_packets += report.late_packets
        self._queue.lost(report.lost)
        if report.lost and not self._queue.has_new and self._lost_packets <= ECHO_LOSS_MAX * self.sent_datagrams:
            self._echoes.append(_Echo(now + ECHO_ROUND_TRIPS * recovery.srtt_s, report.lost, ECHOES))
        if report.largest > self.size and report.largest in self._sizes:
            self.size, self._probe_tries, self._probe_at = report.largest, 0, now
        self._delivery = report.delivery_bytes_s or self._delivery
        feedback = Feedback(
            now=now,
            rtt_s=report.rtt_s,
            acked_bytes=report.acked_bytes,
            acked_packets=report.acked_packets,
            lost_bytes=report.lost_bytes,
            lost_packets=report.lost_packets,
            delivery_bytes_s=report.delivery_bytes_s,
            in_flight_bytes=recovery.in_flight_bytes,
            limited=self._limited,
            round=recovery.round,
        )
        self._limited = False
        self.controller.on_feedback(feedback)
        if report.acked_packets or not recovery.in_flight_packets:
            self._rto_times = 0
            self._set_timers(now)

    def _on_answer(self, rtt_s: float) -> None:
        if not self.recovery.heard:
            self.recovery.srtt_s = rtt_s

    def _on_new_path(self, now: float) -> None:
        self.recovery.forget_path()
        self.controller.on_new_path(now)
        self._probe_tries, self._probe_at = 0, now

    # --- timers -------------------------------------------------------------------------------------------------------
    def _set_timers(self, now: float) -> None:
        """After something was acknowledged, or was sent into silence."""
        if not self.recovery.in_flight_packets:
            self._rto_at = self._tail_at = NEVER
            return
        wait = max(2 * self.recovery.srtt_s + 4 * self._report_gap_s, _RTO_MIN_S)
        self._rto_at = now + min(wait * 2**self._rto_times, max(_RTO_MAX_S, wait))
        self._tail_at = now + self._tail_s() / 4

    def _tail_s(self) -> float:
        """After so long a packet ought to have been reported, even by a machine with more work than cores."""
        return max(LATE_ROUND_TRIPS * self.recovery.srtt_s + 2 * self._report_gap_s + self.recovery.patience_s, TAIL_MIN_S)

    def next_timer(self) -> float:
        """When to call ``poll_transmit`` or ``on_timer`` again; in the past: at once."""
        if self.is_dead:
            return NEVER
        out = min(self._control_timer(), self._rto_at, self._tail_at)
        if self._echoes:
            out = min(out, self._echoes[0].at)
        if self._may_probe():
            out = min(out, self._probe_at)
        if self._can_send():
            out = min(out, self._next_send)
        return out

    def on_timer(self, now: float) -> None:
        """Time passed."""
        if self.is_dead:
            return
        self._send_echoes(now)
        if self._tail_at <= now:
            # While packets go out, later ones tell of the loss of earlier ones.
            if not self.has_work or self.recovery.in_flight_bytes >= self._window():
                self._queue.lost(self.recovery.give_up(sent_before=now - self._tail_s()))
            self._tail_at = now + self._tail_s() / 4 if self.recovery.in_flight_packets else NEVER
        if self._rto_at <= now:
            self._on_silence(now)

    def _send_echoes(self, now: float) -> None:
        """Those that are due and find the path idle; others are dropped."""
        idle = not self.has_work and self.recovery.in_flight_bytes < self._window() / 2
        while self._echoes and self._echoes[0].at <= now:
            echo = self._echoes.popleft()
            if idle:
                self._queue.lost(echo.lost)
            if echo.left > 1:
                self._echoes.append(_Echo(now + ECHO_ROUND_TRIPS * self.recovery.srtt_s, echo.lost, echo.left - 1))

    def _on_silence(self, now: float) -> None:
        if now - self.heard_at > SILENCE_MAX_S:
            self.is_dead = True
            self._events.append(Failed("lane-silent", "The other node was not heard on the lane."))
            return
        self._queue.lost(self.recovery.give_up(sent_before=now))
        if not self._queue.has_lost:  # challenges and probes: how fast the path is was not asked
            self._rto_at, self._tail_at = now + _RTO_MAX_S, NEVER
            return
        self._rto_times += 1
        self.controller.on_silence(now)
        if self._rto_times >= 3 and self.size != SIZES[0]:  # a path that carries small datagrams only looks like this
            self.size, self._probe_tries, self._probe_at = SIZES[0], 0, now + 1.0
        self._rto_at = now + min(_RTO_MIN_S * 2**self._rto_times, _RTO_MAX_S) + self.recovery.srtt_s
        self._tail_at = NEVER

    # --- out ----------------------------------------------------------------------------------------------------------
    def _may_probe(self) -> bool:
        return (
            self._proven
            and self.recovery.heard
            and self.size < self._sizes[-1]
            and self._probe_tries < _PROBE_TRIES
            and self.recovery.room()
        )

    def _window(self) -> float:
        """The controller's, and what is under way merely because reports come at intervals."""
        return self.controller.window_bytes + min(self.controller.rate_bytes_s * (self._report_gap_s + BURST_S), REPORTS_BYTES)

    def _can_send(self) -> bool:
        """Something is to be sent, and only time stands before it."""
        if not self.has_work:
            self._limited, self.limit = True, "nothing to send"
            return False
        if not self.is_up or not self._may_send(self.size):
            self._limited, self.limit = True, "path not proven"
            return False
        if self._rto_times and self.recovery.in_flight_packets:
            self.limit = "silence"
            return False
        if not self.recovery.room() or self.recovery.in_flight_bytes >= self._window():
            self.limit = "network"
            return False
        return True

    def poll_transmit(self, now: float) -> Batch | None:
        """The next batch that may go now, or None; call until None."""
        if self.is_dead:
            return None
        control = self._transmit_control(now)
        if control is not None:
            return control
        probe = self._transmit_probe(now)
        if probe is not None:
            return probe
        while self._next_send <= now + AHEAD_S and self._can_send():
            batch = self._transmit_data(now)
            if batch is not None or self._starved_at < NEVER:
                return batch
        return None

    def _transmit_probe(self, now: float) -> Batch | None:
        if self._probe_at > now or not self._may_probe():
            return None
        above = [size for size in self._sizes if size > self.size]
        size = above[self._probe_tries % len(above)]
        self._probe_tries += 1
        self._probe_at = now + max(self.recovery.srtt_s / 2, 0.005)
        return self._one(Kind.PROBE, memoryview(bytes(size - OVERHEAD_BYTES)), now)

    def _take_number(self, payload_bytes: int, now: float) -> int:
        number = self._next_number(1)
        self.recovery.sent(1, offset=0, length=0, room=payload_bytes, now=now)
        return number

    def _next_number(self, count: int) -> int:
        """The number of the next of ``count`` packets; now and then one before it is left out."""
        self._skip_in -= count
        if self._skip_in <= 0:
            self.recovery.skip()
            self._skip_in = self._draw_skip()
        return self.recovery.next

    def _draw_skip(self) -> int:
        return SKIP_EVERY // 2 + int.from_bytes(self._random_bytes(2), "big") % SKIP_EVERY

    def _transmit_data(self, now: float) -> Batch | None:
        room = self.size - OVERHEAD_BYTES
        rate = self.controller.rate_bytes_s
        window = self._window() - self.recovery.in_flight_bytes
        limit = datagrams_at_once(rate, late_s=now - self._next_send, window_bytes=window, size=self.size)
        if self._rto_times:
            limit = 1
        if not self._proven:
            limit = min(limit, self._credit // self.size)
        again = self._queue.has_lost
        try:
            offset, payload = self._queue.take(limit, room)
        except Gone:
            return None
        if not payload:
            self._wait_for_disk(now)
            return None
        self._starved_at = NEVER
        count = -(-len(payload) // room)
        number = self._next_number(count)
        sealed = self._sealer.seal(payload, kind=Kind.DATA, number=number, offset=offset, size=self.size)
        self.recovery.sent(count, offset=offset, length=len(payload), room=room, now=now)
        self._resent_bytes += len(payload) if again else 0
        self._next_send = max(self._next_send, now - BURST_S) + len(sealed) / max(rate, 1.0)
        self.limit = "rate"
        self._check_wear(number, now)
        if self._rto_at == NEVER:
            self._set_timers(now)
        return self._sent(Batch(sealed, self.size, self.address), count)

    def _wait_for_disk(self, now: float) -> None:
        """The next block is read a moment later as a rule; a wait that goes on is what holds the lane back."""
        self._starved_at = min(self._starved_at, now)
        self._next_send = max(self._next_send, now + _READ_AGAIN_S)
        if now - self._starved_at > BURST_S:
            self._limited, self.limit = True, "disk"
