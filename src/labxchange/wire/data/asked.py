"""What a lane has to send: ranges of the line that were asked for, and before them what was lost on the way.

A range is taken off when it was read. Bytes that cannot be read leave every queue and are told of with the request that asked for
them, or by themselves (``LATE``) where that was told of already. When to send, and what is lost, is left to ``sender``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import numpy as np

from labxchange.wire.data.datagram import BATCH_BYTES, Offsets
from labxchange.wire.data.events import Asked, Event

LATE: Final = -1
"""In the place of a request: what is gone belongs to requests that were told of already."""

Range = tuple[int, int]


class Gone(Exception):
    """Internal between reader and sender: bytes [start, end) of the line cannot be read as they were listed."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__(start, end)
        self.start = start
        self.end = end


class Read(Protocol):
    """Bytes of the line from ``offset`` on, at most ``length``, good until the next call; none when they are not at hand yet;
    raises Gone."""

    def __call__(self, offset: int, length: int) -> memoryview: ...


class _Request:
    __slots__ = ("gone", "id", "ranges")

    def __init__(self, number: int, ranges: Sequence[Range]) -> None:
        self.id = number
        self.ranges = deque(ranges)
        self.gone: list[Range] = []


class Queue:
    """See the module.

    Args:
        read: gives the bytes.
        events: where the end of each request is told.
    """

    def __init__(self, read: Read, events: deque[Event]) -> None:
        self._read = read
        self._events = events
        self._requests: deque[_Request] = deque()
        self._lost: deque[Range] = deque()
        self._batch = memoryview(bytearray(BATCH_BYTES))

    def ask(self, request: int, ranges: Sequence[Range]) -> None:
        """Send bytes [start, end) of the line, in this order, after what was asked for before."""
        self._requests.append(_Request(request, [item for item in ranges if item[0] < item[1]]))

    def lost(self, ranges: Iterable[Range]) -> None:
        """Send these again, before anything new."""
        self._lost.extend(ranges)

    @property
    def has_new(self) -> bool:
        return bool(self._requests)

    @property
    def has_lost(self) -> bool:
        return bool(self._lost)

    def take(self, limit: int, room: int) -> tuple[Offsets, memoryview]:
        """Up to ``limit`` datagrams of ``room`` bytes, of what was lost if anything was: where they lie in the line, and the
        bytes, good until the next call; none when they are not at hand yet. Raises Gone for bytes that it has dropped."""
        try:
            return self._take_lost(limit, room) if self._lost else self._take_new(limit * room)
        except Gone as gone:
            self._drop(gone)
            raise

    def _take_new(self, length: int) -> tuple[int, memoryview]:
        self._finish()
        if not self._requests:
            return 0, memoryview(b"")
        taken = self._take(self._requests[0].ranges, length)
        self._finish()
        return taken

    def _take(self, queue: deque[Range], length: int) -> tuple[int, memoryview]:
        """Where the first range of a queue begins, and up to ``length`` bytes of it."""
        start, end = queue[0]
        payload = self._read(start, min(length, end - start))
        queue.popleft()
        if start + len(payload) < end:
            queue.appendleft((start + len(payload), end))
        return start, payload

    def _take_lost(self, limit: int, room: int) -> tuple[Offsets, memoryview]:
        """As many datagrams as go into a batch: they lie apart, and one system call for each would be dear."""
        used, places = 0, list[int]()
        while self._lost and len(places) < limit:
            if places and self._lost[0][1] - self._lost[0][0] < room:
                break  # only the last of a batch may be shorter
            try:
                start, payload = self._take(self._lost, (limit - len(places)) * room)
            except Gone:
                if not places:
                    raise
                break  # it is met again, then as the first
            if not payload:
                break
            self._batch[used : used + len(payload)] = payload
            used += len(payload)
            places += range(start, start + len(payload), room)
            if len(payload) % room:
                break
        return np.array(places, np.int64), self._batch[:used]

    def _finish(self) -> None:
        """Requests of which nothing is left to be sent for the first time."""
        while self._requests and not self._requests[0].ranges:
            request = self._requests.popleft()
            self._events.append(Asked(request.id, tuple(request.gone)))

    def _drop(self, gone: Gone) -> None:
        if any(start < gone.end and gone.start < end for start, end in self._lost):
            self._events.append(Asked(LATE, ((gone.start, gone.end),)))
        self._lost = deque(piece for first, end in self._lost for piece in _without(first, end, gone))
        for request in self._requests:
            kept = [piece for first, end in request.ranges for piece in _without(first, end, gone)]
            if kept != list(request.ranges):
                request.gone.append((gone.start, gone.end))
                request.ranges = deque(kept)
        self._finish()


def _without(start: int, end: int, gone: Gone) -> list[Range]:
    pieces = [(start, min(end, gone.start)), (max(start, gone.end), end)]
    return [(first, last) for first, last in pieces if first < last]
