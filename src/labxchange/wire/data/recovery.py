"""What a sender knows of the packets it sent: which arrived, which are lost, how fast they went.

State is arrays indexed by packet number modulo a ring, so a report costs the same whether it tells of one packet or of ten
thousand. A packet is lost when one sent 128 numbers later arrived, or when one sent later arrived and it is older than 1.25
round trips: reordering by up to 127 is no loss. One number in about a thousand is skipped: a report that names it, or one that
was never sent, is a lie (``PeerError``). Sending again, and at what rate, is left to ``sender`` and ``congestion``.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labxchange.errors import PeerError
from labxchange.wire.data.datagram import OVERHEAD_BYTES, Offsets, offsets_of
from labxchange.wire.data.seen import in_ring
from labxchange.wire.data.status import Status

RING: Final = 1 << 18
_MASK: Final = RING - 1
REORDER: Final = 128
RTT_FIRST_S: Final = 0.2
PATIENCE_MAX_S: Final = 0.25
PATIENCE_MEMORY_S: Final = 3.0
PATIENCE_ROUNDS: Final = 32
"""How long it is remembered that packets came late: so many seconds or so many round trips, whichever is longer."""

RATE_SPAN_S: Final = 0.008
"""A rate is measured over so long at least: batches of 44 datagrams come half a millisecond apart at 1 Gbit/s."""

RTT_LEAST_S: Final = 0.0001
"""Nothing is nearer than that; what looks so is a clock that was set, or a report that does not tell the truth."""

LATE_ROUND_TRIPS: Final = 1.25
GRAIN_S: Final = 0.002
"""How exactly machines keep time here: threads wake late, receivers join datagrams."""
_FREE, _FLYING, _ARRIVED, _LOST, _SKIPPED = range(5)
_NONE: Final = np.zeros(0, np.int64)


class Report(NamedTuple):
    """What a status report changed; ``lost`` are bytes [start, end) of the line to be sent again, neighbours joined; ``largest``
    is the size of the largest packet that was acknowledged, 0 where none was;
    probes that were lost are told of nowhere, as they say nothing of the path but its size."""

    acked_packets: int
    acked_bytes: int
    lost_packets: int
    lost_bytes: int
    lost: list[tuple[int, int]]
    rtt_s: float | None
    delivery_bytes_s: float
    largest: int
    late_packets: int


def _places(numbers: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Where in the rings these numbers are, which ascend."""
    first, end = (int(numbers[0]), int(numbers[-1]) + 1) if len(numbers) else (0, 0)
    return in_ring(first, end, RING) if end - first == len(numbers) else numbers & _MASK


def _numbers(states: bytes, state: int, first: int) -> NDArray[np.int64]:
    """Which of the numbers from ``first`` on are in a state. Most often they are a run, or none: then a search through bytes is
    quicker than numpy, of which nothing is in the processor's cache when a report comes."""
    begin = states.find(state)
    if begin < 0:
        return _NONE
    count = states.count(state)
    if count == states.rfind(state) + 1 - begin:
        return np.arange(first + begin, first + begin + count)
    return np.flatnonzero(np.frombuffer(states, np.uint8) == state) + first


class _Mark(NamedTuple):
    """Where a report stood: bytes delivered in all; when the newest packet was sent, and came, and when the report was made, the
    latter two by the receiver's clock."""

    delivered: int
    sent_at: float
    came_at: float
    told_at: float


