"""Which chunks are still to come, cut into requests; no input or output.

A chunk is open from the moment it is wanted until a request takes it; requests go through the line from its beginning. Whoever
takes a request says afterwards which of its chunks did not come, and these are open again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labxchange.dataset.listing import Line
from labxchange.settings import FETCH_BYTES
from labxchange.transfer.intervals import Interval, of_mask

_MAX_INTERVALS = 4096
_WINDOW = 1 << 16
"""Chunks that are looked through at a time."""


class Plan:
    """The open chunks of one line. A request has at most ``request_bytes``, but for one larger chunk."""

    def __init__(self, line: Line) -> None:
        self.request_bytes = FETCH_BYTES
        self._line = line
        self._open = np.zeros(line.chunks, np.bool_)
        self._from = 0

    def add(self, first: int, wanted: NDArray[np.bool_]) -> None:
        """Open the chunks ``first`` + i for which ``wanted`` [i] is set."""
        self._open[first : first + len(wanted)] |= wanted
        self._from = min(self._from, first)

    def drop(self, chunks: range) -> None:
        """These are not wanted any more."""
        self._open[chunks.start : chunks.stop] = False

    def clear(self) -> None:
        self._open[:] = False

    @property
    def empty(self) -> bool:
        return self._seek() == self._line.chunks

    def _seek(self) -> int:
        """The first open chunk, or the number of chunks."""
        while self._from < self._line.chunks:
            window = self._open[self._from : self._from + _WINDOW]
            at = int(window.argmax())
            if window[at]:
                self._from += at
                break
            self._from += len(window)
        return self._from

    def take(self) -> list[Interval]:
        """The next request, its chunks in order; empty when nothing is open."""
        begin = self._seek()
        request: list[Interval] = []
        room = self.request_bytes
        for first, last in of_mask(self._open[begin : begin + _WINDOW]):
            start, end = begin + first, begin + last
            fits = self._fitting(start, end, room)
            if fits < start:
                if request:
                    break
                fits = start
            request.append((start, fits))
            room -= self._line.span(start, fits)
            if fits < end or room <= 0 or len(request) >= _MAX_INTERVALS:
                break
        for start, end in request:
            self._open[start : end + 1] = False
        return request

    def _fitting(self, first: int, last: int, room: int) -> int:
        """The last chunk of a run that ``room`` bytes hold from its beginning; ``first`` - 1 when not even one."""
        begin = self._line.chunk_at(first).offset
        if begin + room >= self._line.bytes:
            return last
        end = min(last, self._line.chunk_of(begin + room))
        return end if self._line.span(first, end) <= room else end - 1
