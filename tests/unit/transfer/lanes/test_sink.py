"""What becomes of units: cut so that each byte of each chunk is in exactly one, written, and told with the right digests."""

from __future__ import annotations

import random
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from labxchange.dataset.listing import Line, ListedFile
from labxchange.errors import LabxchangeError, UnavailableError
from labxchange.files.quarantine import Quarantine
from labxchange.transfer.lanes.messages import Came
from labxchange.transfer.lanes.sink import LaneSink, units_of
from labxchange.wire.data.assembly import UNIT_BYTES, Unit

MIB = 1 << 20


def listing(sizes: list[tuple[int, int]]) -> Line:
    """Files of (bytes, bytes a chunk)."""
    return Line([ListedFile(f"{number:04}", size, 0, chunk) for number, (size, chunk) in enumerate(sizes)])


SIZES = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 1_000, 65_536, MIB - 1, MIB, MIB + 1, 2 * MIB, 5 * MIB + 3]) | st.integers(0, 6 * MIB),
        st.sampled_from([MIB, MIB, 2 * MIB, 4 * MIB]),
    ),
    min_size=1,
    max_size=30,
)


@given(sizes=SIZES, data=st.data())
@settings(max_examples=150, deadline=None)
def test_units_cover_each_byte_of_the_chunks_once(sizes: list[tuple[int, int]], data: st.DataObject) -> None:
    line = listing(sizes)
    if not line.chunks:
        return
    first = data.draw(st.integers(0, line.chunks - 1))
    last = data.draw(st.integers(first, line.chunks - 1))
    units = units_of(line, (first, last))
    at = line.chunk_at(first).offset
    for start, length, (low, high) in units:
        assert start == at, "one after the other, without holes"
        assert 0 < length <= UNIT_BYTES
        begin, end = line.chunk_at(low), line.chunk_at(high)
        if low == high:
            assert begin.offset <= start < start + length <= begin.offset + begin.length
            assert begin.length > UNIT_BYTES or (start, length) == (begin.offset, begin.length)
        else:
            assert start == begin.offset
            assert start + length == end.offset + end.length
        at += length
    assert at == line.chunk_at(last).offset + line.chunk_at(last).length
    named = Counter(chunk for _, _, (low, high) in units for chunk in range(low, high + 1))
    for chunk in range(first, last + 1):
        assert named[chunk] == max(1, -(-line.chunk_at(chunk).length // UNIT_BYTES))
    assert set(named) == set(range(first, last + 1))


def test_small_files_are_packed() -> None:
    units = units_of(listing([(10_000, MIB)] * 1_000), (0, 999))
    assert len(units) == -(-1_000 // (MIB // 10_000))


class Sink:
    """A sink, and what it told."""

    def __init__(self, folder: Path, line: Line) -> None:
        self.line = line
        self.came: list[Came] = []
        self.free: list[Unit] = []
        self.troubles: list[LabxchangeError] = []
        self.quarantine = Quarantine(folder, "t")
        self.sink = LaneSink(self.quarantine, line, written=self._written, trouble=self.troubles.append)

    def _written(self, unit: Unit, came: list[Came]) -> None:
        self.free.append(unit)
        self.came += came

    def put(self, data: bytes, units: list[tuple[int, int, tuple[int, int]]]) -> None:
        for start, length, chunks in units:
            unit = Unit(start, length, chunks)
            unit.buffer = memoryview(bytearray(UNIT_BYTES))
            unit.buffer[:length] = data[start : start + length]
            self.sink.put(unit)


def content(line: Line, seed: int) -> bytes:
    return random.Random(seed).randbytes(line.bytes)


@pytest.mark.parametrize("order", ["as sent", "backwards", "shuffled"])
def test_digests_are_right_whatever_the_order(tmp_path: Path, order: str) -> None:
    line = listing([(5 * MIB + 7, 2 * MIB), (0, MIB), *[(9_000, MIB)] * 50, (3 * MIB, MIB), (MIB, MIB), (4 * MIB, 4 * MIB)])
    data = content(line, 5)
    units = units_of(line, (0, line.chunks - 1))
    if order == "backwards":
        units.reverse()
    elif order == "shuffled":
        random.Random(6).shuffle(units)
    sink = Sink(tmp_path, line)
    sink.put(data, units)
    sink.sink.close()
    assert sink.troubles == []
    assert len(sink.free) == len(units)
    assert sorted(came.chunk for came in sink.came) == list(range(line.chunks))
    records = dict[int, bytes]()
    for came in sink.came:
        place = line.chunk_at(came.chunk)
        assert came.digest == blake3(data[place.offset : place.offset + place.length]).digest(), came.chunk
        if came.record:
            assert place.file not in records
            records[place.file] = came.record
    for file in range(line.files):
        if line.size[file]:
            assert records[file] == sha256(data[line.offset[file] : line.offset[file + 1]]).digest(), file
    reader = Quarantine(tmp_path, "t")
    for file in range(line.files):
        if line.size[file]:
            assert reader.read(file, 0, int(line.size[file])) == data[line.offset[file] : line.offset[file + 1]]
    reader.close()


def test_a_file_of_which_a_part_came_before_has_no_digest_of_its_own(tmp_path: Path) -> None:
    line = listing([(4 * MIB, MIB)])
    data = content(line, 7)
    sink = Sink(tmp_path, line)
    sink.put(data, units_of(line, (1, 3)))
    sink.sink.close()
    assert [came.record for came in sink.came] == [b""] * 3


def test_more_files_at_once_than_are_followed(tmp_path: Path) -> None:
    """A digest that is given up is not told; one that is told is right."""
    line = listing([(2_000, 1_000)] * 70)
    data = content(line, 8)
    even = [unit for file in range(70) for unit in units_of(line, (2 * file, 2 * file))]
    odd = [unit for file in range(70) for unit in units_of(line, (2 * file + 1, 2 * file + 1))]
    sink = Sink(tmp_path, line)
    sink.put(data, even + odd[::-1])
    sink.sink.close()
    told = {came.chunk // 2: came.record for came in sink.came if came.record}
    assert len(told) == 64
    assert all(record == sha256(data[file * 2_000 : (file + 1) * 2_000]).digest() for file, record in told.items())


def test_a_piece_that_comes_again_is_not_counted_twice(tmp_path: Path) -> None:
    """A chunk larger than a unit is told when all of it is there, not when as many bytes came."""
    line = listing([(3 * MIB, 4 * MIB)])
    data = content(line, 9)
    first, second, third = units_of(line, (0, 0))
    sink = Sink(tmp_path, line)
    sink.put(data, [first, first, first, second])
    sink.put(data, [third])
    sink.sink.close()
    (came,) = sink.came
    assert came.digest == blake3(data).digest()


def test_a_disk_that_cannot_be_written_is_told_and_nothing_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = listing([(1_000, MIB)] * 3)
    sink = Sink(tmp_path, line)

    def full(*_: object) -> None:
        raise UnavailableError("disk-full", "The disk is full.")

    monkeypatch.setattr(sink.quarantine, "write", full)
    sink.put(content(line, 1), units_of(line, (0, 0)) + units_of(line, (1, 1)))
    sink.sink.close()
    assert [error.code for error in sink.troubles] == ["disk-full"]
    assert sink.came == []


def test_lines_of_many_files_are_cut_quickly() -> None:
    line = Line.of_sizes(np.full(200_000, 1_000, np.int64))
    assert sum(length for _, length, _ in units_of(line, (0, 199_999))) == 200_000_000
