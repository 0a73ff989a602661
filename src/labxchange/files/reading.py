"""Reading listed files piece by piece, as a sender does, with a bounded number of them open.

What is read is what was listed: size and times are compared with the listing at opening, and with those at opening after each
piece. A file that differs gives an error whose code is the reason that the manifest will name; other files go on.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from labxchange.dataset.listing import ListedFile
from labxchange.dataset.manifest import CHANGED_AFTER_LISTING, CHANGED_WHILE_READ, NOT_A_FILE, REMOVED, SHRUNK, UNREADABLE
from labxchange.dataset.names import escape
from labxchange.errors import InputError, IntegrityError, LabxchangeError, UnavailableError
from labxchange.files.descriptors import Descriptors
from labxchange.files.scan import Sources, open_source

OPEN_FILES = 64
_NO_WAIT: int | None = getattr(os, "RWF_NOWAIT", None)
"""Linux only."""

_REASON_OF_CODE = {
    "file-missing": REMOVED,
    "not-a-file": NOT_A_FILE,
    "is-a-link": NOT_A_FILE,
    "not-permitted": UNREADABLE,
    "disk-error": UNREADABLE,
}


class SourceReader:
    """Positioned reads of the files of a listing; threads may share it."""

    def __init__(self, sources: Sources, files: Sequence[ListedFile]) -> None:
        self._sources = sources
        self._files = files
        self._open = Descriptors(OPEN_FILES)
        self._marks: dict[int, tuple[int, int, int]] = {}
        self._in_memory = _memory_devices()

    def read(self, index: int, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes of a file; raises as ``read_into``."""
        out = bytearray(length)
        self.read_into(index, offset, memoryview(out))
        return bytes(out)

    def read_into(self, index: int, offset: int, view: memoryview) -> None:
        """Fill ``view`` from ``offset`` of a listed file.

        Raises:
            IntegrityError: with a reason of ``dataset.manifest`` as its code: the file is not the listed one any more.
            UnavailableError: ``out-of-descriptors``.
        """
        try:
            with self._open.use(index, self._opener) as descriptor:
                while view:
                    count = os.preadv(descriptor, [view], offset)
                    if count == 0:
                        raise self._changed(index, SHRUNK)
                    view, offset = view[count:], offset + count
                if _mark(os.fstat(descriptor)) != self._marks[index]:
                    raise self._changed(index, CHANGED_WHILE_READ)
        except OSError as error:
            reason = REMOVED if error.errno == errno.ESTALE else UNREADABLE
            raise self._changed(index, reason) from error

    def read_at_once(self, index: int, offset: int, view: memoryview) -> bool:
        """``read_into``, if nothing has to be waited for: the file is open, and the system has these bytes in memory. False, and
        what is in ``view`` is worthless, where it must be read otherwise, or is not to be read any more."""
        try:
            with self._open.use(index, _not_open) as descriptor:
                flags = 0 if os.fstat(descriptor).st_dev in self._in_memory else _NO_WAIT
                if flags is None:
                    return False
                count = os.preadv(descriptor, [view], offset, flags)
                return count == len(view) and _mark(os.fstat(descriptor)) == self._marks[index]
        except OSError:
            return False

    def close(self) -> None:
        self._open.close()

    def _opener(self, index: int) -> int:
        file = self._files[index]
        try:
            descriptor = open_source(self._sources, file.path)
        except (InputError, UnavailableError) as error:
            if error.code not in _REASON_OF_CODE:
                raise
            raise self._changed(index, _REASON_OF_CODE[error.code]) from error
        info = os.fstat(descriptor)
        if info.st_size != file.size or info.st_mtime_ns // 1_000_000 != file.mtime_ms or not stat.S_ISREG(info.st_mode):
            os.close(descriptor)
            raise self._changed(index, SHRUNK if info.st_size < file.size else CHANGED_AFTER_LISTING)
        # A file that is opened again after its descriptor was closed must still be the one that was opened first.
        if self._marks.setdefault(index, _mark(info)) != _mark(info):
            os.close(descriptor)
            raise self._changed(index, CHANGED_WHILE_READ)
        return descriptor

    def _changed(self, index: int, reason: str) -> LabxchangeError:
        name = escape(self._files[index].path, limit=300)
        return IntegrityError(reason, f"The file “{name}” is not as it was listed: {reason}.", hint="Share a new version.")


def _not_open(_: int) -> int:
    raise BlockingIOError


def _memory_devices() -> frozenset[int]:
    """Device numbers of the file systems that are in memory, which know no reading without waiting, as they never wait
    (proc_pid_mountinfo(5))."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return frozenset()
    numbers = [words[2].split(":") for words in lines if words[words.index("-") + 1] == "tmpfs"]
    return frozenset(os.makedev(int(major), int(minor)) for major, minor in numbers)


def _mark(info: os.stat_result) -> tuple[int, int, int]:
    return info.st_ino, info.st_mtime_ns, info.st_ctime_ns
