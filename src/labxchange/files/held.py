"""A file's bytes, held still while they are hashed and then used: nobody's write comes between the two.

Rules:

- A read lease (fcntl(2), F_SETLEASE) makes the kernel refuse or delay whoever would write to the file or cut it, and costs no
  copy. The kernel grants it to the owner of the file while nobody has it open for writing, on file systems of this machine. A
  writer waits 45 s at most, so ``still`` is asked when the bytes were used, and large files are not leased.
- Where there is no lease the bytes are copied into memory of this process, sealed against writing.
- Either way the same bytes can be opened a second time by a path, for libraries that want one.
- Systems without leases and sealed memory: the bytes are read into memory, and there is no path.

What the bytes should be is for the caller.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

LEASED_MAX_BYTES: Final = 2 << 30
"""What is hashed and parsed well within the 45 s."""
_COPY_BYTES: Final = 1 << 24
_LINUX: Final = sys.platform == "linux"


class Held(msgspec.Struct, frozen=True):
    """The bytes, and the path (or "") at which they can be opened once more while the block lasts."""

    data: memoryview
    path: str
    _lease: int

    @property
    def still(self) -> bool:
        """Whether nobody can have written to the bytes until now. Bytes that were copied always are."""
        return self._lease < 0 or fcntl.fcntl(self._lease, fcntl.F_GETLEASE) == fcntl.F_RDLCK

    def leave_memory(self) -> None:
        """Pages read so far no longer count as this process' memory; they come back when they are read again."""
        if isinstance(self.data.obj, mmap.mmap):
            self.data.obj.madvise(mmap.MADV_DONTNEED)


@contextmanager
def held(path: Path, *, copied: bool = False) -> Iterator[Held]:
    """The bytes of the file at ``path``; ``copied``: without a lease in any case. Nobody holds them still after the block.

    Raises:
        OSError: as the system says it.
    """
    if not _LINUX:
        yield Held(memoryview(path.read_bytes()), "", -1)
        return
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        leased = not copied and os.fstat(source).st_size <= LEASED_MAX_BYTES and _lease(source)
        descriptor = source if leased else _copy(source)
        try:
            yield Held(_mapped(descriptor), f"/proc/self/fd/{descriptor}", descriptor if leased else -1)
        finally:
            if leased:
                # By hand: the mapping keeps a descriptor of its own, and with it the lease.
                fcntl.fcntl(source, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            else:
                os.close(descriptor)
    finally:
        os.close(source)


def _mapped(descriptor: int) -> memoryview:
    """Never closed by hand: a traceback may keep what was made of it."""
    size = os.fstat(descriptor).st_size
    return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) if size else b"")


def _lease(descriptor: int) -> bool:
    """Whether the kernel grants one. It tells of a writer by a signal, SIGIO by default, which would end the process."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    return True


def _copy(source: int) -> int:
    """A descriptor of memory with all that ``source`` has, which nobody can change any more."""
    copy = os.memfd_create("labxchange-table", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        at = 0
        while count := os.sendfile(copy, source, at, _COPY_BYTES):
            at += count
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except BaseException:
        os.close(copy)
        raise
    return copy
