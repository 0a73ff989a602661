"""Bytes for a lane that sends: those of the files, in any order of asking; a file not as listed is named, others go on."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from labxchange.dataset.listing import Line
from labxchange.errors import UnavailableError
from labxchange.files.reading import SourceReader
from labxchange.files.scan import scan
from labxchange.transfer.lanes.source import LaneSource
from labxchange.wire.data.asked import Gone

SIZES = [0, 1, 700, 1 << 20, 300_000, (4 << 20) + 5, 0, 40_000, 5]


class Folder:
    def __init__(self, place: Path) -> None:
        self.place = place
        chance = random.Random(4)
        self.data = b""
        for number, size in enumerate(SIZES):
            content = chance.randbytes(size)
            (place / f"{number:02}").write_bytes(content)
            self.data += content
        self.found = scan([place])
        self.line = Line(self.found.files)
        self.threads = ThreadPoolExecutor(2)
        self.source = LaneSource(self.found.sources, self.found.files, self.line, self.threads)

    def read(self, start: int, end: int, length: int = 63_000) -> bytes:
        """As a sender asks: onward from ``start``, again when nothing is at hand."""
        out = b""
        while start < end:
            piece = bytes(self.source(start, min(length, end - start)))
            if not piece and self.source._ahead is not None:
                self.source._ahead.exception(10.0)
            out += piece
            start += len(piece)
        return out

    def span(self, file: int) -> tuple[int, int]:
        return int(self.line.offset[file]), int(self.line.offset[file + 1])


@pytest.fixture(params=["in memory", "not in memory", "now and then"])
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Folder]:
    chance, read_at_once = random.Random(5), SourceReader.read_at_once

    def read(reader: SourceReader, index: int, offset: int, view: memoryview) -> bool:
        in_memory = {"in memory": True, "not in memory": False, "now and then": chance.random() < 0.5}[request.param]
        if not in_memory:
            view[:] = bytes(len(view))
        return in_memory and read_at_once(reader, index, offset, view)

    monkeypatch.setattr(SourceReader, "read_at_once", read)
    made = Folder(tmp_path)
    yield made
    made.source.close()
    made.threads.shutdown()


def test_the_whole_line(folder: Folder) -> None:
    assert folder.read(0, folder.line.bytes) == folder.data


@pytest.mark.parametrize("seed", range(6))
def test_any_ranges_with_bytes_from_before_between(folder: Folder, seed: int) -> None:
    """Onward, with resends of what was sent before, long and short."""
    chance, at = random.Random(seed), 0
    while at < folder.line.bytes:
        end = min(at + chance.choice([1, 1_164, 50_000, 400_000]), folder.line.bytes)
        assert folder.read(at, end, chance.choice([1_164, 50_000, 64_064])) == folder.data[at:end]
        at = end
        if chance.random() < 0.5:
            start = chance.randrange(at)
            stop = min(start + chance.choice([1, 1_164, 90_000, 1 << 20]), folder.line.bytes)
            assert folder.read(start, stop) == folder.data[start:stop]


@pytest.mark.parametrize("length", [64_064, 400_000, 735_232, 1_010_944])
def test_a_large_file_that_is_in_memory_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """Whatever of it goes into a batch."""
    size, read = 16 << 20, 0
    (tmp_path / "large").write_bytes(random.Random(6).randbytes(size))
    read_at_once = SourceReader.read_at_once

    def count(reader: SourceReader, index: int, offset: int, view: memoryview) -> bool:
        nonlocal read
        read += len(view)
        return read_at_once(reader, index, offset, view)

    monkeypatch.setattr(SourceReader, "read_at_once", count)
    found = scan([tmp_path])
    with ThreadPoolExecutor(1) as threads:
        source = LaneSource(found.sources, found.files, Line(found.files), threads)
        at = 0
        while at < size:
            piece = source(at, min(length, size - at))
            if not piece and source._ahead is not None:
                source._ahead.exception(10.0)
            at += len(piece)
        source.close()
    assert size / 2 < read < 1.05 * size


def _grow(place: Path) -> None:
    place.write_bytes(b"x" * (SIZES[5] + 1))


def _rewrite(place: Path) -> None:
    os.utime(place, (1, 1))


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (lambda place: os.truncate(place, 100), {"shrunk"}),
        (lambda place: place.unlink(), {"removed", "changed-while-read"}),
        (_grow, {"changed-after-listing", "changed-while-read"}),
        (_rewrite, {"changed-after-listing", "changed-while-read"}),
    ],
)
@pytest.mark.parametrize("when", ["before", "half way"])
def test_a_file_that_changed_is_gone_and_the_rest_is_there(folder: Folder, change: Any, reasons: set[str], when: str) -> None:
    begin, end = folder.span(5)
    if when == "half way":
        assert folder.read(0, begin + 70_000) == folder.data[: begin + 70_000]
    time.sleep(0.002)  # so that the time of change differs
    change(folder.place / "05")
    out, at = b"", 0
    while at < folder.line.bytes:
        try:
            piece = folder.read(at, min(at + 30_000, folder.line.bytes), 30_000)
        except Gone as gone:
            assert (gone.start, gone.end) == (begin, end)
            assert begin <= at + 30_000
            out = out[:begin] + folder.data[len(out[:begin]) : begin] if at < begin else out[:begin]
            out += bytes(end - begin)
            at = end
        else:
            out += piece
            at += len(piece)
    assert folder.source.reasons.keys() == {5}
    assert set(folder.source.reasons.values()) <= reasons
    assert out[:begin] == folder.data[:begin]
    assert out[end:] == folder.data[end:]


def test_a_file_that_cannot_be_opened_for_another_reason_is_gone_too(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong with a file ends this file, not the worker with all its lanes."""
    inner = folder.source._reader.read_into

    def read_into(file: int, offset: int, view: memoryview) -> None:
        if file == 4:
            raise UnavailableError("out-of-descriptors", "Too many files are open.")
        inner(file, offset, view)

    monkeypatch.setattr(folder.source._reader, "read_into", read_into)
    begin, end = folder.span(4)
    with pytest.raises(Gone):
        folder.read(begin, end)
    assert folder.source.reasons == {4: "unreadable"}
    assert folder.read(end, folder.line.bytes) == folder.data[end:]
