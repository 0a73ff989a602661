"""Where the bytes of a lane come together: units of at most 1 MiB, complete when every byte of them is here.

A unit is a run of whole chunks, or a MiB of a chunk that is larger. What was not asked for, or is here already, is dropped; bytes
that are in place are never written again, so a repeat cannot change them. Memory is what was asked for and is not complete;
how much that may be is left to who asks, what is done with a unit to who takes it. A large unit lies in one of the ``slots`` that
were given, where there is a free one, so that who takes it need not be told more than its number.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

UNIT_BYTES: Final = 1 << 20
_ZEROS_BYTES: Final = 1 << 16


class Unit:
    """Bytes [start, start + length) of the line and the numbers of the chunks that it holds (or holds a part of); ``slot`` is the
    number of the slot that ``buffer`` is, or None."""

    __slots__ = ("_gaps", "buffer", "chunks", "length", "slot", "start")

    def __init__(self, start: int, length: int, chunks: tuple[int, int]) -> None:
        self.start = start
        self.length = length
        self.chunks = chunks
        self.buffer: memoryview | None = None
        self.slot: int | None = None
        self._gaps = [(0, length)]

    def put(self, offset: int, data: memoryview) -> int:
        """Copy what of ``data`` is missing at ``offset`` of the unit; returns how many bytes that was."""
        end, added, gaps = offset + len(data), 0, self._gaps
        index = max(bisect_right(gaps, (offset, self.length + 1)) - 1, 0)
        while index < len(gaps) and gaps[index][0] < end:
            begin, stop = gaps[index]
            low, high = max(begin, offset), min(stop, end)
            if low >= high:
                index += 1
                continue
            assert self.buffer is not None
            self.buffer[low:high] = data[low - offset : high - offset]
            added += high - low
            left = [(begin, low)] if begin < low else []
            right = [(high, stop)] if high < stop else []
            gaps[index : index + 1] = left + right
            index += len(left)
        return added

    @property
    def is_complete(self) -> bool:
        return not self._gaps


class Assembly:
    """The units that were asked for and have not come whole; ``complete`` holds those that have, to be taken.

    Args:
        slots: memory of ``UNIT_BYTES`` each, used again and again; who has none free gets memory of its own.
    """

    def __init__(self, slots: Sequence[memoryview] = ()) -> None:
        self._slots = slots
        self._free = list(range(len(slots)))[::-1]
        self._starts: list[int] = []
        self._units: dict[int, Unit] = {}
        self.complete: deque[Unit] = deque()
        self.unasked_bytes = 0
        self.repeated_bytes = 0

    def expect(self, units: Iterable[tuple[int, int, tuple[int, int]]]) -> None:
        """Units as (start in the line, length, (first chunk, last chunk)); one that waits already is left as it is."""
        for start, length, chunks in units:
            if start not in self._units:
                self._units[start] = Unit(start, length, chunks)
                insort(self._starts, start)

    @property
    def waits(self) -> bool:
        """Something that was asked for has not come whole."""
        return bool(self._units)

    def put(self, offset: int, data: memoryview) -> int:
        """Bytes of the line from ``offset`` on; returns how many were missing."""
        added = 0
        while data:
            index = bisect_right(self._starts, offset) - 1
            unit = self._units[self._starts[index]] if index >= 0 else None
            if unit is None or offset >= unit.start + unit.length:
                after = self._starts[index + 1] - offset if index + 1 < len(self._starts) else len(data)
                skipped = min(after, len(data))
                self.unasked_bytes += skipped
                offset, data = offset + skipped, data[skipped:]
                continue
            if unit.buffer is None:
                self._give_memory(unit)
            count = min(len(data), unit.start + unit.length - offset)
            new = unit.put(offset - unit.start, data[:count])
            self.repeated_bytes += count - new
            added += new
            if unit.is_complete:
                del self._units[unit.start]
                del self._starts[index]
                self.complete.append(unit)
            offset, data = offset + count, data[count:]
        return added

    def _give_memory(self, unit: Unit) -> None:
        """A small unit gets no more than it needs: of those there may be thousands."""
        if unit.length > UNIT_BYTES // 2 and self._free:
            unit.slot = self._free.pop()
            unit.buffer = self._slots[unit.slot]
        else:
            unit.buffer = memoryview(bytearray(unit.length))

    def give_back(self, unit: Unit) -> None:
        """The unit was written: its slot can be used again."""
        if unit.slot is not None:
            self._free.append(unit.slot)
        unit.slot = unit.buffer = None

    def skip(self, start: int, end: int) -> None:
        """Bytes [start, end) do not come: zeros stand in for them, so that the rest of their units need not wait."""
        zeros = memoryview(bytes(_ZEROS_BYTES))
        while start < end:
            self.put(start, zeros[: end - start])
            start += _ZEROS_BYTES