class Recovery:
    """Packets of one lane, from number 0 on."""

    def __init__(self) -> None:
        self.next = 0
        self.newest_acked = -1
        self.in_flight_bytes = 0
        self.in_flight_packets = 0
        self.srtt_s = RTT_FIRST_S
        self.rttvar_s = RTT_FIRST_S / 2
        self.min_rtt_s = float("inf")
        self.round = 0
        self.heard = False
        self.patience_s = GRAIN_S
        """Beyond 1.25 round trips what is not reported is waited for so long: more where what was given up came late."""
        self._round_ends = 0
        self._round_at = 0.0
        self._low = 0
        self._delivered = 0
        self._marks: deque[_Mark] = deque()
        self._state = np.zeros(RING, np.uint8)
        self._sent_at = np.zeros(RING)
        self._offset = np.zeros(RING, np.int64)
        self._length = np.zeros(RING, np.int32)
        self._size = np.zeros(RING, np.int32)

    def room(self) -> bool:
        """False while the ring is full of packets whose fate is not known."""
        return self.next - self._low < RING - 64

    def skip(self) -> None:
        """Leave a number out; whoever acknowledges it lies."""
        self._state[self.next & _MASK] = _SKIPPED
        self._length[self.next & _MASK] = self._size[self.next & _MASK] = 0
        self.next += 1

    def sent(self, count: int, *, offset: Offsets, length: int, room: int, now: float) -> None:
        """``count`` packets went out, with ``length`` bytes of the line from ``offset`` on, ``room`` bytes each but the last; of
        a packet without data the length is 0 and ``room`` what it weighs."""
        if not self.in_flight_packets:
            self._marks.clear()  # after a pause the rate is measured anew
        begin = self.next & _MASK
        first = min(count, RING - begin)
        self._note(slice(begin, begin + first), offset, length, room, now)
        if first < count:  # round the end of the ring
            rest = offset + first * room if isinstance(offset, int) else offset[first:]
            self._note(slice(0, count - first), rest, length - first * room if length else 0, room, now)
        self.next += count
        self.in_flight_bytes += (length or count * room) + count * OVERHEAD_BYTES
        self.in_flight_packets += count

    def _note(self, at: slice, offset: Offsets, length: int, room: int, now: float) -> None:
        count = at.stop - at.start
        self._state[at] = _FLYING
        self._sent_at[at] = now
        self._offset[at] = offsets_of(offset, count, room) if isinstance(offset, int) else offset[:count]
        self._length[at] = room if length else 0
        self._size[at] = room + OVERHEAD_BYTES
        if length and (short := count * room - length) > 0:
            self._length[at.stop - 1] -= short
            self._size[at.stop - 1] -= short

    def on_status(self, status: Status, now: float) -> Report:
        """Raises PeerError ``acknowledged-unsent``: a number that was skipped or never sent."""
        if status.newest >= self.next:
            raise PeerError("acknowledged-unsent", "The other node acknowledged a packet that was never sent.")
        first = max(status.first, self.next - RING)
        came = status.came[first - status.first :]
        before = (self._state[in_ring(first, first + len(came), RING)] * came.view(np.uint8)).tobytes()  # of each that came
        if _SKIPPED in before:
            raise PeerError("acknowledged-unsent", "The other node acknowledged a packet that was left out on purpose.")
        self.heard = True
        flown, late = _numbers(before, _FLYING, first), _numbers(before, _LOST, first)
        sizes = self._size[_places(flown)]
        acked_bytes = self._land(flown, _ARRIVED)
        last, delivered = (int(flown[-1]), acked_bytes) if len(flown) else (-1, 0)
        if len(late):  # patience was too short by this much
            at = _places(late)
            beyond = now - float(self._sent_at[at].min()) - LATE_ROUND_TRIPS * self.srtt_s
            self.patience_s = min(max(self.patience_s, 1.25 * beyond), PATIENCE_MAX_S)
            self._state[at] = _ARRIVED
            last, delivered = max(last, int(late[-1])), delivered + int(self._size[at].sum())
        rtt, rate = self._sample(last, delivered, status, now) if delivered else (None, 0.0)
        lost = self._lost(status, now)
        if len(lost):
            self._land(lost, _LOST)
            lost = lost[self._length[_places(lost)] > 0]
        return Report(
            acked_packets=len(flown) + len(late),
            acked_bytes=acked_bytes,
            lost_packets=len(lost),
            lost_bytes=int(self._size[_places(lost)].sum()) if len(lost) else 0,
            lost=self.ranges(lost),
            rtt_s=rtt,
            delivery_bytes_s=rate,
            largest=int(sizes.max(initial=0)),
            late_packets=len(late),
        )

    def _land(self, numbers: NDArray[np.int64], state: int) -> int:
        """Packets in flight whose fate is known now; returns their bytes."""
        at = _places(numbers)
        self._state[at] = state
        size = int(self._size[at].sum())
        self.in_flight_bytes -= size
        self.in_flight_packets -= len(numbers)
        return size

    def _sample(self, last: int, delivered: int, status: Status, now: float) -> tuple[float | None, float]:
        """Round trip and delivery rate by the newest packet that this report acknowledges."""
        sent_at = float(self._sent_at[last & _MASK])
        self._delivered += delivered
        rtt: float | None = None
        if last == status.newest:
            rtt = max(now - sent_at - status.held_us / 1e6, RTT_LEAST_S)
            self._smooth(rtt)
        rate = 0.0
        if last > self.newest_acked:
            self.newest_acked = last
            told_at = status.clock_us / 1e6
            rate = self._rate(_Mark(self._delivered, sent_at, told_at - status.held_us / 1e6, told_at))
        if last >= self._round_ends:
            self.round += 1
            self._round_ends = self.next
            self.patience_s -= (self.patience_s - GRAIN_S) * min((now - self._round_at) / PATIENCE_MEMORY_S, 1 / PATIENCE_ROUNDS)
            self._round_at = now
        return rtt, rate

    def _rate(self, mark: _Mark) -> float:
        """What was delivered since the report a round trip ago, or 8 ms, by the slowest of three clocks: that of sending, that of
        arriving, and that of the receiver's reports, which is that of its work."""
        marks, span = self._marks, max(self.srtt_s, RATE_SPAN_S)
        while len(marks) > 1 and marks[1].told_at <= mark.told_at - span:
            marks.popleft()
        rate = 0.0
        if marks and marks[0].told_at <= mark.told_at - span:
            first = marks[0]
            elapsed = max(mark.sent_at - first.sent_at, mark.came_at - first.came_at, mark.told_at - first.told_at)
            rate = (mark.delivered - first.delivered) / elapsed
        marks.append(mark)
        return rate

    def _smooth(self, rtt: float) -> None:
        """RFC 6298."""
        if self.min_rtt_s == float("inf"):
            self.srtt_s, self.rttvar_s = rtt, rtt / 2
        else:
            self.rttvar_s += (abs(self.srtt_s - rtt) - self.rttvar_s) / 4
            self.srtt_s += (rtt - self.srtt_s) / 8
        self.min_rtt_s = min(self.min_rtt_s, rtt)

    def _lost(self, status: Status, now: float) -> NDArray[np.int64]:
        """Packets in flight that will not come any more."""
        flying = self._flying(self.newest_acked + 1)
        if not len(flying):
            return flying
        old = self._sent_at[_places(flying)] < now - LATE_ROUND_TRIPS * self.srtt_s - self.patience_s
        behind = max(self.newest_acked - REORDER, status.first - 1)
        return flying[old | (flying <= behind)]

    def _flying(self, end: int) -> NDArray[np.int64]:
        """Numbers in flight below ``end``, ascending; what lies before them is never looked at again."""
        flying = _numbers(self._state[in_ring(self._low, end, RING)].tobytes(), _FLYING, self._low)
        self._low = int(flying[0]) if len(flying) else max(self._low, end)
        return flying

    def give_up(self, *, sent_before: float) -> list[tuple[int, int]]:
        """Take everything that was sent before a time for lost; ranges as in ``Report.lost``."""
        numbers = _numbers(self._state[in_ring(self._low, self.next, RING)].tobytes(), _FLYING, self._low)
        numbers = numbers[self._sent_at[_places(numbers)] <= sent_before]
        self._land(numbers, _LOST)
        return self.ranges(numbers)

    def ranges(self, numbers: NDArray[np.int64]) -> list[tuple[int, int]]:
        """Bytes of the line that these packets carried, neighbours joined."""
        if not len(numbers):
            return []
        at = numbers & _MASK
        at = at[self._length[at] > 0]
        if not len(at):
            return []
        offsets, lengths = self._offset[at], self._length[at]
        order = np.argsort(offsets, kind="stable")
        offsets, ends = offsets[order], (offsets + lengths)[order]
        begins = np.flatnonzero(np.concatenate(([True], offsets[1:] != ends[:-1])))
        starts = offsets[begins]
        stops = ends[np.concatenate((begins[1:] - 1, [len(ends) - 1]))]
        return [(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)]

    def forget_path(self) -> None:
        """The path changed: round trips are measured anew."""
        self.srtt_s, self.rttvar_s, self.min_rtt_s = max(self.srtt_s, RTT_FIRST_S), RTT_FIRST_S / 2, float("inf")
        self._marks.clear()
