"""What becomes of units: cut so that each byte of each chunk is in exactly one, written by the writer, a real process, and told
with the right digests."""

from __future__ import annotations

import os
import random
import selectors
import socket
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from labxchange.dataset.listing import Line, ListedFile
from labxchange.transfer.lanes.messages import Came, Contents, Trouble
from labxchange.transfer.lanes.sink import LaneSink, Writer, units_of
from labxchange.transfer.lanes.slots import make_slots
from labxchange.wire.data.assembly import UNIT_BYTES, Assembly

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
    """A sink with its writer, and what it told."""

    def __init__(self, folder: Path, line: Line, *, slots: int = 64) -> None:
        self.came: list[Came] = []
        self.troubles: list[Trouble] = []
        self.written = 0
        self.ended = False
        """The writer is gone."""
        self.selector = selectors.DefaultSelector()
        self.node, self.other = socket.socketpair()
        self.writer = Writer(self.other, self.selector)
        memory = make_slots()
        self.assembly = Assembly(memory.each[:slots])
        contents = Contents(job=1, transfer="t", destination=os.fsencode(folder), sizes=sizes_of(line))
        self.sink = LaneSink(self.writer, contents, memory, selector=self.selector, data="the job")
        memory.close()

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.kill()
        self.until(lambda: self.ended)
        assert self.writer._process is not None
        assert self.writer._control is not None
        self.writer._process.wait()
        for sock in (self.node, self.other, self.writer._control):
            sock.close()
        self.selector.close()

    def put(self, data: bytes, units: list[tuple[int, int, tuple[int, int]]]) -> None:
        for start, length, chunks in units:
            self.assembly.expect([(start, length, chunks)])
            self.assembly.put(start, memoryview(data)[start : start + length])
            self.sink.put(self.assembly.complete.popleft())
            self._take()

    def end(self) -> None:
        """Everything that was put is written."""
        self.sink.end()
        self.until(lambda: self.sink.is_over)
        self.sink.close()

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._take(30.0)

    def _take(self, wait_s: float = 0.0) -> None:
        ready = self.selector.select(wait_s)
        assert ready or not wait_s, "the writer says nothing"
        for key, _ in ready:
            if key.data is None:
                self.ended = True
                self.selector.unregister(key.fileobj)
                continue
            for news in self.sink.take():
                if isinstance(news, Trouble):
                    self.troubles.append(news)
                else:
                    self.assembly.give_back(news[0])
                    self.came += news[1]
                    self.written += 1


def sizes_of(line: Line) -> bytes:
    return np.asarray(line.size, np.int64).tobytes()


def content(line: Line, seed: int) -> bytes:
    return random.Random(seed).randbytes(line.bytes)


@pytest.mark.parametrize("slots", [64, 2, 0])
def test_units_are_written_and_told(tmp_path: Path, slots: int) -> None:
    """Wherever they lie: in memory that both see, or in none, as where the system has no such memory."""
    line = listing([(5 * MIB + 7, MIB), (0, MIB), *[(9_000, MIB)] * 50, (3 * MIB, MIB), (MIB, MIB)])
    data, units = content(line, 5), units_of(line, (0, line.chunks - 1))
    random.Random(6).shuffle(units)
    with Sink(tmp_path, line, slots=slots) as sink:
        sink.put(data, units)
        sink.end()
    assert sink.troubles == []
    assert sink.written == len(units)
    assert sorted(came.chunk for came in sink.came) == list(range(line.chunks))
    for came in sink.came:
        place = line.chunk_at(came.chunk)
        assert came.digest == blake3(data[place.offset : place.offset + place.length]).digest(), came.chunk
        assert tmp_path.joinpath(".labxchange-t", f"{place.file}.part").stat().st_size == line.size[place.file]


def test_a_disk_that_cannot_be_written_is_told_and_nothing_waits(tmp_path: Path) -> None:
    line = listing([(1_000, MIB)] * 3)
    with Sink(tmp_path, line) as sink:
        sink.put(content(line, 1), units_of(line, (0, 0)))
        sink.until(lambda: sink.written == 1)
        (part,) = tmp_path.glob(".labxchange-t/0.part")
        (part.parent / "1.part").mkdir()  # where the next one is to be written
        sink.put(content(line, 1), units_of(line, (1, 1)) + units_of(line, (2, 2)))
        sink.end()
    (trouble,) = sink.troubles
    assert trouble.sentence
    assert [came.chunk for came in sink.came] == [0]


def test_listings_larger_than_a_socket_holds(tmp_path: Path) -> None:
    line = Line.of_sizes(np.full(300_000, 100, np.int64))
    data = content(line, 3)
    with Sink(tmp_path, line) as sink:
        sink.put(data, units_of(line, (299_000, 299_999)))
        sink.end()
    assert [came.chunk for came in sink.came] == list(range(299_000, 300_000))


def test_two_transfers_of_one_writer(tmp_path: Path) -> None:
    """The end of one is not the end of the other."""
    line = listing([(3 * MIB, MIB)])
    data, units = content(line, 4), units_of(line, (0, 2))
    with Sink(tmp_path, line) as sink:
        memory = make_slots()
        contents = Contents(job=2, transfer="u", destination=os.fsencode(tmp_path), sizes=sizes_of(line))
        with selectors.DefaultSelector() as selector:
            other = LaneSink(sink.writer, contents, memory, selector=selector, data=None)
            memory.close()
            other.end()
            while not other.is_over:
                selector.select()
                other.take()
            other.close()
        sink.put(data, units)
        sink.end()
    assert sink.came[-1].record == sha256(data).digest()


def test_a_writer_that_is_killed_is_told(tmp_path: Path) -> None:
    line = listing([(3 * MIB, MIB)])
    with Sink(tmp_path, line) as sink:
        sink.put(content(line, 4), units_of(line, (0, 0)))
        sink.until(lambda: sink.written == 1)
        sink.writer.kill()
        sink.until(lambda: sink.ended and sink.sink.is_over)
        sink.put(content(line, 4), units_of(line, (1, 1)))  # and what is put then is no error
        sink.sink.close()
        memory = make_slots()
        contents = Contents(job=2, transfer="u", destination=os.fsencode(tmp_path), sizes=sizes_of(line))
        next_one = LaneSink(sink.writer, contents, memory, selector=sink.selector, data="another job")
        memory.close()
        assert next_one.take() == []
        assert next_one.is_over, "nor is a transfer that begins before the worker has heard of it"
        next_one.close()


def test_a_writer_ends_with_its_worker(tmp_path: Path) -> None:
    """The node's end of the worker's socket is closed by the system when both are gone, and not before."""
    line = listing([(3 * MIB, MIB)])
    with Sink(tmp_path, line) as sink:
        sink.put(content(line, 4), units_of(line, (0, 0)))
        sink.until(lambda: sink.written == 1)
        sink.other.close()
        sink.node.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sink.node.recv(1)
        assert sink.writer._control is not None
        sink.selector.unregister(sink.writer._control)
        sink.writer._control.close()
        sink.ended = True
        sink.node.settimeout(30.0)
        assert sink.node.recv(1) == b""
        sink.sink.close()


def test_lines_of_many_files_are_cut_quickly() -> None:
    line = Line.of_sizes(np.full(200_000, 1_000, np.int64))
    assert sum(length for _, length, _ in units_of(line, (0, 199_999))) == 200_000_000
