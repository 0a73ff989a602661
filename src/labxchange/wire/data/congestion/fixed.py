"""A rate that a person chose: paced at it whatever the path does, and never more in flight than two round trips of it."""

from __future__ import annotations

from labxchange.wire.data.congestion import Feedback

WINDOW_MIN_BYTES = 32 * 1_200
RTT_FIRST_S = 0.1
"""Taken for the round trip until one was measured."""

REPORT_S = 0.010
"""How long a receiver may hold its report; what is sent meanwhile is in flight too."""

FORGET = 1 / 64
"""A way that became longer is believed after some hundred reports."""

SILENT_SHARE = 1 / 8
"""Of the rate, while nothing is heard."""


class Fixed:
    """Sends at ``rate_bytes_s``, which may change while it runs, until the path falls silent."""

    def __init__(self, *, rate_bytes_s: float) -> None:
        self.cap_bytes_s = rate_bytes_s
        self._rtt_s: float | None = None
        self._silent = False

    @property
    def rate_bytes_s(self) -> float:
        """Pace at this rate."""
        return self.cap_bytes_s * (SILENT_SHARE if self._silent else 1.0)

    @property
    def window_bytes(self) -> int:
        """Two round trips of the rate: what nobody acknowledges is not sent for ever."""
        rtt_s = RTT_FIRST_S if self._rtt_s is None else self._rtt_s
        return max(int(2 * self.rate_bytes_s * (rtt_s + REPORT_S)), WINDOW_MIN_BYTES)

    def on_feedback(self, feedback: Feedback) -> None:
        """The lowest round trip counts, raised slowly: a queue that this rate builds must not let it build more."""
        if feedback.rtt_s is not None:
            self._silent = False
            known_s = feedback.rtt_s if self._rtt_s is None else self._rtt_s
            self._rtt_s = min(feedback.rtt_s, known_s + (feedback.rtt_s - known_s) * FORGET)

    def on_silence(self, now: float) -> None:
        """Go on, slowly, until somebody answers."""
        self._silent = True

    def on_new_path(self, now: float) -> None:
        """Measure the round trip anew."""
        self._rtt_s, self._silent = None, False
