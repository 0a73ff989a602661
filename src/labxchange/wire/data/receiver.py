"""The receiving end of a lane: datagrams into the assembly, reports back.

A report goes out when enough came for one: after a sixteenth of a round trip, at least 4 ms and at most 20, twice as long where
fewer than 32 packets came, or 2 MiB. It names the last packets over and over, so that eight reports in a row must be lost
before one is not told of. When nothing comes after it, it goes out again, less and less often: it may be lost, and be the first
from a new address of this end. What was not asked for is dropped. Taking complete units out of the assembly is the worker's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from labxchange.wire.data.assembly import Assembly
from labxchange.wire.data.datagram import BATCH_DATAGRAMS, OVERHEAD_BYTES, Kind
from labxchange.wire.data.events import Address, Failed
from labxchange.wire.data.lane import KEEPALIVE_S, NEVER, Batch, Keys, Lane, Opened
from labxchange.wire.data.status import MAP_BYTES_MAX, encode

REPORT_MIN_S: Final = 0.004
REPORT_MAX_S: Final = 0.02
REPORT_BYTES: Final = 2 << 20
FEW_PACKETS: Final = 32
AGAIN_FIRST_S: Final = 0.25
SILENCE_MAX_S: Final = 20.0
_REPEATS: Final = 8
_MARGIN: Final = 256
_PLACES: Final = np.arange(BATCH_DATAGRAMS, dtype=np.int64)


class Receiver(Lane):
    """See the module.

    Args:
        assembly: where the bytes go; lanes of one transfer may share it.
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
        assembly: Assembly,
    ) -> None:
        super().__init__(
            keys, slot=slot, now=now, random_bytes=random_bytes, address=address, proven=proven, known_host=known_host
        )
        self.assembly = assembly
        self.dropped = 0
        """Datagrams that this machine's socket dropped since the lane was opened, as the worker counts them."""
        self.rtt_s = self.min_rtt_s = 0.0
        """The newest round trip of a challenge, and the lowest on this path; 0: not measured yet."""
        self.largest = 0
        """Bytes of the largest datagram that came over this path."""
        self._next = 0
        self._newest = -1
        self._newest_at = now
        self._interval_s = REPORT_MIN_S
        self._report_at = NEVER
        self._reported_at = -NEVER
        self._unreported = 0
        self._again_s = AGAIN_FIRST_S
        self._newest_of: deque[int] = deque([-1] * _REPEATS, _REPEATS)

    # --- in -----------------------------------------------------------------------------------------------------------
    def _on_opened(self, opened: Opened, now: float) -> None:
        kinds = opened.headers["kind"]
        if np.count_nonzero(kinds):  # not all DATA
            for kind, payload in opened.words():
                self._on_word(kind, payload, opened.at, now)
            data = opened.rows[kinds[opened.rows] == Kind.DATA]
        else:
            data = opened.rows
        if len(data):
            self._put(opened, data)
        if self._seen.newest > self._newest:
            self._newest, self._newest_at = self._seen.newest, opened.at
        self.largest = max(self.largest, opened.room + OVERHEAD_BYTES)
        self._unreported += len(opened.rows)
        wait_s = self._interval_s if self._unreported >= FEW_PACKETS else 2 * self._interval_s
        due = 0.0 if self._unreported * self.largest >= REPORT_BYTES else self._reported_at + wait_s
        self._report_at = min(self._report_at, max(now, due))
        self._again_s = AGAIN_FIRST_S

    def _put(self, opened: Opened, rows: NDArray[np.int64]) -> None:
        """Runs of neighbours go into the assembly as one piece."""
        room, count = opened.room, len(rows)
        offsets = opened.headers["offset"].astype(np.int64)
        if count < len(offsets):
            offsets = offsets[rows]
        first, begin = int(rows[0]), int(offsets[0])
        if int(rows[-1]) - first == count - 1 and not np.count_nonzero(offsets != begin + _PLACES[:count] * room):
            place = first * room
            size = (count - 1) * room + opened.length(first + count - 1)
            self.assembly.put(begin, opened.payload[place : place + size])
            return
        joined = (np.diff(rows) == 1) & (np.diff(offsets) == room)
        edges = [0, *(np.flatnonzero(~joined) + 1).tolist(), count]
        for start, end in pairwise(edges):
            place = int(rows[start]) * room
            size = (end - start - 1) * room + opened.length(int(rows[end - 1]))
            self.assembly.put(int(offsets[start]), opened.payload[place : place + size])

    @property
    def due_datagrams(self) -> int:
        """How many the other end has sent, as far as is known here: the numbers up to the newest."""
        return self._seen.newest + 1

    def _on_answer(self, rtt_s: float) -> None:
        self.rtt_s, self.min_rtt_s = rtt_s, min(self.min_rtt_s or rtt_s, rtt_s)
        self._interval_s = min(max(rtt_s / 16, REPORT_MIN_S), REPORT_MAX_S)

    def _on_new_path(self, now: float) -> None:
        self._interval_s = REPORT_MIN_S
        self.rtt_s = self.min_rtt_s = 0.0
        self.largest = 0

    # --- timers and out -----------------------------------------------------------------------------------------------
    def next_timer(self) -> float:
        """When to call ``poll_transmit`` or ``on_timer`` again."""
        if self.is_dead:
            return NEVER
        out = min(self._control_timer(), self.heard_at + SILENCE_MAX_S)
        if self._may_send(OVERHEAD_BYTES + MAP_BYTES_MAX):
            out = min(out, self._report_at)
        return out

    def on_timer(self, now: float) -> None:
        """Time passed."""
        if not self.is_dead and now >= self.heard_at + SILENCE_MAX_S:
            self.is_dead = True
            self._events.append(Failed("lane-silent", "The other node was not heard on the lane."))

    def poll_transmit(self, now: float) -> Batch | None:
        """The next batch that may go now, or None; call until None."""
        if self.is_dead:
            return None
        control = self._transmit_control(now)
        if control is not None:
            return control
        if self._report_at <= now and self._seen.newest >= 0 and self._may_send(OVERHEAD_BYTES + MAP_BYTES_MAX):
            return self._report(now)
        return None

    def _report(self, now: float) -> Batch:
        newest = self._seen.newest
        span = min(max(newest - self._newest_of[0] + _MARGIN, 64), 8 * MAP_BYTES_MAX, newest + 1)
        payload = encode(
            newest=newest,
            held_us=int((now - self._newest_at) * 1e6),
            clock_us=int(now * 1e6),
            total_bytes=self.received_bytes,
            dropped=self.dropped,
            forged=self.forged,
            arrived=self._seen.last(span),
        )
        self._newest_of.append(newest)
        self._report_at = now + self._again_s if self._again_s < KEEPALIVE_S else NEVER
        self._again_s, self._reported_at, self._unreported = 2 * self._again_s, now, 0
        return self._one(Kind.STATUS, memoryview(payload), now)

    def _take_number(self, payload_bytes: int, now: float) -> int:
        self._next += 1
        return self._next - 1
