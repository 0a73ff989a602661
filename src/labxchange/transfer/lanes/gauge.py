"""What a lane worker tells of its lanes: rates of the last second, losses, and what holds each back.

What limits, at the sender: the *disk* when the next block is not read in time; the *peer* when nothing is asked for; a *cap* when
the lane sends at the rate that was set for it; the *cpu* when the worker's loop has no time left; else the *network*. A receiver
knows less: its *disk* when complete units wait to be written, its *cpu*, also when its socket dropped something; the *network*
when packets are missing or the round trip has grown; else it can only be the *peer*, who sends no more. What the receiver's
machine dropped is no loss of the path, on neither side.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, Protocol

from labxchange.transfer.lanes.messages import LaneStats
from labxchange.transfer.metering import WINDOW_S, Meter
from labxchange.wire.data.receiver import Receiver
from labxchange.wire.data.sender import SKIP_EVERY, Sender

BUSY_SHARE: Final = 0.95
BACKLOG_UNITS: Final = 32
LOSS_SHARE: Final = 0.005
"""Of what was due in a second: missing more than this is the network's doing."""
_LOSS_PACKETS_MIN: Final = 200
_RTT_GROWTH: Final = 1.25
_RTT_GROWTH_S: Final = 0.005
_SAMPLES: Final = 5
_AT_CAP: Final = 0.999


class Capped(Protocol):
    """A controller with a rate that was set for it."""

    cap_bytes_s: float | None

    @property
    def rate_bytes_s(self) -> float: ...


class Counted(Protocol):
    """A socket that counts."""

    @property
    def drops(self) -> int: ...

    @property
    def received_datagrams(self) -> int: ...

    @property
    def received_calls(self) -> int: ...


class Busy:
    """The share of the last second in which a loop did not wait."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._waited = Meter()

    def waited(self, seconds: float, now: float) -> None:
        self._waited.add(seconds, now)

    def is_busy(self, now: float) -> bool:
        """No time to spare for a whole second."""
        return now - self._began >= WINDOW_S and self._waited.in_window(now) < (1 - BUSY_SHARE) * WINDOW_S


class Gauge:
    """Of one lane; ``read`` is to be called several times a second."""

    def __init__(self) -> None:
        self._bytes = Meter()
        self._due = Meter()
        self._missing = Meter()
        self._dropped = Meter()
        self._limits: deque[str] = deque(maxlen=_SAMPLES)

    def of_sender(self, lane: bytes, machine: Sender, controller: Capped, sock: Counted, *, busy: bool, now: float) -> LaneStats:
        stats = machine.stats()
        self._bytes.reach(stats.sent_bytes, now)
        self._limits.append(_sender_limit(stats.limit, controller, busy=busy))
        return LaneStats(
            lane=lane,
            sending=True,
            rate_bytes_s=self._bytes.per_second(now),
            rtt_s=stats.rtt_s if stats.min_rtt_s else 0.0,
            sent_bytes=stats.sent_bytes,
            received_bytes=machine.received_bytes,
            resent_bytes=stats.resent_bytes,
            lost_packets=max(stats.lost_packets - stats.late_packets - machine.remote_dropped, 0),
            packets=stats.sent_packets,
            forged=machine.forged,
            dropped_here=sock.drops,
            datagram_bytes=machine.size,
            datagrams_per_call=sock.received_datagrams / max(sock.received_calls, 1),
            limit=self._limit(),
        )

    def of_receiver(self, lane: bytes, machine: Receiver, sock: Counted, *, backlog: int, busy: bool, now: float) -> LaneStats:
        due = machine.due_datagrams
        # Numbers that were left out on purpose never come.
        missing = max(due - due // SKIP_EVERY - machine.received_datagrams - machine.dropped, 0)
        self._bytes.reach(machine.received_bytes, now)
        self._due.reach(due, now)
        self._missing.reach(missing, now)
        self._dropped.reach(machine.dropped, now)
        self._limits.append(self._receiver_limit(machine, backlog=backlog, busy=busy, now=now))
        return LaneStats(
            lane=lane,
            sending=False,
            rate_bytes_s=self._bytes.per_second(now),
            rtt_s=machine.rtt_s,
            sent_bytes=machine.sent_bytes,
            received_bytes=machine.received_bytes,
            resent_bytes=0,
            lost_packets=missing,
            packets=due,
            forged=machine.forged,
            dropped_here=machine.dropped,
            datagram_bytes=machine.largest,
            datagrams_per_call=sock.received_datagrams / max(sock.received_calls, 1),
            limit=self._limit(),
        )

    def _receiver_limit(self, machine: Receiver, *, backlog: int, busy: bool, now: float) -> str:
        if not self._bytes.in_window(now):
            return ""
        if backlog > BACKLOG_UNITS:
            return "disk"
        if busy or self._dropped.in_window(now):
            return "cpu"
        due = self._due.in_window(now)
        if due >= _LOSS_PACKETS_MIN and self._missing.in_window(now) > LOSS_SHARE * due:
            return "network"
        return "network" if machine.rtt_s > _RTT_GROWTH * machine.min_rtt_s + _RTT_GROWTH_S else "peer"

    def _limit(self) -> str:
        """What held it back most of the last second."""
        return Counter(self._limits).most_common(1)[0][0]


def _sender_limit(limit: str, controller: Capped, *, busy: bool) -> str:
    if limit == "nothing to send":
        return "peer"
    if limit == "disk":
        return "disk"
    cap = controller.cap_bytes_s
    if cap and controller.rate_bytes_s >= _AT_CAP * cap and limit in ("rate", "network"):
        return "cap"
    return "cpu" if busy else "network"
