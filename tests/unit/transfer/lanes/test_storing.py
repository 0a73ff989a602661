"""Units are written, and the chunks and files in them told with the right digests, whatever order they come in."""

from __future__ import annotations

import random
from hashlib import sha256
from pathlib import Path

import pytest
from blake3 import blake3

from labxchange.dataset.listing import Line
from labxchange.files.quarantine import Quarantine
from labxchange.transfer.lanes.messages import Came
from labxchange.transfer.lanes.sink import units_of
from labxchange.transfer.lanes.storing import Storing
from tests.unit.transfer.lanes.test_sink import MIB, content, listing


def stored(folder: Path, line: Line, data: bytes, units: list[tuple[int, int, tuple[int, int]]]) -> list[Came]:
    """What is told of them."""
    with Quarantine(folder, "t") as quarantine:
        storing = Storing(quarantine, line)
        parts = [storing.store(start, chunks, memoryview(data)[start : start + length]) for start, length, chunks in units]
    return [came for part in parts for came in part]


@pytest.mark.parametrize("order", ["as sent", "backwards", "shuffled"])
def test_digests_are_right_whatever_the_order(tmp_path: Path, order: str) -> None:
    line = listing([(5 * MIB + 7, 2 * MIB), (0, MIB), *[(9_000, MIB)] * 50, (3 * MIB, MIB), (MIB, MIB), (4 * MIB, 4 * MIB)])
    data = content(line, 5)
    units = units_of(line, (0, line.chunks - 1))
    if order == "backwards":
        units.reverse()
    elif order == "shuffled":
        random.Random(6).shuffle(units)
    told = stored(tmp_path, line, data, units)
    assert sorted(came.chunk for came in told) == list(range(line.chunks))
    records = dict[int, bytes]()
    for came in told:
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
    assert [came.record for came in stored(tmp_path, line, data, units_of(line, (1, 3)))] == [b""] * 3


def test_more_files_at_once_than_are_followed(tmp_path: Path) -> None:
    """A digest that is given up is not told; one that is told is right."""
    line = listing([(2_000, 1_000)] * 70)
    data = content(line, 8)
    even = [unit for file in range(70) for unit in units_of(line, (2 * file, 2 * file))]
    odd = [unit for file in range(70) for unit in units_of(line, (2 * file + 1, 2 * file + 1))]
    told = {came.chunk // 2: came.record for came in stored(tmp_path, line, data, even + odd[::-1]) if came.record}
    assert len(told) == 64
    assert all(record == sha256(data[file * 2_000 : (file + 1) * 2_000]).digest() for file, record in told.items())


def test_a_piece_that_comes_again_is_not_counted_twice(tmp_path: Path) -> None:
    """A chunk larger than a unit is told when all of it is there, not when as many bytes came."""
    line = listing([(3 * MIB, 4 * MIB)])
    data = content(line, 9)
    first, second, third = units_of(line, (0, 0))
    (came,) = stored(tmp_path, line, data, [first, first, first, second, third])
    assert came.digest == blake3(data).digest()
