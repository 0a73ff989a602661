"""Reading listed files piece by piece: bounded descriptors, and no byte of a file that changed."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from labxchange.errors import IntegrityError
from labxchange.files import reading
from labxchange.files.reading import SourceReader
from labxchange.files.scan import scan


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def test_pieces_from_many_threads_with_few_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "OPEN_FILES", 4)
    rng = random.Random(3)
    for number in range(30):
        (tmp_path / f"{number:02d}").write_bytes(rng.randbytes(10_000))
    found = scan([tmp_path])
    before = open_descriptors()
    reader = SourceReader(found.sources, found.files)

    def piece(seed: int) -> int:
        rng = random.Random(seed)
        index, offset = rng.randrange(30), rng.randrange(9000)
        data = reader.read(index, offset, 1000)
        assert data == (tmp_path / f"{index:02d}").read_bytes()[offset : offset + 1000]
        return open_descriptors()

    with ThreadPoolExecutor(4) as pool:
        most = max(pool.map(piece, range(2000)))
    assert most - before < 4 + 4 * 5
    reader.close()
    assert open_descriptors() == before


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize(
    ("change", "before_opening", "while_open"),
    [
        (lambda place: place.write_bytes(b"y" * 100), "changed-after-listing", "changed-while-read"),
        (lambda place: os.truncate(place, 10), "shrunk", "shrunk"),
        (lambda place: place.unlink(), "removed", "changed-while-read"),
        (lambda place: (place.unlink(), place.symlink_to("/etc/passwd")), "not-a-file", "changed-while-read"),
        (lambda place: (place.unlink(), os.mkfifo(place)), "not-a-file", "changed-while-read"),
    ],
)
def test_a_change_is_an_error_with_its_reason(
    tmp_path: Path, opened: bool, change: object, before_opening: str, while_open: str
) -> None:
    place = tmp_path / "f"
    place.write_bytes(b"x" * 100)
    os.utime(place, (1, 1))
    found = scan([tmp_path])
    reader = SourceReader(found.sources, found.files)
    if opened:
        reader.read(0, 0, 50)
    change(place)  # type: ignore[operator]
    with pytest.raises(IntegrityError) as caught:
        reader.read(0, 50, 50)
    assert caught.value.code == (while_open if opened else before_opening)
    reader.close()


def test_a_file_replaced_between_two_openings_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "f"
    place.write_bytes(b"x" * 100)
    os.utime(place, (1, 1))
    found = scan([tmp_path])
    reader = SourceReader(found.sources, found.files)
    reader.read(0, 0, 50)
    reader.close()
    place.unlink()
    place.write_bytes(b"y" * 100)
    os.utime(place, (1, 1))
    with pytest.raises(IntegrityError) as caught:
        reader.read(0, 50, 50)
    assert caught.value.code == "changed-while-read"


def test_at_once_is_read_only_what_is_open_in_memory_and_unchanged(tmp_path: Path) -> None:
    place, data = tmp_path / "a", random.Random(6).randbytes(100_000)
    place.write_bytes(data)
    found = scan([tmp_path])
    reader = SourceReader(found.sources, found.files)
    view = memoryview(bytearray(50_000))
    assert not reader.read_at_once(0, 0, view), "it is not open"
    reader.read(0, 0, 100_000)  # now it is, and the system has it in memory
    if hasattr(os, "RWF_NOWAIT"):  # where the system cannot read without waiting, nothing is read so
        assert reader.read_at_once(0, 20_000, view)
        assert view == data[20_000:70_000]
    assert not reader.read_at_once(0, 60_000, view), "there is less"
    place.write_bytes(data[::-1])
    os.utime(place, ns=(1, 1))
    assert not reader.read_at_once(0, 0, view)
    with pytest.raises(IntegrityError):
        reader.read(0, 0, 50_000)
    reader.close()
