"""Hashing: digests against the libraries, every way in which a file can change, the cache's rules, and stopping."""

from __future__ import annotations

import errno
import os
import random
import sys
import threading
from hashlib import sha256
from pathlib import Path

import pytest
from blake3 import blake3

from labxchange.dataset.listing import ListedFile, listed_file
from labxchange.errors import UnavailableError
from labxchange.files import hashing
from labxchange.files.hashing import CacheKey, CutShort, FileHash, Hashed, hash_file, hash_files
from labxchange.files.scan import Scan, scan
from labxchange.settings import BULK_NICE

MIB = 1 << 20
OLD_NS = 1_600_000_000_000_000_000


def expected(data: bytes, chunk_bytes: int = MIB) -> FileHash:
    return FileHash(
        sha256(data).digest(),
        b"".join(blake3(data[at : at + chunk_bytes]).digest() for at in range(0, len(data), chunk_bytes)),
    )


def hashed(found: Scan, **options: object) -> dict[str, FileHash | str]:
    results = [item for group in hash_files(found.sources, found.files, **options) for item in group]  # type: ignore[arg-type]
    assert [item.file for item in results] == list(range(len(found.files)))
    return {found.files[item.file].path: item.result for item in results}


class Cache:
    def __init__(self) -> None:
        self.known: dict[CacheKey, FileHash] = {}
        self.asked = 0

    def get(self, key: CacheKey) -> FileHash | None:
        self.asked += 1
        return self.known.get(key)

    def put(self, key: CacheKey, value: FileHash) -> None:
        self.known[key] = value


@pytest.mark.parametrize("size", [0, 1, 2047, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 17])
@pytest.mark.parametrize("chunk_bytes", [MIB, 2 * MIB])
def test_digests_are_those_of_the_libraries(tmp_path: Path, size: int, chunk_bytes: int) -> None:
    data = random.Random(size).randbytes(size)
    (tmp_path / "f").write_bytes(data)
    told: list[int] = []
    with open(tmp_path / "f", "rb") as file:
        assert hash_file(file.fileno(), size=size, chunk_bytes=chunk_bytes, advance=told.append) == expected(data, chunk_bytes)
        assert sum(told) == size
        with pytest.raises(CutShort):
            hash_file(file.fileno(), size=size + 1, chunk_bytes=chunk_bytes)


