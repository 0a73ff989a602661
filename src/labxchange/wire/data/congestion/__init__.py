"""How fast a lane may send: one strategy a file, each a pure class that is told what a status report told.

A strategy answers two questions, at what rate to pace and how many bytes may be in flight, and hears of each report. It has no
clock, no socket and no randomness; time is an argument. Bytes are whole UDP payloads. Recovery of what was lost is left to
``recovery``, pacing itself to ``sender``.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """What one status report told of the packets that were sent.

    Attributes:
        now: seconds, of the sender's monotonic clock.
        rtt_s: the newest round trip, the time that the receiver held its report subtracted; None when the report acknowledged
            nothing new.
        acked_bytes, acked_packets: newly acknowledged.
        lost_bytes, lost_packets: newly taken for lost; some may prove to be late.
        delivery_bytes_s: over the packets that this report acknowledged, the lower of the rate at which they left and the rate at
            which they arrived by the receiver's clock; 0.0 when it is not known.
        in_flight_bytes: sent and neither acknowledged nor lost, after this report.
        limited: True when since the last report the sender had nothing to send, or was not asked for more: the delivery rate
            says how much there was to send and not what the path can carry.
        round: counts round trips: one more each time a packet is acknowledged that was sent after the last one began.
    """

    now: float
    rtt_s: float | None
    acked_bytes: int
    acked_packets: int
    lost_bytes: int
    lost_packets: int
    delivery_bytes_s: float
    in_flight_bytes: int
    limited: bool
    round: int


class Controller(Protocol):
    """A strategy."""

    @property
    def rate_bytes_s(self) -> float:
        """Pace at this rate."""
        ...

    @property
    def window_bytes(self) -> int:
        """At most this many bytes in flight."""
        ...

    def on_feedback(self, feedback: Feedback) -> None:
        """A report came."""
        ...

    def on_silence(self, now: float) -> None:
        """Nothing was reported for several round trips although packets are in flight."""
        ...

    def on_new_path(self, now: float) -> None:
        """The peer's address changed: what was learned of the path is void."""
        ...
