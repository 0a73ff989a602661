"""A rate that somebody chose, held where bytes go over QUIC: a token bucket of a twentieth of a second, shared by the streams of
a transfer, and how many bytes went through in the last seconds.

What is larger than the bucket goes at once and is paid for after, so the rate holds over a second and no message is cut. Lanes
have a pacing of their own.
"""

from __future__ import annotations

import asyncio
from typing import Final

from labxchange.transfer.metering import Meter

_BURST_S: Final = 0.05
_WINDOW_S: Final = 5.0
"""Messages are of up to 256 KiB: fewer seconds would show a slow rate as nothing, and then as much."""


class Pace:
    """Of one transfer; ``rate_bytes_s`` 0 is no limit."""

    def __init__(self, rate_bytes_s: int = 0) -> None:
        self.meter = Meter(window_s=_WINDOW_S)
        self._rate_bytes_s = rate_bytes_s
        self._next_at = 0.0
        self._changed = asyncio.Event()

    @property
    def rate_bytes_s(self) -> int:
        return self._rate_bytes_s

    def set_rate(self, rate_bytes_s: int) -> None:
        """From now on; who waits for the old rate is woken."""
        if rate_bytes_s != self._rate_bytes_s:
            self._rate_bytes_s = rate_bytes_s
            self._next_at = 0.0
            self._changed.set()

    def wait_s(self, now: float) -> float:
        """How long until something may go."""
        return max(self._next_at - now, 0.0) if self._rate_bytes_s else 0.0

    def spend(self, size: int, now: float) -> None:
        """So much goes now."""
        self.meter.add(size, now)
        if self._rate_bytes_s:
            self._next_at = max(self._next_at, now - _BURST_S) + size / self._rate_bytes_s

    async def take(self, size: int) -> None:
        """Wait until ``size`` bytes may go."""
        loop = asyncio.get_running_loop()
        while (pause := self.wait_s(loop.time())) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                pass
        self.spend(size, loop.time())
