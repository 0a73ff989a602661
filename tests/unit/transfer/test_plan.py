"""What is asked for and from where: plans, digests that become known, chunks of earlier versions - against plain sets."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from labxchange.dataset.listing import Line, ListedFile
from labxchange.files.earlier import EarlierFiles
from labxchange.files.quarantine import Quarantine
from labxchange.settings import FETCH_BYTES
from labxchange.transfer.digests import ChunkDigests
from labxchange.transfer.intervals import Interval, of_numbers, without
from labxchange.transfer.plan import Plan
from labxchange.transfer.reuse import Held, Reuse
from labxchange.transfer.wanted import Wanted

MIB = 1 << 20


def numbers(intervals: list[Interval]) -> set[int]:
    return {number for first, last in intervals for number in range(first, last + 1)}


def line_of(sizes: list[int], *, chunk_bytes: int = MIB) -> Line:
    return Line([ListedFile(f"f{number:05d}", size, 0, chunk_bytes) for number, size in enumerate(sizes)])


def bytes_of(line: Line, request: list[Interval]) -> int:
    return sum(line.chunk_at(chunk).length for chunk in numbers(request))


@pytest.mark.parametrize("seed", range(20))
def test_every_open_chunk_is_asked_for_once_in_order_and_within_the_limit(seed: int) -> None:
    chance = random.Random(f"plan {seed}")
    line = line_of([chance.choice([0, 10, 70_000, MIB, 3 * MIB + 7, 40 * MIB]) for _ in range(chance.randrange(1, 200))])
    plan = Plan(line)
    open_ = np.array([chance.random() < 0.7 for _ in range(line.chunks)], np.bool_)
    plan.add(0, open_)
    asked: set[int] = set()
    while request := plan.take():
        chunks = numbers(request)
        assert request == sorted(request)
        assert chunks
        assert not chunks & asked
        assert bytes_of(line, request) <= FETCH_BYTES or len(chunks) == 1
        asked |= chunks
    assert asked == set(np.flatnonzero(open_))
    assert plan.empty
    if line.chunks:
        plan.add(0, np.ones(1, np.bool_))
        assert not plan.empty
        assert plan.take() == [(0, 0)]


def test_a_chunk_above_the_limit_goes_alone() -> None:
    line = line_of([10, 20 * MIB, 10], chunk_bytes=16 * MIB)
    plan = Plan(line)
    plan.add(0, np.ones(line.chunks, np.bool_))
    asked = []
    while request := plan.take():
        asked.append(request)
    assert asked == [[(0, 0)], [(1, 1)], [(2, 3)]]


@pytest.mark.parametrize("seed", range(20))
def test_intervals_without_others(seed: int) -> None:
    chance = random.Random(f"without {seed}")
    kept, taken = ({chance.randrange(60) for _ in range(chance.randrange(40))} for _ in range(2))
    assert without(of_numbers(kept), of_numbers(taken)) == of_numbers(kept - taken)


def test_digests_are_known_as_they_come_and_zeros_are_of_files_left_out() -> None:
    digests = ChunkDigests(6)
    assert digests.run(0, limit_bytes=1 << 20) == b""
    digests.put(3, b"d" * 32)
    digests.put(0, b"a" * 32 + bytes(32))
    assert digests.known_until(0) == 2
    assert digests.run(0, limit_bytes=1 << 20) == b"a" * 32 + bytes(32)
    assert digests.run(0, limit_bytes=63) == b"a" * 32
    assert digests.hold([(0, 1), (3, 3)])
    assert not digests.hold([(1, 2)])
    assert digests.present(0, 4).tolist() == [True, False, False, True]
    digests.put(2, b"c" * 32)
    assert digests.known_until(0) == 4
    view = digests.view
    digests.settle(b"z" * 192)
    assert (digests.of(5), digests.known_until(0)) == (b"z" * 32, 6)
    assert bytes(view[:32]) == b"a" * 32, "who holds a view reads on"
    with pytest.raises(ValueError, match="number"):
        digests.settle(b"z" * 160)
    assert ChunkDigests(0).known_until(0) == 0
    assert ChunkDigests(0).present(0, 0).tolist() == []


# --- waiting for requests ---------------------------------------------------------------------------------------------
def test_requests_come_while_more_may_come_and_end_when_nothing_can() -> None:
    async def story() -> None:
        line = line_of([10] * 6)
        digests, written = ChunkDigests(6), np.zeros(6, np.bool_)
        wanted = Wanted(line, digests=digests, written=written, reuse=None)
        waiting = asyncio.ensure_future(wanted.next(wanted.requests))
        await asyncio.sleep(0)
        assert not waiting.done()
        digests.put(0, b"a" * 64 + bytes(32))
        wanted.open(0, 3)
        assert await waiting == [(0, 1)], "not the one of a file left out"
        written[0] = True
        wanted.over([(0, 1)])
        assert await wanted.next(wanted.requests) == [(1, 1)], "what did not come is asked for again"
        digests.settle(b"z" * 192)
        wanted.settled = True
        wanted.give_up(range(4, 5))
        wanted.open(0, 6)
        assert await wanted.next(wanted.requests) == [(2, 3), (5, 5)]
        last = asyncio.ensure_future(wanted.next(wanted.requests))
        await asyncio.sleep(0)
        assert not last.done(), "a request that is under way may fail"
        written[:] = True
        wanted.over([(1, 1)])
        wanted.over([(2, 3), (5, 5)])
        assert await last == []
        assert await wanted.next(wanted.copies) == []
        wanted.lost([2])
        assert await wanted.next(wanted.requests) == [(2, 2)]

    asyncio.run(story())


# --- earlier versions -------------------------------------------------------------------------------------------------
class Shelf:
    """Files of one transfer on the disk, as ``Held``."""

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        self.folder = folder
        self.contents = files
        self.files = [ListedFile(name, len(data), 0, MIB) for name, data in sorted(files.items())]
        self.line = Line(self.files)
        self.digests = b"".join(
            blake3(data[at : at + MIB]).digest() for _, data in sorted(files.items()) for at in range(0, len(data), MIB)
        )
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def held(self, transfer: str = "old") -> Held:
        arrived = np.ones(self.line.chunks, np.bool_)
        return Held(self.files, self.line, self.digests, arrived, EarlierFiles(self.folder, transfer))


def copied(reuse: Reuse, new: Shelf, target: Path) -> set[int]:
    """The chunks of ``new`` that were copied, each checked on the disk."""
    digests = ChunkDigests(new.line.chunks, new.digests)
    mask = reuse.may_hold(digests, 0, new.line.chunks)
    asked = of_numbers(int(chunk) for chunk in np.flatnonzero(mask))
    with Quarantine(target, "new") as quarantine:
        done = reuse.copy(asked, line=new.line, digests=digests, quarantine=quarantine)
        for item in done:
            place = new.line.chunk_at(item.chunk)
            data = new.contents[new.files[place.file].path][place.file_offset : place.file_offset + place.length]
            assert quarantine.read(place.file, place.file_offset, place.length) == data
            assert not item.wrong
    reuse.close()
    return {item.chunk for item in done}


def test_equal_chunks_are_copied_wherever_they_lie(tmp_path: Path) -> None:
    chance = random.Random("reuse")
    big = chance.randbytes(3 * MIB + 99)
    old = Shelf(tmp_path / "old", {"a": big, "b/c": b"small", "zero": bytes(2 * MIB)})
    new = Shelf(tmp_path / "new", {"moved/a": b"!" * MIB + big[MIB:], "c": b"small", "z": bytes(MIB), "other": b"fresh"})
    assert copied(Reuse([old.held()]), new, tmp_path / "target") == set(range(new.line.chunks)) - {
        new.line.chunks_of(1)[0],
        new.line.chunks_of(2)[0],
    }
    assert not Reuse([]).may_hold(ChunkDigests(1, b"x" * 32), 0, 1).any()


def test_what_is_not_there_any_more_or_was_changed_is_not_copied(tmp_path: Path) -> None:
    files = {name: name.encode() * 500 for name in ("changed", "gone", "link", "pipe", "short", "same")}
    old, new = Shelf(tmp_path / "old", files), Shelf(tmp_path / "new", files)
    (tmp_path / "old" / "changed").write_bytes(b"changeX" * 500)
    (tmp_path / "old" / "gone").unlink()
    (tmp_path / "old" / "link").rename(tmp_path / "elsewhere")
    (tmp_path / "old" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "old" / "pipe").unlink()
    os.mkfifo(tmp_path / "old" / "pipe")
    os.truncate(tmp_path / "old" / "short", 10)
    assert copied(Reuse([old.held()]), new, tmp_path / "target") == {4}
    assert new.files[4].path == "same"


def test_parts_serve_where_no_file_has_its_name_and_a_folder_that_is_gone_is_no_error(tmp_path: Path) -> None:
    files = {"a": b"a" * 1000, "b": b"b" * 1000}
    old, new = Shelf(tmp_path / "old", files), Shelf(tmp_path / "new", files)
    with Quarantine(tmp_path / "old", "unfinished") as parts:
        parts.write(1, 0, files["b"])
    (tmp_path / "old" / "b").unlink()
    (tmp_path / "old" / "a").unlink()
    nowhere = Shelf(tmp_path / "nowhere", files)
    held = [nowhere.held(), old.held("unfinished")]
    (tmp_path / "nowhere" / "a").unlink()
    (tmp_path / "nowhere" / "b").unlink()
    (tmp_path / "nowhere").rmdir()
    assert copied(Reuse(held), new, tmp_path / "target") == {1}


def test_many_equal_beginnings_cost_few_tries(tmp_path: Path) -> None:
    """A sender can sign digests of its own choice: none of these is the digest of anything."""
    new = Shelf(tmp_path / "new", {"a": b"wanted"})
    old = Shelf(tmp_path / "old", {f"n{number}": b"x" for number in range(1000)})
    made = b"".join(new.digests[:8] + number.to_bytes(24, "big") for number in range(1000))
    held = old.held()._replace(chunk_digests=made)
    reuse = Reuse([held])
    assert len(list(reuse._candidates(made[:32]))) <= 4
    assert copied(reuse, new, tmp_path / "target") == set()
