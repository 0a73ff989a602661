"""The quarantine: what is durable when, release that never replaces and may be repeated, and links that lead nowhere.

Durability is judged by a model of a disk that keeps only what was synced, fed with the calls that the quarantine makes; each
sync is then left out in turn, and the model must notice.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labxchange.errors import InputError, IntegrityError, LabxchangeError, RefusedError, UnavailableError
from labxchange.files import quarantine
from labxchange.files.quarantine import FEW, Outcome, Quarantine, Release, Released

MTIME_MS = 1_700_000_000_123


def outcomes(results: list[Released]) -> list[Outcome]:
    return [result.outcome for result in results]


def received(holder: Quarantine, *items: tuple[int, str, bytes]) -> list[Release]:
    for index, path, data in items:
        if not path.endswith("/"):
            holder.write(index, 0, data)
    holder.flush([index for index, path, _ in items if not path.endswith("/")])
    return [Release(index, path, len(data), MTIME_MS) for index, path, data in items]


def test_pieces_in_any_order_become_the_file(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(100_000)
    with Quarantine(tmp_path / "new" / "inbox", "t1") as holder:
        starts = list(range(0, len(data), 1000))
        random.Random(2).shuffle(starts)
        for start in starts:
            holder.write(7, start, memoryview(data)[start : start + 1000])
        holder.flush([7])
        assert holder.read(7, 500, 2000) == data[500:2500]
        assert holder.size(7) == len(data)
        assert holder.size(8) is None
        (result,) = holder.release([Release(7, "a/b/c.bin", len(data), MTIME_MS)])
        assert (result.outcome, result.done) == (Outcome.RELEASED, True)
        assert holder.remove_if_empty()
    place = tmp_path / "new" / "inbox" / "a" / "b" / "c.bin"
    assert place.read_bytes() == data
    assert place.stat().st_mtime_ns == MTIME_MS * 1_000_000
    assert stat.S_IMODE(place.stat().st_mode) == 0o644
    assert os.listdir(tmp_path / "new" / "inbox") == ["a"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0, 0o644)])
def test_modes(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with Quarantine(tmp_path, "t1") as holder:
            batch = received(holder, (0, "f", b"x"))
            assert stat.S_IMODE((tmp_path / ".labxchange-t1").stat().st_mode) == 0o700
            assert stat.S_IMODE((tmp_path / ".labxchange-t1" / "0.part").stat().st_mode) == 0o600
            holder.release(batch)
            assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode
    finally:
        os.umask(before)


@pytest.mark.parametrize("count", [1, FEW, FEW + 1, 60])
def test_release_may_be_repeated_from_every_point_of_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    items = [(index, f"d{index % 3}/f{index}", b"%d" % index) for index in range(count)] + [(count, "d9/", b"")]
    rename = quarantine.rename_no_replace
    for crash_at in range(0, count, max(1, count // 8)):
        place = tmp_path / f"{crash_at}"
        done = []

        def crashing(*arguments: Any, at: int = crash_at, done: list[int] = done, **names: Any) -> None:
            if len(done) == at:
                raise KeyboardInterrupt
            rename(*arguments, **names)
            done.append(1)

        monkeypatch.setattr(quarantine, "rename_no_replace", crashing)
        with Quarantine(place, "t1") as holder:
            batch = received(holder, *items)
            with pytest.raises(KeyboardInterrupt):
                holder.release(batch)
        monkeypatch.setattr(quarantine, "rename_no_replace", rename)
        with Quarantine(place, "t1") as holder:
            expected = [Outcome.ALREADY_RELEASED] * crash_at + [Outcome.RELEASED] * (count - crash_at + 1)
            assert outcomes(holder.release(batch)) == expected
            assert all(result.done for result in holder.release(batch))
            assert holder.remove_if_empty()
            assert holder.remove_if_empty()
        for _, path, data in items[:-1]:
            assert (place / path).read_bytes() == data
        assert (place / "d9").is_dir()


def test_a_taken_name_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "blocked").write_text("a file where a folder must be")
    with Quarantine(tmp_path, "t1") as holder:
        batch = received(
            holder, (0, "file", b"theirs"), (1, "folder", b"x"), (2, "link", b"x"), (3, "blocked/x", b"x"), (4, "good", b"x")
        )
        results = holder.release(batch)
        assert outcomes(results) == [Outcome.ALREADY_THERE] * 3 + [Outcome.NAME_REFUSED, Outcome.RELEASED]
        assert [result.done for result in results] == [False] * 4 + [True]
        assert all(result.text for result in results[:4])
        assert outcomes(holder.release([Release(5, "blocked/", 0, 0)])) == [Outcome.NAME_REFUSED]
        assert not holder.remove_if_empty()
        (tmp_path / "file").rename(tmp_path / "file.old")
        assert outcomes(holder.release(batch[:1])) == [Outcome.RELEASED]
    assert (tmp_path / "file.old").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "theirs"


def test_a_part_that_is_not_whole_is_not_released(tmp_path: Path) -> None:
    with Quarantine(tmp_path, "t1") as holder:
        holder.write(0, 0, b"12345")
        results = holder.release([Release(0, "short", 6, 0), Release(1, "none", 6, 0)])
        assert outcomes(results) == [Outcome.PART_MISSING] * 2
        (tmp_path / "none").write_text("other")
        assert outcomes(holder.release([Release(1, "none", 6, 0)])) == [Outcome.PART_MISSING]
        with pytest.raises(IntegrityError) as caught:
            holder.read(0, 3, 3)
        assert caught.value.code == "part-missing"
        for missing in (lambda: holder.read(9, 0, 1), lambda: holder.flush([9])):
            with pytest.raises(IntegrityError):
                missing()
        assert holder.size(9) is None


def test_hostile_names_are_refused_before_anything_is_renamed(tmp_path: Path) -> None:
    with Quarantine(tmp_path / "in", "t1") as holder:
        batch = received(holder, (0, "good", b"x"), (1, "bad", b"x"))
        with pytest.raises(RefusedError):
            holder.release([batch[0], batch[1]._replace(path="../out")])
    assert os.listdir(tmp_path) == ["in"]
    assert os.listdir(tmp_path / "in") == [".labxchange-t1"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a.b", "x" * 65, "a\n"])
def test_transfer_ids_are_checked(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        Quarantine(tmp_path, name)


def test_destinations_that_cannot_be_are_errors_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    for place in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / "dangling", tmp_path / "a\0b"):
        with pytest.raises(LabxchangeError) as caught:
            Quarantine(place, "t1")
        assert caught.value.code in ("name-taken", "file-missing", "not-a-path")


def test_a_private_folder_that_is_not_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "in").mkdir()
    place = tmp_path / "in" / ".labxchange-t1"
    for plant in (
        lambda: place.symlink_to(tmp_path / "outside"),
        lambda: place.write_text(""),
        lambda: (place.mkdir(), place.chmod(0o770)),
    ):
        plant()
        with pytest.raises(RefusedError) as caught:
            Quarantine(tmp_path / "in", "t1")
        assert caught.value.code == "quarantine-not-ours"
        place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink()
    monkeypatch.setattr(quarantine.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(RefusedError):
        Quarantine(tmp_path / "in", "t1")
    assert os.listdir(tmp_path / "outside") == []


def test_a_planted_part_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("victim")
    with Quarantine(tmp_path / "in", "t1") as holder:
        folder = tmp_path / "in" / ".labxchange-t1"
        (tmp_path / "other").write_text("victim")
        (folder / "0.part").symlink_to(tmp_path / "other")
        os.link(tmp_path / "victim", folder / "1.part")
        os.mkfifo(folder / "2.part")
        (folder / "3.part").mkdir()
        for index in range(4):
            with pytest.raises(LabxchangeError):
                holder.write(index, 0, b"evil")
            result = holder.release([Release(index, f"f{index}", 6, 0)])[0]
            assert not result.done
        (folder / "3.part").rmdir()
        holder.discard()
    assert (tmp_path / "victim").read_text() == (tmp_path / "other").read_text() == "victim"
    assert os.listdir(tmp_path / "in") == []


def test_discard_removes_parts_and_keeps_what_was_released(tmp_path: Path) -> None:
    with Quarantine(tmp_path, "t1") as holder:
        holder.release(received(holder, (0, "kept", b"x")))
        received(holder, (1, "dropped", b"x"))
        assert holder.free_bytes() > 0
        holder.discard()
    assert os.listdir(tmp_path) == ["kept"]


def test_two_openings_share_one_quarantine_and_descriptors_stay_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "OPEN_PARTS", 4)
    before = len(os.listdir("/dev/fd"))
    with Quarantine(tmp_path, "t1") as one, Quarantine(tmp_path, "t1") as other:
        for index in range(50):
            (one if index % 2 else other).write(index, 0, b"a")
            (other if index % 2 else one).write(index, 1, b"b")
        assert len(os.listdir("/dev/fd")) - before <= 2 * (4 + 2) + 1
        one.flush(range(50))
        assert all(result.done for result in other.release([Release(index, f"f{index}", 2, 0) for index in range(50)]))
    assert len(os.listdir("/dev/fd")) == before
    assert {(tmp_path / f"f{index}").read_bytes() for index in range(50)} == {b"ab"}


def test_threads_may_write_flush_and_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "OPEN_PARTS", 3)
    failures: list[BaseException] = []
    with Quarantine(tmp_path, "t1") as holder:

        def work(seed: int) -> None:
            try:
                for index in range(seed * 100, seed * 100 + 60):
                    holder.write(index, 0, b"%d" % index)
                    if index % 5 == 0:
                        holder.flush([index])
                    assert holder.read(index, 0, len(b"%d" % index)) == b"%d" % index
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [(errno.ENOSPC, "disk-full"), (errno.EDQUOT, "disk-full"), (errno.EIO, "disk-error"), (errno.EROFS, "not-permitted"),
     (errno.EMFILE, "out-of-descriptors")],
)  # fmt: skip
def test_errors_of_the_disk_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: str) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    with Quarantine(tmp_path, "t1") as holder:
        batch = received(holder, (0, "d/f", b"x"))
        for name, call in (
            ("pwrite", lambda: holder.write(0, 0, b"x")),
            ("preadv", lambda: holder.read(0, 0, 1)),
            ("fstatvfs", holder.free_bytes),
            ("rmdir", holder.remove_if_empty),
            ("utime", lambda: holder.release(batch)),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(quarantine.os, name, fail)
                with pytest.raises(LabxchangeError) as caught:
                    call()
                assert caught.value.code == expected, name
        assert holder.release(batch)[0].done


@pytest.mark.parametrize(("name", "count"), [("fdatasync", 1), ("fsync", 1), ("sync_file_system", FEW + 1)])
def test_after_a_failed_sync_nothing_passes_as_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    def fail(_: int) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    with Quarantine(tmp_path, "t1") as holder:
        for index in range(count):
            holder.write(index, 0, b"x")
        with monkeypatch.context() as patch:
            patch.setattr(quarantine if name == "sync_file_system" else quarantine.os, name, fail)
            with pytest.raises(UnavailableError):
                holder.flush(range(count))
        for call in (lambda: holder.flush(range(count)), lambda: holder.release([Release(0, "f", 1, 0)])):
            with pytest.raises(UnavailableError) as caught:
                call()
            assert caught.value.code == "flush-failed"
    with Quarantine(tmp_path, "t1") as again:
        again.write(0, 0, b"x")
        again.flush([0])
        assert again.release([Release(0, "f", 1, 0)])[0].done


@pytest.mark.parametrize("missing", [errno.EINVAL, errno.ENOSYS])
@pytest.mark.parametrize("links", [True, False])
def test_release_without_the_rename_flag_and_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: int, links: bool
) -> None:
    def renameat2(*_: object) -> int:
        quarantine.ctypes.set_errno(missing)
        return -1

    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(quarantine, "_renameat2", renameat2)
    real_link = os.link
    if not links:
        monkeypatch.setattr(quarantine.os, "link", link)
    (tmp_path / "taken").write_text("mine")
    with Quarantine(tmp_path, "t1") as holder:
        batch = received(holder, (0, "f", b"x"), (1, "taken", b"y"))
        assert outcomes(holder.release(batch)) == [Outcome.RELEASED, Outcome.ALREADY_THERE]
        assert outcomes(holder.release(batch[:1])) == [Outcome.ALREADY_RELEASED]
        assert (tmp_path / "taken").read_text() == "mine"
        # A crash between link and unlink.
        (batch,) = received(holder, (2, "g", b"z"))
        real_link(tmp_path / ".labxchange-t1" / "2.part", tmp_path / "g")
        assert outcomes(holder.release([batch])) == [Outcome.RELEASED]
        assert holder.size(2) is None
    assert (tmp_path / "g").stat().st_nlink == 1


def test_a_name_taken_between_looking_and_renaming_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("new")
    (tmp_path / "taken").write_text("mine")
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(FileExistsError):
            quarantine.rename_no_replace("old", "taken", old_folder=folder, new_folder=folder)
        assert (tmp_path / "taken").read_text() == "mine"
        quarantine.rename_no_replace("old", "free", old_folder=folder, new_folder=folder)
        assert (tmp_path / "free").read_text() == "new"
    finally:
        os.close(folder)


def test_extreme_times_do_not_stop_a_release(tmp_path: Path) -> None:
    with Quarantine(tmp_path, "t1") as holder:
        for index, mtime_ms in enumerate([0, -1, -(2**53) + 1, 2**53 - 1]):
            holder.write(index, 0, b"x")
            assert holder.release([Release(index, f"f{index}", 1, mtime_ms)])[0].done


class Disk:
    """What would be lost now: data and metadata by file, names by folder, each until a sync that covers it."""

    def __init__(self, patch: pytest.MonkeyPatch, *, skip: int | None) -> None:
        self.data: set[int] = set()
        self.meta: set[int] = set()
        self.names: set[int] = set()
        self.folders: set[int] = set()
        """Folders that hold the unsynced name of another one."""
        self.early = False
        """A file was moved while a folder had no name on the disk: the move could have been kept, and the folder lost."""
        self.syncs = 0
        self._skip = skip
        for name, note in (
            ("pwrite", lambda fd, *_: self.data.add(self._inode(fd))),
            ("utime", lambda fd, **_: self.meta.add(self._inode(fd))),
            ("fchmod", lambda fd, *_: self.meta.add(self._inode(fd))),
        ):
            self._wrap(patch, os, name, note)
        for name in ("rmdir", "unlink"):
            self._wrap(patch, os, name, lambda path, *_, dir_fd=None, **__: self.names.add(self._above(path, dir_fd)))
        self._wrap(patch, os, "mkdir", self._made)
        self._wrap(patch, os, "open", self._opened)
        self._wrap(patch, quarantine, "rename_no_replace", self._renamed)
        self._wrap(patch, os, "fdatasync", lambda fd: self._sync(lambda: self.data.discard(self._inode(fd))), real=False)
        self._wrap(patch, os, "fsync", lambda fd: self._sync(lambda: self._all(self._inode(fd))), real=False)
        self._wrap(patch, quarantine, "sync_file_system", lambda _: self._sync(self._everything), real=False)

    def _wrap(self, patch: pytest.MonkeyPatch, owner: Any, name: str, note: Callable[..., Any], *, real: bool = True) -> None:
        function = getattr(owner, name)

        def noted(*arguments: Any, **names: Any) -> Any:
            result = function(*arguments, **names) if real else True
            note(*arguments, **names)
            return result

        patch.setattr(owner, name, noted)

    def _inode(self, descriptor: int) -> int:
        return os.fstat(descriptor).st_ino

    def _above(self, path: Any, folder: int | None) -> int:
        return self._inode(folder) if folder is not None else os.stat(Path(path).parent).st_ino

    def _opened(self, _path: Any, flags: int, *_: Any, dir_fd: int | None = None, **__: Any) -> None:
        if flags & os.O_CREAT and dir_fd is not None:
            self.names.add(self._inode(dir_fd))

    def _made(self, path: Any, *_: Any, dir_fd: int | None = None, **__: Any) -> None:
        self.names.add(self._above(path, dir_fd))
        self.folders.add(self._above(path, dir_fd))

    def _renamed(self, _old: str, _new: str, *, old_folder: int, new_folder: int) -> None:
        self.early |= bool(self.folders)
        self.names |= {self._inode(old_folder), self._inode(new_folder)}

    def _sync(self, settle: Callable[[], None]) -> None:
        self.syncs += 1
        if self.syncs != self._skip:
            settle()

    def _all(self, inode: int) -> None:
        for kind in (self.data, self.meta, self.names, self.folders):
            kind.discard(inode)

    def _everything(self) -> None:
        for kind in (self.data, self.meta, self.names, self.folders):
            kind.clear()


def losses(place: Path, count: int, *, skip: int | None) -> tuple[bool, int]:
    """Receive and release ``count`` files; (would a power cut at a point where the caller commits lose something, syncs)."""
    lost = False
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, skip=skip)
        with Quarantine(place / "new" / "inbox", "t1") as holder:
            lost |= bool(disk.names)
            indices = range(count)
            for index in indices:
                holder.write(index, 0, b"x")
            holder.flush(indices)
            lost |= bool(disk.data or disk.names)
            results = holder.release([Release(index, f"a/b{index % 2}/f{index}", 1, 0) for index in indices])
            assert all(result.done for result in results)
            lost |= bool(disk.data or disk.meta or disk.names or disk.early)
            assert holder.remove_if_empty()
            lost |= bool(disk.names)
    return lost, disk.syncs


@pytest.mark.parametrize("count", [1, 3, FEW, FEW + 1, 100])
def test_every_sync_is_needed_and_none_is_missing(tmp_path: Path, count: int) -> None:
    lost, syncs = losses(tmp_path / "whole", count, skip=None)
    assert not lost
    # Three folders made above, the private one, parts and their names, files with their metadata, four folders, the removal.
    assert syncs <= (2 * count + 11 if count <= FEW else 9)
    for skip in range(1, syncs + 1):
        assert losses(tmp_path / f"without-{skip}", count, skip=skip) == (True, syncs), f"sync {skip} of {syncs} is not needed"


@pytest.mark.parametrize("folders", [1, FEW + 1])
def test_folders_that_were_there_get_their_names_onto_the_disk(tmp_path: Path, folders: int) -> None:
    """Who made them may have been killed before the sync; asked for once only."""
    with pytest.MonkeyPatch.context() as patch, Quarantine(tmp_path, "t1") as holder:
        disk = Disk(patch, skip=None)
        batch = received(holder, *((number, f"{number}/in/file", b"x") for number in range(folders)))
        for number in range(folders):
            os.makedirs(tmp_path / f"{number}" / "in")
        assert all(result.done for result in holder.release(batch))
        assert not disk.names
        assert not disk.early
        again = received(holder, (folders, "0/in/another", b"x"))
        before = disk.syncs
        assert holder.release(again)[0].done
        assert disk.syncs - before == 3, "the file, its folder and that of the parts"
