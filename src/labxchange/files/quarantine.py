"""Where received bytes wait until they are verified: part files in a private folder beside their destination.

The life of a file: ``write`` pieces at their offsets into ``<index>.part`` -> ``flush`` -> the caller commits its journal -> when
all is verified, ``release`` renames it to its name -> the caller commits that. Rules:

- Every access goes through folder descriptors with ``O_NOFOLLOW``; a link planted at any time leads nowhere. A part is a
  regular file of ours with one name, in a folder (0700) of ours.
- ``flush`` returns after the bytes *and the names* of the parts are on the disk: ``fdatasync`` of each when they are few, one
  ``syncfs`` when they are many (a loop of ``fsync`` where that is missing). After a failed flush the kernel may have dropped
  what it could not write, so this object refuses every later one: open a new one and receive again what was not committed.
- ``release`` never replaces a file: a name that is taken is an outcome, not a loss. Calling it again for the same batch after a
  crash is safe at every point. It moves nothing before the folders it goes to are on the disk, and returns after names, times
  and modes are.

Checking digests, the journal and the trail are left to the callers.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar

from labxchange.dataset.names import OWN_PREFIX, above, check_path, escape
from labxchange.errors import InputError, IntegrityError, RefusedError, UnavailableError
from labxchange.files.confined import FOLDER_FLAGS, Folders
from labxchange.files.descriptors import Descriptors
from labxchange.files.disk_errors import check_place, mapped, mapping
from labxchange.files.folders import make_folders

FEW: Final = 8
"""Up to this many files or folders are flushed one by one; more by one ``syncfs``."""
OPEN_PARTS: Final = 128

_PART_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TRANSFER_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}\Z")
_RENAME_NOREPLACE: Final = 1
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_ITEM_ERRORS: Final = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.EINVAL,
        errno.EILSEQ,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.EISDIR,
        errno.EXDEV,
        errno.EACCES,
        errno.EPERM,
    }
)


T = TypeVar("T")


class Outcome(StrEnum):
    """What became of one file of a release."""

    RELEASED = "released"
    ALREADY_RELEASED = "already-released"
    """The part is gone and the name holds a file of that size: an earlier call did it."""
    ALREADY_THERE = "already-there"
    """Another file has the name; the part stays where it is."""
    PART_MISSING = "part-missing"
    """There is neither a part of the right size nor a released file."""
    NAME_REFUSED = "name-refused"
    """The file system here cannot hold the name, or a file or link stands where a folder must be."""


class Release(NamedTuple):
    """One file to release: its index and path in the listing, the size and time that it must have."""

    file: int
    path: str
    size: int
    mtime_ms: int


class Released(NamedTuple):
    """The outcome for one file; ``text`` is a sentence when it is not released."""

    file: int
    path: str
    outcome: Outcome
    text: str = ""

    @property
    def done(self) -> bool:
        """True when the file is at its name."""
        return self.outcome in (Outcome.RELEASED, Outcome.ALREADY_RELEASED)


def _libc(name: str) -> Callable[..., int] | None:
    """A function of the C library that Python does not offer; None where it is missing."""
    if not sys.platform.startswith("linux"):
        return None
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    return function


_syncfs = _libc("syncfs")
_renameat2 = _libc("renameat2")


def sync_file_system(descriptor: int) -> bool:
    """Flush the file system that holds ``descriptor``; False where the system cannot. Raises OSError."""
    if _syncfs is None:
        return False
    if _syncfs(ctypes.c_int(descriptor)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return True


def rename_no_replace(old: str, new: str, *, old_folder: int, new_folder: int) -> None:
    """Rename within one file system, never over an existing name.

    Raises:
        FileExistsError: the name is taken.
        OSError: as the system says it.
    """
    if _renameat2 is not None:
        arguments = (ctypes.c_int(old_folder), os.fsencode(old), ctypes.c_int(new_folder), os.fsencode(new))
        if _renameat2(*arguments, ctypes.c_uint(_RENAME_NOREPLACE)) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), new)
    try:
        os.link(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without links or the flag (FAT): look first. Only a name planted in between could be replaced.
        if _stat(new, new_folder) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from None
        os.rename(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder)
        return
    os.unlink(old, dir_fd=old_folder)


def _stat(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


class Quarantine:
    """The part files of one transfer. Threads may share it, and several processes may open the same one.

    Args:
        destination: the folder that released files go to; made when it is missing.
        transfer_id: names the private folder; 1 to 64 letters, digits, ``-`` and ``_``.

    Raises:
        InputError: ``transfer-id``, ``not-a-path``, ``not-permitted``, ``name-taken``, ``is-a-link``.
        RefusedError: ``quarantine-not-ours``: something else has its name, or others could write in it.
        UnavailableError: ``disk-full``, ``disk-error``, ``file-missing``.
    """

    def __init__(self, destination: Path, transfer_id: str) -> None:
        if not _TRANSFER_ID.match(transfer_id):
            raise InputError("transfer-id", "A transfer id has 1 to 64 letters and digits.")
        check_place(destination)
        self._name = f"{OWN_PREFIX}-{transfer_id}"
        self._place = str(destination)
        self._lock = Lock()
        self._names_unsynced = False
        self.written_elsewhere = False
        """True when another process writes the parts: which names are new is not known here, so each flush is for names too."""
        self._broken = False
        self._mode: int | None = None
        self._kept_folders: set[str] = set()
        self._parts = Descriptors(OPEN_PARTS)
        with mapping(self._place):
            make_folders(destination)
            self._top = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._folder = self._open_folder()
            except BaseException:
                os.close(self._top)
                raise

    def _open_folder(self) -> int:
        try:
            os.mkdir(self._name, 0o700, dir_fd=self._top)
        except FileExistsError:
            pass
        # Also when it was there: an earlier process may have died between making it and this.
        os.fsync(self._top)
        try:
            folder = os.open(self._name, FOLDER_FLAGS, dir_fd=self._top)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise self._not_ours() from None
            raise
        info = os.fstat(folder)
        if info.st_uid != os.geteuid() or info.st_mode & 0o077:
            os.close(folder)
            raise self._not_ours()
        return folder

    def _not_ours(self) -> RefusedError:
        return RefusedError(
            "quarantine-not-ours",
            f"“{escape(self._place)}/{self._name}” is not a private folder of yours.",
            hint="Remove it, or receive into another folder.",
        )

    def write(self, index: int, offset: int, buffer: bytes | bytearray | memoryview) -> None:
        """Put ``buffer`` at ``offset`` of a file's part; an empty one makes the part of an empty file.

        Raises:
            UnavailableError: ``disk-full``, ``disk-error``.
            RefusedError: ``quarantine-not-ours``.
        """
        view = memoryview(buffer).cast("B")
        with mapping(self._part_place(index)), self._parts.use(index, self._open_part) as part:
            while view:
                count = os.pwrite(part, view, offset)
                view, offset = view[count:], offset + count

    def read(self, index: int, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes of a part; raises IntegrityError ``part-missing`` when they are not there."""
        out = bytearray(length)
        self.read_into(index, offset, memoryview(out))
        return bytes(out)

    def read_into(self, index: int, offset: int, view: memoryview) -> None:
        """Fill ``view`` from a part; raises IntegrityError ``part-missing`` when the bytes are not there."""
        try:
            with self._parts.use(index, self._open_known_part) as part:
                view = _fill(part, offset, view)
        except FileNotFoundError:
            raise self._missing(index) from None
        except OSError as error:
            raise mapped(error, self._part_place(index)) from error
        if view:
            raise self._missing(index)

    def in_place(self, item: Release) -> bool:
        """True when a file of this size has the name and no other part waits for it: an earlier ``release`` did it."""
        with mapping(self._place):
            descriptor = self._open_released(item)
            if descriptor is not None:
                os.close(descriptor)
            return descriptor is not None

    def contents(self, item: Release, buffer: memoryview) -> Iterator[memoryview]:
        """All bytes of a received file, piece by piece in ``buffer``: of its part, or, where a crash cut a release short, of the
        file that has its name already. Raises IntegrityError ``part-missing`` when they are not there."""
        with mapping(self._place):
            released = self._open_released(item)
        try:
            for start in range(0, item.size, len(buffer)):
                view = buffer[: min(len(buffer), item.size - start)]
                if released is None:
                    self.read_into(item.file, start, view)
                else:
                    with mapping(self._place):
                        if _fill(released, start, view):
                            raise self._missing(item.file)
                yield view
        finally:
            if released is not None:
                os.close(released)

    def _open_released(self, item: Release) -> int | None:
        """The file at its name, open, when it is there and not another one than the part."""
        part = _stat(_part(item.file), self._folder)
        with Folders(self._top) as folders:
            try:
                descriptor = folders.open_file(item.path)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENXIO, *_ITEM_ERRORS):
                    return None
                raise
        there = os.fstat(descriptor)
        if stat.S_ISREG(there.st_mode) and there.st_size == item.size and (part is None or os.path.samestat(part, there)):
            return descriptor
        os.close(descriptor)
        return None

    def take_for_released(self, item: Release, digest: bytes) -> bool:
        """True when the file that has the name already is a regular one with this size and SHA-256: it is flushed, and the part,
        which holds the same, is removed."""
        with self._lock, mapping(self._place), Folders(self._top) as folders:
            try:
                descriptor = folders.open_file(item.path)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENXIO, *_ITEM_ERRORS):
                    return False
                raise
            with open(descriptor, "rb", buffering=0) as there:
                info = os.fstat(descriptor)
                if not stat.S_ISREG(info.st_mode) or info.st_size != item.size:
                    return False
                if hashlib.file_digest(there, "sha256").digest() != digest:
                    return False
                self._synced(os.fsync, descriptor)
            self._synced(os.fsync, folders.descriptor(above(item.path)))
            self._parts.forget(item.file)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_part(item.file), dir_fd=self._folder)
            return True

    def size(self, index: int) -> int | None:
        """Bytes from the beginning to the last one written of a part; None when there is none."""
        with mapping(self._part_place(index)):
            info = _stat(_part(index), self._folder)
        return None if info is None or not stat.S_ISREG(info.st_mode) else info.st_size

    def _missing(self, index: int) -> IntegrityError:
        return IntegrityError("part-missing", f"A received part, “{escape(self._part_place(index))}”, is not there any more.")

    def _part_place(self, index: int) -> str:
        return f"{self._place}/{self._name}/{_part(index)}"

    def _open_known_part(self, index: int, create: int = 0) -> int:
        part = os.open(_part(index), _PART_FLAGS | create, 0o600, dir_fd=self._folder)
        info = os.fstat(part)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_nlink != 1:
            os.close(part)
            raise self._not_ours()
        return part

    def _open_part(self, index: int) -> int:
        part = self._open_known_part(index, os.O_CREAT)
        # Also for a part that was there: its name may be another process's and not on the disk yet. Set after opening, so a
        # flush that runs meanwhile cannot take it for done.
        self._names_unsynced = True
        return part

    def flush(self, indices: Sequence[int]) -> None:
        """Return when all that was written to these parts is on the disk.

        Raises:
            UnavailableError: ``disk-full``, ``disk-error``; from then on ``flush-failed``.
            IntegrityError: ``part-missing``.
        """
        with self._lock, mapping(self._place):
            self._check_unbroken()
            names, self._names_unsynced = self._names_unsynced or self.written_elsewhere, False
            if len(indices) > FEW and self._synced(sync_file_system, self._folder):
                return
            for index in indices:
                try:
                    with self._parts.use(index, self._open_known_part) as part:
                        self._synced(os.fdatasync, part)
                except FileNotFoundError:
                    raise self._missing(index) from None
            if names:
                self._synced(os.fsync, self._folder)

    def _check_unbroken(self) -> None:
        if self._broken:
            raise UnavailableError(
                "flush-failed",
                f"An earlier write to “{escape(self._place)}” failed; what was not confirmed must be received again.",
                hint="Check the disk, then resume.",
            )

    def _synced(self, call: Callable[[int], T], descriptor: int) -> T:
        """Run a call of the fsync family; its failure is for good."""
        try:
            return call(descriptor)
        except OSError:
            self._broken = True
            raise

    def release(self, batch: Iterable[Release]) -> list[Released]:
        """Give verified and flushed parts their names; empty folders (path with a trailing slash) are made.

        Returns an outcome for each, in order; one that fails does not stop the others.

        Raises:
            RefusedError: ``hostile-name``, before anything is renamed.
            UnavailableError: ``disk-full``, ``disk-error``, ``flush-failed``. After the first of these, call again later.
        """
        items = list(batch)
        for item in items:
            check_path(item.path.removesuffix("/"))
        with self._lock, mapping(self._place), Folders(self._top, create=True) as folders:
            self._check_unbroken()
            self._keep_folders(items, folders)
            at_once = len(items) > FEW and _syncfs is not None
            out = [self._release(item, folders, sync=not at_once) for item in items]
            if at_once:
                self._synced(sync_file_system, self._folder)
                return out
            for folder in sorted({above(item.path) for item, result in zip(items, out, strict=True) if result.done}):
                self._synced(os.fsync, folders.descriptor(folder))
            self._synced(os.fsync, self._folder)
            return out

    def _keep_folders(self, items: Sequence[Release], folders: Folders) -> None:
        """Make the folders of a batch, and return when their names are on the disk: a power loss could keep a move and lose the
        folder that it went to. Also for folders that were there: who made them may have died before this."""
        fresh: set[str] = set()
        for item in items:
            folder = item.path[:-1] if item.path.endswith("/") else above(item.path)
            try:
                folders.descriptor(folder)
            except OSError as error:
                if error.errno not in _ITEM_ERRORS:
                    raise
                continue  # its own release says so
            while folder and folder not in self._kept_folders | fresh:
                fresh.add(folder)
                folder = above(folder)
        holding = sorted({above(folder) for folder in fresh})
        if len(holding) <= FEW or not self._synced(sync_file_system, self._folder):
            for folder in holding:
                self._synced(os.fsync, folders.descriptor(folder))
        self._kept_folders |= fresh

    def _release(self, item: Release, folders: Folders, *, sync: bool) -> Released:
        def result(outcome: Outcome, text: str = "") -> Released:
            return Released(item.file, item.path, outcome, text)

        try:
            if item.path.endswith("/"):
                folders.descriptor(item.path[:-1])
                return result(Outcome.RELEASED)
            folder, name = folders.descriptor(above(item.path)), item.path.rpartition("/")[2]
            part, there = _stat(_part(item.file), self._folder), _stat(name, folder)
            if part is None:
                if there is not None and stat.S_ISREG(there.st_mode) and there.st_size == item.size:
                    # A power loss may have kept the name and not the rest.
                    self._settle(folders.open_file(item.path), item, sync=sync)
                    return result(Outcome.ALREADY_RELEASED)
                return result(Outcome.PART_MISSING, "What was received is not there any more.")
            if there is not None:
                if not os.path.samestat(part, there):
                    return result(Outcome.ALREADY_THERE, "Another file has this name; it was not replaced.")
                # A crash between link and unlink, where the system cannot rename without replacing.
                os.unlink(_part(item.file), dir_fd=self._folder)
                self._settle(folders.open_file(item.path), item, sync=sync)
                return result(Outcome.RELEASED)
            if part.st_size != item.size:
                return result(Outcome.PART_MISSING, f"{part.st_size} of {item.size} bytes were received.")
            with self._parts.use(item.file, self._open_known_part) as descriptor:
                self._settle(os.dup(descriptor), item, sync=sync)
            rename_no_replace(_part(item.file), name, old_folder=self._folder, new_folder=folder)
            self._parts.forget(item.file)
        except FileExistsError:
            return result(Outcome.ALREADY_THERE, "Another file has this name; it was not replaced.")
        except RefusedError as error:
            return result(Outcome.PART_MISSING, error.message)
        except OSError as error:
            if error.errno not in _ITEM_ERRORS:
                raise
            return result(Outcome.NAME_REFUSED, f"It cannot be put there: {os.strerror(error.errno or 0)}.")
        return result(Outcome.RELEASED)

    def _settle(self, descriptor: int, item: Release, *, sync: bool) -> None:
        """Time and mode of a released file; closes ``descriptor``."""
        try:
            os.utime(descriptor, ns=(item.mtime_ms * 1_000_000,) * 2)
            os.fchmod(descriptor, self._final_mode())
            if sync:
                self._synced(os.fsync, descriptor)
        finally:
            os.close(descriptor)

    def _final_mode(self) -> int:
        """0644 less the umask, which only a new file tells without changing it for the other threads."""
        if self._mode is None:
            probe = f"mode-{os.getpid()}"
            descriptor = os.open(probe, _PART_FLAGS | os.O_CREAT, 0o644, dir_fd=self._folder)
            self._mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            os.close(descriptor)
            os.unlink(probe, dir_fd=self._folder)
        return self._mode

    def free_bytes(self) -> int:
        """Bytes that this user may still write at the destination."""
        with mapping(self._place):
            info = os.fstatvfs(self._top)
        return info.f_bavail * info.f_frsize

    def discard(self, *, keep: Iterable[int] = ()) -> None:
        """Delete all parts but those to ``keep``, and the private folder when it is empty; closes this object. What was released
        stays."""
        kept = {_part(index) for index in keep}
        with self._lock, mapping(self._place):
            self._parts.close()
            with os.scandir(self._folder) as entries:
                names = [entry.name for entry in entries if entry.name not in kept]
            for name in names:
                os.unlink(name, dir_fd=self._folder)
        self.remove_if_empty()
        self.close()

    def remove_if_empty(self) -> bool:
        """Remove the private folder when no part is left in it; False when some are."""
        with self._lock, mapping(self._place):
            try:
                os.rmdir(self._name, dir_fd=self._top)
            except FileNotFoundError:
                return True
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return False
                raise
            self._synced(os.fsync, self._top)
            return True

    def close(self) -> None:
        """Close the descriptors; everything on the disk stays."""
        with self._lock:
            self._parts.close()
            for descriptor in (self._folder, self._top):
                if descriptor >= 0:
                    os.close(descriptor)
            self._folder = self._top = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _fill(descriptor: int, offset: int, view: memoryview) -> memoryview:
    """Read into ``view``; returns what the file was too short for."""
    while view:
        count = os.preadv(descriptor, [view], offset)
        if count == 0:
            break
        view, offset = view[count:], offset + count
    return view


def _part(index: int) -> str:
    return f"{index}.part"