def test_short_reads_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(1).randbytes(2 * MIB + 5)
    (tmp_path / "f").write_bytes(data)
    preadv, pread = os.preadv, os.pread
    monkeypatch.setattr(hashing.os, "preadv", lambda fd, views, at: preadv(fd, [views[0][: max(1, len(views[0]) // 3)]], at))
    monkeypatch.setattr(hashing.os, "pread", lambda fd, size, at: pread(fd, max(1, size // 2), at))
    with open(tmp_path / "f", "rb") as file:
        assert hash_file(file.fileno(), size=len(data), chunk_bytes=MIB) == expected(data)
        assert hash_file(file.fileno(), size=1000, chunk_bytes=MIB) == expected(data[:1000])


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_many_files_in_listing_order(tmp_path: Path, threads: int) -> None:
    rng = random.Random(2)
    (tmp_path / "d").mkdir()
    (tmp_path / "empty").mkdir()
    for number in range(600):
        (tmp_path / "d" / f"{number}").write_bytes(rng.randbytes(rng.choice([0, 10, 5000])))
    (tmp_path / "large").write_bytes(rng.randbytes(3 * MIB + 1))
    told: list[int] = []
    found = scan([tmp_path])
    results = hashed(found, threads=threads, advance=told.append)
    for file in found.files:
        place = tmp_path / file.path
        assert results[file.path] == (expected(b"") if place.is_dir() else expected(place.read_bytes()))
    assert sum(told) == sum(file.size for file in found.files)
    some = [item for group in hash_files(found.sources, found.files, indices=[600, 3]) for item in group]
    assert [item.file for item in some] == [600, 3]


def one(tmp_path: Path, data: bytes = b"x" * 100) -> Scan:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f").write_bytes(data)
    os.utime(tmp_path / "in" / "f", ns=(OLD_NS, OLD_NS))
    return scan([tmp_path / "in"])


def test_a_file_that_is_not_the_listed_one_gets_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = one(tmp_path)
    place = tmp_path / "in" / "f"
    assert hashed(found)["f"] == expected(b"x" * 100)
    os.utime(place)
    assert hashed(found)["f"] == "changed-after-listing"
    place.write_bytes(b"x" * 101)
    assert hashed(found)["f"] == "changed-after-listing"
    place.write_bytes(b"x" * 99)
    assert hashed(found)["f"] == "shrunk"
    place.unlink()
    assert hashed(found)["f"] == "removed"
    place.mkdir()
    assert hashed(found)["f"] == "not-a-file"
    place.rmdir()
    os.mkfifo(place)
    assert hashed(found)["f"] == "not-a-file"
    place.unlink()
    place.symlink_to("/etc/passwd")
    assert hashed(found)["f"] == "not-a-file"
    place.unlink()
    (tmp_path / "in").rename(tmp_path / "moved")
    assert hashed(found)["f"] == "removed"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda place: place.write_bytes(b"y" * 3 * MIB), "changed-while-read"),
        (lambda place: os.truncate(place, MIB + 5), "shrunk"),
        (lambda place: os.truncate(place, 3 * MIB - 1), "shrunk"),
        (lambda place: os.truncate(place, 3 * MIB + 1), "changed-while-read"),
        (lambda place: os.utime(place, ns=(OLD_NS, OLD_NS)), "changed-while-read"),
        (lambda place: place.unlink(), "changed-while-read"),
    ],
)
def test_a_change_while_it_is_read_is_seen(tmp_path: Path, change: object, reason: str) -> None:
    found = one(tmp_path, b"x" * 3 * MIB)
    done = []

    def advance(count: int) -> None:
        if not done:
            done.append(count)
            change(tmp_path / "in" / "f")  # type: ignore[operator]

    assert hashed(found, advance=advance)["f"] == reason
    assert done


def test_errors_of_the_disk_leave_a_file_out_and_those_of_the_machine_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = one(tmp_path)

    def failing(code: int) -> None:
        def pread(*_: object) -> bytes:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(hashing.os, "pread", pread)

    failing(errno.EIO)
    assert hashed(found)["f"] == "unreadable"
    failing(errno.EMFILE)
    with pytest.raises(UnavailableError) as caught:
        hashed(found)
    assert caught.value.code == "out-of-descriptors"


def test_the_cache_spares_reading_and_never_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = one(tmp_path)
    place = tmp_path / "in" / "f"
    cache = Cache()
    now = place.stat().st_ctime_ns
    monkeypatch.setattr(hashing.time, "time_ns", lambda: now + 1_999_999_999)
    assert hashed(found, cache=cache)["f"] == expected(b"x" * 100)
    assert (cache.asked, cache.known) == (0, {})
    monkeypatch.setattr(hashing.time, "time_ns", lambda: now + 2_000_000_000)
    assert hashed(found, cache=cache)["f"] == expected(b"x" * 100)
    assert (cache.asked, len(cache.known)) == (1, 1)
    told: list[int] = []
    monkeypatch.setattr(hashing, "hash_file", None)
    assert hashed(found, cache=cache, advance=told.append)["f"] == expected(b"x" * 100)
    assert told == [100]
    # The same size and mtime, other bytes: ctime tells.
    monkeypatch.undo()
    place.write_bytes(b"y" * 100)
    os.utime(place, ns=(OLD_NS, OLD_NS))
    monkeypatch.setattr(hashing.time, "time_ns", lambda: now + 10**12)
    assert hashed(found, cache=cache)["f"] == expected(b"y" * 100)
    # An entry that cannot be of this file is not used.
    cache.known = {key: FileHash(b"0" * 32, b"") for key in cache.known}
    assert hashed(found, cache=cache)["f"] == expected(b"y" * 100)
    # Nor is a file from the future, whose next change could leave the same times.
    os.utime(place, ns=(now + 10**13, now + 10**13))
    cache.asked = 0
    hashed(scan([tmp_path / "in"]), cache=cache)
    assert cache.asked == 0


def test_stopping_ends_soon_and_leaves_no_thread(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / "in" / f"{number}").write_bytes(b"x" * 2 * MIB)
    found = scan([tmp_path / "in"])
    stop = threading.Event()
    seen: list[Hashed] = []
    for group in hash_files(found.sources, found.files, stop=stop, threads=2):
        seen += group
        stop.set()
    assert 0 < len(seen) < 40
    iterator = hash_files(found.sources, found.files, threads=2)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("files")]


def test_a_slow_consumer_bounds_what_is_ahead(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / "in" / f"{number:02d}").write_bytes(b"x" * 1000)
    files = [listed_file(file.path, file.size, file.mtime_ms) for file in scan([tmp_path / "in"]).files]
    started: list[ListedFile] = []
    work = [[index] for index in range(40)]

    nice: list[int] = []

    def run(batch: list[int]) -> list[int]:
        started.append(files[batch[0]])
        nice.append(os.nice(0))
        return batch

    from labxchange.files.parallel import in_order

    results = in_order(work, run, threads=2, abandon=threading.Event())
    assert next(results) == [0]
    results.close()  # type: ignore[attr-defined]
    assert len(started) <= 5
    if sys.platform == "linux":
        assert set(nice) == {min(os.nice(0) + BULK_NICE, 19)}


def test_chunks_of_a_large_file_are_announced_ahead_of_the_result(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "large").write_bytes(random.Random("announce").randbytes(5 * (1 << 20) + 3))
    (tmp_path / "data" / "small").write_bytes(b"x")
    found = scan([tmp_path / "data"])
    told: list[tuple[int, int, bytes]] = []
    (batch,) = hash_files(found.sources, found.files, announce=lambda *chunk: told.append(chunk))
    large = batch[0].result
    assert not isinstance(large, str)
    assert told == [(0, number, large.chunks[32 * number : 32 * number + 32]) for number in range(6)]
