"""The node's clock: what time it is, and whether that can be believed.

Rules: time never runs back below the largest time seen, so an ended grant stays ended; nor does it stand still: while the
system's clock is behind, it goes on from the largest time by what has elapsed, so a grant still ends; a forward jump of over
24 hours while the node runs, or 30 days between runs, is not adopted until a person confirms it, and grants wait meanwhile;
smaller jumps are adopted and reported; times claimed by other nodes never move it; a time that no calendar has, as of a broken
clock, is never adopted, by nobody. Elapsed time comes from a counter that also runs in sleep. Storing the largest time seen is
left to the node.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from labxchange.errors import InputError
from labxchange.store.trail import Stamp

JUMP_REPORTED_MS = 10_000
JUMP_RUNNING_MS = 24 * 3_600_000
JUMP_BETWEEN_RUNS_MS = 30 * 24 * 3_600_000
_CALENDAR_MS = range(253_402_214_400_000)
"""1970 to the last day but one of the year 9999: what every zone can write down."""


def wall_ms() -> int:
    """The operating system's clock, UTC milliseconds."""
    return time.time_ns() // 1_000_000


def elapsed_ms() -> int:
    """Milliseconds since some moment, counting sleep where the system can (Linux: CLOCK_BOOTTIME)."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000_000


class Clock:
    """Judges the wall clock against elapsed time.

    Args:
        largest_seen: the largest time of earlier runs, 0 at the first.

    ``jumps`` holds (from, to, adopted) of each jump, in milliseconds, until the node has written it down.
    """

    def __init__(
        self,
        *,
        largest_seen: int,
        wall: Callable[[], int] = wall_ms,
        elapsed: Callable[[], int] = elapsed_ms,
    ) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._started = elapsed()
        now = wall()
        self.in_doubt = now not in _CALENDAR_MS or (bool(largest_seen) and now - largest_seen > JUMP_BETWEEN_RUNS_MS)
        self.jumps: list[tuple[int, int, bool]] = []
        if self.in_doubt or (largest_seen and now < largest_seen - JUMP_REPORTED_MS):
            self.jumps.append((largest_seen, now, not self.in_doubt))
        self._base_wall = largest_seen if self.in_doubt else now
        self._base_elapsed = self._started
        self.largest = max(largest_seen, self._base_wall)
        self._asked = self._started

    def now(self) -> int:
        """UTC milliseconds that grants are judged by; never smaller than before."""
        elapsed = self._elapsed()
        expected = self._base_wall + elapsed - self._base_elapsed
        wall = self._wall()
        if self.in_doubt:
            if abs(wall - expected) <= JUMP_RUNNING_MS:  # the operating system's clock was set right again
                self.in_doubt = False
                self._rebase(wall, elapsed)
                expected = wall
        elif abs(wall - expected) > JUMP_REPORTED_MS:
            adopted = wall - expected <= JUMP_RUNNING_MS
            self.jumps.append((expected, wall, adopted))
            if adopted:
                self._rebase(wall, elapsed)
                expected = wall
            else:
                self.in_doubt = True
        else:
            self._rebase(wall, elapsed)
            expected = wall
        if expected < self.largest - JUMP_REPORTED_MS:
            expected = self.largest + max(0, elapsed - self._asked)  # the clock was set back: time goes on all the same
        self._asked = elapsed
        self.largest = max(self.largest, expected)
        return self.largest

    def _rebase(self, wall: int, elapsed: int) -> None:
        self._base_wall, self._base_elapsed = wall, elapsed

    def proposed(self) -> int:
        """What ``reset`` would adopt: the operating system's time.

        Raises:
            InputError: ``clock-unusable``.
        """
        wall = self._wall()
        if wall not in _CALENDAR_MS:
            message = "The clock of this machine names a time that does not exist, which cannot be adopted."
            raise InputError("clock-unusable", message, hint="Set the clock first, best by NTP (`timedatectl set-ntp true`).")
        return wall

    def reset(self) -> tuple[int, int]:
        """A person says the operating system's clock is right: adopt it, also backwards. Returns (before, after); raises as
        ``proposed``."""
        before, wall = self.largest, self.proposed()
        self._asked = self._elapsed()
        self._rebase(wall, self._asked)
        self.largest, self.in_doubt = wall, False
        return before, wall

    def stamp(self) -> Stamp:
        """When, for an entry: the adopted time and the local time with offset and zone."""
        now = self.now()
        source = "system clock, in doubt" if self.in_doubt else "system clock"
        return Stamp(utc_ms=now, local=local_text(now), monotonic_ms=self._elapsed() - self._started, source=source)


def local_text(utc_ms: int) -> str:
    """Local time of this machine with numeric offset and zone name, e.g. ``2026-11-21T23:05:01+01:00 CET``."""
    local = datetime.fromtimestamp(utc_ms / 1000, UTC).astimezone()
    return f"{local.isoformat(timespec='seconds')} {local.tzname()}"


def utc_text(utc_ms: int) -> str:
    """UTC for people, e.g. ``2026-11-21 22:05:01 UTC``; a clock and a peer may name any number."""
    if utc_ms not in _CALENDAR_MS:
        return "a time that does not exist"
    return f"{datetime.fromtimestamp(utc_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
