"""What the sockets of a worker received and its loop has not opened yet: a ring of 32 MiB.

The system's buffers hold a millisecond or two of a fast link, so the loop fills the ring after each batch that it opens; the ring
holds a quarter of a second. What came joined, or came in one piece after the other from one place in one size, is taken as one
batch. When the ring is full nothing more is received, and the system drops and counts; full is also when it holds too many
receipts, which cost memory however short they are. A thread of its own for this was measured: the two then wait for each other's
interpreter lock, at twice the CPU a byte.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections import deque
from typing import Final, NamedTuple

from labxchange.net.lane_socket import ROW_BYTES, LaneSocket, Sockaddr
from labxchange.wire.data.datagram import BATCH_BYTES

RING_BYTES: Final = 32 << 20
RECEIPTS_MAX: Final = 1 << 15
_CALLS_A_TURN, _TURN_BYTES = 64, 512 << 10
_AGE_MAX_S: Final = 1.0


class Row(NamedTuple):
    """Datagrams of one source and size; ``at`` is when the last of them came to this machine (monotonic seconds), ``end`` where
    they end in all that was ever received."""

    data: memoryview
    size: int
    source: Sockaddr
    socket: LaneSocket
    at: float
    end: int


class _Got:
    """Receipts that are one batch, from position ``begin`` of all that was ever received; positions wrap round the memory, no
    receipt does. ``arrived_at`` is the kernel's time of the last."""

    __slots__ = ("arrived_at", "begin", "end", "size", "socket", "source")

    def __init__(self, begin: int, end: int, size: int, source: Sockaddr, socket: LaneSocket, arrived_at: float) -> None:
        self.begin = begin
        self.end = end
        self.size = size
        self.source = source
        self.socket = socket
        self.arrived_at = arrived_at

    def joins(self, begin: int, total: int, size: int, source: Sockaddr, socket: LaneSocket) -> bool:
        """True when a receipt continues this batch: the same size, and nothing shorter before the end."""
        return (
            self.end == begin
            and (size == self.size or (size < self.size and total == size))
            and self.socket is socket
            and self.source == source
            and (begin - self.begin) % self.size == 0
            and begin + total - self.begin <= BATCH_BYTES
        )


class Ring:
    """Filled and emptied by one loop; nothing here waits."""

    def __init__(self) -> None:
        self._memory = memoryview(bytearray(RING_BYTES))
        self._head = 0
        self._tail = 0
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
        return self._head + 2 * ROW_BYTES - self._tail > RING_BYTES or len(self._got) >= RECEIPTS_MAX

    def fill(self) -> int:
        """Take over what the sockets hold, as far as there is room; returns how many datagrams that was."""
        return sum(self._receive(key.data) for key, _ in self._selector.select(0))

    def take(self) -> Row | None:
        """The next batch; its memory is used again after ``done``."""
        if not self._got:
            return None
        got = self._got.popleft()
        place = got.begin % RING_BYTES
        data = self._memory[place : place + got.end - got.begin]
        return Row(data, got.size, got.source, got.socket, _arrival(got.arrived_at), got.end)

    def done(self, row: Row) -> None:
        """The loop has what it needs of the row, and of all before it."""
        self._tail = row.end

    def _receive(self, sock: LaneSocket) -> int:
        before = sock.received_datagrams
        if self._tail == self._head:
            self._tail = self._head = 0  # nothing is in it: memory that was used just now is still in the processor's cache
        last = self._got[-1] if self._got else None
        end = self._head + _TURN_BYTES
        for _ in range(_CALLS_A_TURN):
            if self.is_full or self._head > end:
                break
            rest = RING_BYTES - self._head % RING_BYTES
            if rest < ROW_BYTES:
                self._head += rest
            place = self._head % RING_BYTES
            got = sock.receive_into(self._memory[place : place + ROW_BYTES])
            if got is None:
                break
            total, size, source = got
            if last is not None and last.joins(self._head, total, size, source, sock):
                last.end, last.arrived_at = self._head + total, sock.arrived_at
            else:
                last = _Got(self._head, self._head + total, size, source, sock, sock.arrived_at)
                self._got.append(last)
            self._head += total
        return sock.received_datagrams - before


def _arrival(arrived_at: float) -> float:
    """When something came that the kernel gave this time of the day, in monotonic seconds, unless the clock was set since."""
    age = time.time() - arrived_at
    return time.monotonic() - (age if 0.0 < age < _AGE_MAX_S else 0.0)
