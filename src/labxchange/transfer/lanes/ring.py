"""Datagrams between the thread that receives them and the loop that opens them: a ring of 32 MiB, and a thread that fills it.

The system's buffers hold a millisecond or two of a fast link; this ring holds a quarter of a second, so that a pause of the loop
costs nothing. What came joined, or came in one piece after the other from one place in one size, is taken as one batch. When the
ring is full the thread stops, and the system drops and counts; full is also when it holds too many receipts, which cost memory
however short they are.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from collections import deque
from typing import Final, NamedTuple

from labxchange.net.lane_socket import ROW_BYTES, LaneSocket, Sockaddr

RING_BYTES: Final = 32 << 20
RECEIPTS_MAX: Final = 1 << 15
_CALLS_A_TURN: Final = 32
_FULL_PAUSE_S: Final = 0.001
_FEW_DATAGRAMS: Final = 16
_GATHER_S: Final = 0.0005
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


class _Got(NamedTuple):
    """One receipt, from position ``begin`` of all that was ever received; positions wrap round the memory, no receipt does."""

    begin: int
    end: int
    size: int
    source: Sockaddr
    socket: LaneSocket
    at: float


class Ring:
    """One thread receives, one loop takes; ``sleeping`` tells the thread that the loop waits to be woken."""

    def __init__(self) -> None:
        self.sleeping = False
        self._memory = memoryview(bytearray(RING_BYTES))
        self._head = 0
        self._tail = 0
        self._got: deque[_Got] = deque()
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[int, LaneSocket] = {}
        self._changes: deque[tuple[LaneSocket, bool]] = deque()
        self.wake_descriptor, self._wake_write = os.pipe()
        self._nudged, self._nudge_write = os.pipe()
        for descriptor in (self.wake_descriptor, self._wake_write, self._nudged, self._nudge_write):
            os.set_blocking(descriptor, False)
        self._selector.register(self._nudged, selectors.EVENT_READ)
        self._over = False
        self._thread = threading.Thread(target=self._run, name="receive", daemon=True)
        self._thread.start()

    def add(self, sock: LaneSocket) -> None:
        """Receive from this socket from now on."""
        self._changes.append((sock, True))
        _write(self._nudge_write)

    def remove(self, sock: LaneSocket) -> None:
        """No more; the thread closes it."""
        self._changes.append((sock, False))
        _write(self._nudge_write)

    def close(self) -> None:
        self._over = True
        _write(self._nudge_write)

    @property
    def has_rows(self) -> bool:
        return bool(self._got)

    def wake(self) -> None:
        """Wake the loop when it waits; from any thread."""
        if self.sleeping:
            _write(self._wake_write)

    def drain_wake(self) -> None:
        """The loop is awake."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wake_descriptor, 4096):
                pass

    def take(self) -> Row | None:
        """The next batch; its memory is used again after ``done``."""
        if not self._got:
            return None
        begin, end, size, source, sock, at = self._got.popleft()
        while self._got and self._follows(self._got[0], begin, end, size, sock, source):
            following = self._got.popleft()
            end, at = following.end, following.at
        place = begin % RING_BYTES
        return Row(self._memory[place : place + end - begin], size, source, sock, at, end)

    def done(self, row: Row) -> None:
        """The loop has what it needs of the row, and of all before it."""
        self._tail = row.end

    @staticmethod
    def _follows(got: _Got, begin: int, end: int, size: int, sock: LaneSocket, source: Sockaddr) -> bool:
        """True when a receipt continues a batch: the same size, and nothing shorter before the end."""
        if got.begin != end or got.end - begin > ROW_BYTES or got.socket is not sock or got.source != source:
            return False
        is_whole, length = (end - begin) % size == 0, got.end - got.begin
        return is_whole and (got.size == size or (got.size < size and length == got.size))

    # --- the thread ---------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(1.0):
                if key.fd == self._nudged:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._nudged, 4096)
                    self._change()
                elif (sock := self._sockets.get(key.fd)) is not None and self._receive(sock) < _FEW_DATAGRAMS:
                    # A thread that wakes for each datagram costs more than the datagram; the system holds two milliseconds'
                    # worth, and knows when each came.
                    time.sleep(_GATHER_S)

    def _receive(self, sock: LaneSocket) -> int:
        """All that is there; returns how many datagrams that was."""
        before = sock.received_datagrams
        for _ in range(_CALLS_A_TURN):
            rest = RING_BYTES - self._head % RING_BYTES
            if rest < ROW_BYTES:
                self._head += rest
            while self._head + ROW_BYTES - self._tail > RING_BYTES or len(self._got) >= RECEIPTS_MAX:
                self.wake()
                time.sleep(_FULL_PAUSE_S)
            place = self._head % RING_BYTES
            got = sock.receive_into(self._memory[place : place + ROW_BYTES])
            if got is None:
                break
            total, size, source = got
            self._got.append(_Got(self._head, self._head + total, size, source, sock, _arrival(sock)))
            self._head += total
        if self._got:
            self.wake()
        return sock.received_datagrams - before

    def _change(self) -> None:
        while self._changes:
            sock, is_new = self._changes.popleft()
            if is_new:
                self._sockets[sock.fileno()] = sock
                self._selector.register(sock.fileno(), selectors.EVENT_READ)
            else:
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(sock.fileno())
                    del self._sockets[sock.fileno()]
                sock.close()


def _arrival(sock: LaneSocket) -> float:
    """When what was just received came, in monotonic seconds: the kernel's time, unless the clock of the day was set since."""
    age = time.time() - sock.arrived_at
    return time.monotonic() - (age if 0.0 < age < _AGE_MAX_S else 0.0)


def _write(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.write(descriptor, b"x")
