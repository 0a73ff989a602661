"""What the sockets of a worker received and its loop has not opened yet: up to 32 MiB.

The system's buffers hold a millisecond or two of a fast link, so the loop fills the ring after each batch that it opens; the ring
holds a quarter of a second. What came joined, or came in one piece after the other from one place in one size, is taken as one
batch. It lies in segments that hold a batch each: one that was used just now is used again first, as it is still in the
processor's cache, and is cut into datagrams already. When the ring is full nothing more is received, and the system drops and
counts; full is also when it holds too many receipts, which cost memory however short they are. A thread of its own for this was
measured: the two then wait for each other's interpreter lock, at twice the CPU a byte.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections import deque
from typing import Final, NamedTuple

from labxchange.net.lane_socket import ROW_BYTES, LaneSocket, Sockaddr
from labxchange.wire.data.datagram import BATCH_BYTES, Cuts

RING_BYTES: Final = 32 << 20
RECEIPTS_MAX: Final = 1 << 15
_CALLS_A_TURN, _TURN_BYTES = 64, 1 << 20
_AGE_MAX_S: Final = 1.0


class _Segment:
    """Memory of one batch, or of several short ones; ``rows`` of them are not done with."""

    __slots__ = ("cuts", "memory", "rows")

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(BATCH_BYTES))
        self.cuts = Cuts(self.memory)
        self.rows = 0


class Row(NamedTuple):
    """Datagrams of one source and size; ``at`` is when the last of them came to this machine (monotonic seconds); ``cuts`` are of
    the memory that they lie at the beginning of."""

    data: memoryview
    size: int
    source: Sockaddr
    socket: LaneSocket
    at: float
    segment: _Segment
    cuts: Cuts | None


class _Got:
    """Receipts that are one batch, at ``begin`` to ``end`` of a segment; ``arrived_at`` is the kernel's time of the last."""

    __slots__ = ("arrived_at", "begin", "end", "segment", "size", "socket", "source")

    def __init__(
        self, segment: _Segment, begin: int, end: int, size: int, source: Sockaddr, socket: LaneSocket, arrived_at: float
    ) -> None:
        self.segment = segment
        self.begin = begin
        self.end = end
        self.size = size
        self.source = source
        self.socket = socket
        self.arrived_at = arrived_at

    def joins(self, segment: _Segment, total: int, size: int, source: Sockaddr, socket: LaneSocket) -> bool:
        """True when a receipt continues this batch: the same size, and nothing shorter before the end."""
        return (
            self.segment is segment
            and (size == self.size or (size < self.size and total == size))
            and self.socket is socket
            and self.source == source
            and (self.end - self.begin) % self.size == 0
        )


class Ring:
    """Filled and emptied by one loop; nothing here waits."""

    def __init__(self) -> None:
        self._current = _Segment()
        self._head = 0
        self._free: list[_Segment] = []
        self._unmade = max(RING_BYTES // BATCH_BYTES - 1, 0)
        self._got: deque[_Got] = deque()
        self._selector = selectors.DefaultSelector()

    def fileno(self) -> int:
        """For ``select``: readable when one of the sockets is."""
        return self._selector.fileno()

    def add(self, sock: LaneSocket) -> None:
        """Receive from this socket from now on."""
        self._selector.register(sock, selectors.EVENT_READ, sock)

    def remove(self, sock: LaneSocket) -> None:
        """No more; it is closed."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)
        sock.close()

    @property
    def has_rows(self) -> bool:
        return bool(self._got)

    @property
    def is_full(self) -> bool:
        return len(self._got) >= RECEIPTS_MAX or not (self._holds_more or self._free or self._unmade)

    @property
    def _holds_more(self) -> bool:
        return self._head + ROW_BYTES <= BATCH_BYTES

    def fill(self) -> int:
        """Take over what the sockets hold, as far as there is room; returns how many datagrams that was."""
        return sum(self._receive(key.data) for key, _ in self._selector.select(0))

    def take(self) -> Row | None:
        """The next batch; its memory is used again after ``done``."""
        if not self._got:
            return None
        got = self._got.popleft()
        segment = got.segment
        data = segment.memory[got.begin : got.end]
        cuts = segment.cuts if not got.begin else None
        return Row(data, got.size, got.source, got.socket, _arrival(got.arrived_at), segment, cuts)

    def done(self, row: Row) -> None:
        """The loop has what it needs of the row."""
        row.segment.rows -= 1
        if row.segment.rows:
            return
        if row.segment is self._current:
            self._head = 0
        else:
            self._free.append(row.segment)

    def _move_on(self) -> None:
        """Into another segment."""
        if not self._free:
            self._free.append(_Segment())
            self._unmade -= 1
        self._current, self._head = self._free.pop(), 0

    def _receive(self, sock: LaneSocket) -> int:
        before = sock.received_datagrams
        last = self._got[-1] if self._got else None
        came = 0
        for _ in range(_CALLS_A_TURN):
            if self.is_full or came > _TURN_BYTES:
                break
            if not self._holds_more:
                self._move_on()
            segment, begin = self._current, self._head
            got = sock.receive_into(segment.memory[begin : begin + ROW_BYTES])
            if got is None:
                break
            total, size, source = got
            if last is not None and last.joins(segment, total, size, source, sock):
                last.end, last.arrived_at = begin + total, sock.arrived_at
            else:
                last = _Got(segment, begin, begin + total, size, source, sock, sock.arrived_at)
                segment.rows += 1
                self._got.append(last)
            self._head += total
            came += total
        return sock.received_datagrams - before


def _arrival(arrived_at: float) -> float:
    """When something came that the kernel gave this time of the day, in monotonic seconds, unless the clock was set since."""
    age = time.time() - arrived_at
    return time.monotonic() - (age if 0.0 < age < _AGE_MAX_S else 0.0)
