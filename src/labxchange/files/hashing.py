"""Digests of files: SHA-256 of record and BLAKE3-256 of every chunk, in one reading, many files at a time.

Rules: what is hashed is exactly what was listed. A file whose size, times or inode differ from the listing, or change between
opening and the end of reading, gets a reason instead of digests; the others go on. A cache may spare reading: its key holds
device, inode, size and both times, and it is neither asked nor told about a file that changed less than 2 s before (a second
change could leave the same times). Small files go to threads in batches, so their cost is the system calls.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from hashlib import sha256
from threading import Event, Lock
from typing import Final, NamedTuple, Protocol

from blake3 import blake3

from labxchange.dataset.listing import ListedFile
from labxchange.dataset.manifest import (
    CHANGED_AFTER_LISTING,
    CHANGED_WHILE_READ,
    DIGEST_BYTES,
    EMPTY_DIGEST,
    NOT_A_FILE,
    REMOVED,
    SHRUNK,
    UNREADABLE,
    FileDigests,
    chunks_digest,
)
from labxchange.files.confined import Folders
from labxchange.files.disk_errors import mapped
from labxchange.files.parallel import batches, in_order
from labxchange.files.scan import Sources

READ_BYTES: Final = 1 << 20
CACHE_AGE_NS: Final = 2_000_000_000
OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that the machine has and not the file: they end the work instead of leaving a file out."""

Advance = Callable[[int], None]
Announce = Callable[[int, int, bytes], None]
"""Index of the file, of the chunk in it, and the chunk's digest."""


class FileHash(NamedTuple):
    """SHA-256 of a file and its concatenated BLAKE3-256 chunk digests."""

    sha256: bytes
    chunks: bytes

    @property
    def digests(self) -> FileDigests:
        """What the manifest says of the file."""
        return self.sha256, chunks_digest(self.chunks)


class CacheKey(NamedTuple):
    """What must be unchanged for a digest to hold."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class DigestCache(Protocol):
    """Remembers digests; called from worker threads, never two calls at once."""

    def get(self, key: CacheKey) -> FileHash | None: ...

    def put(self, key: CacheKey, value: FileHash) -> None: ...


class Hashed(NamedTuple):
    """The result for one file: its index in the listing, and its digests or the reason why it must be left out."""

    file: int
    result: FileHash | str


class CutShort(Exception):
    """Internal to this package: a file ended before the size it was to have."""


class Stopped(Exception):
    """Internal to this package: the caller asked to stop."""


EMPTY: Final = FileHash(EMPTY_DIGEST, b"")


def hash_file(
    descriptor: int,
    *,
    size: int,
    chunk_bytes: int,
    advance: Advance | None = None,
    announce: Callable[[int, bytes], None] | None = None,
    stopped: Callable[[], bool] | None = None,
) -> FileHash:
    """Read bytes [0, size) of an open file and hash them; ``chunk_bytes`` is a multiple of 1 MiB.

    Args:
        announce: told each chunk's number and digest, where there are several.

    Raises:
        CutShort: the file has fewer bytes.
        Stopped: ``stopped`` said so; it is asked each MiB.
        OSError: as the system says it.
    """
    if size <= READ_BYTES:
        data = os.pread(descriptor, size, 0) if size else b""
        if len(data) < size:
            # Regular files give all they have, but a network file system may interrupt.
            data += _rest(descriptor, len(data), size)
        if advance is not None:
            advance(size)
        return FileHash(sha256(data).digest(), blake3(data).digest() if size else b"")
    record, chunks, chunk = sha256(), bytearray(), blake3()
    view = memoryview(bytearray(READ_BYTES))
    position = 0
    while position < size:
        if stopped is not None and stopped():
            raise Stopped
        end = min(size, position + READ_BYTES - position % READ_BYTES)
        count = os.preadv(descriptor, [view[: end - position]], position)
        if count == 0:
            raise CutShort
        record.update(view[:count])
        chunk.update(view[:count])
        position += count
        if position % chunk_bytes == 0 or position == size:
            digest = chunk.digest()
            if announce is not None:
                announce(len(chunks) // DIGEST_BYTES, digest)
            chunks += digest
            chunk = blake3()
        if advance is not None:
            advance(count)
    return FileHash(record.digest(), bytes(chunks))


def _rest(descriptor: int, begin: int, size: int) -> bytes:
    out = bytearray()
    while begin + len(out) < size:
        more = os.pread(descriptor, size - begin - len(out), begin + len(out))
        if not more:
            raise CutShort
        out += more
    return bytes(out)


def hash_files(
    sources: Sources,
    files: Sequence[ListedFile],
    *,
    indices: Iterable[int] | None = None,
    threads: int = 0,
    cache: DigestCache | None = None,
    advance: Advance | None = None,
    announce: Announce | None = None,
    stop: Event | None = None,
) -> Generator[list[Hashed], None, None]:
    """Hash listed files in parallel; yields results in the order of ``indices`` (default: all), in lists of up to 256.

    A bounded number of files is ahead of what was yielded, so a slow consumer slows the hashing down.

    Args:
        threads: 0 chooses by the number of cores, 4 at most.
        cache: spares reading what did not change.
        advance: called with the number of bytes done since the last call, from worker threads, never two calls at once.
        announce: told the digests of chunks of large files as they come, ahead of the result, which may still be that the file
            must be left out; from worker threads.
        stop: set it and the iteration ends within about a MiB a thread, without the results that were under way.

    Raises:
        UnavailableError: ``out-of-descriptors``: the machine, not a file, is at fault.
    """
    work = _Work(sources, files, cache, advance, announce, stop or Event())
    try:
        chosen = range(len(files)) if indices is None else indices
        yield from in_order(batches(files, chosen), work.run, threads=threads, abandon=work.abandon)
    except Stopped:
        return


class _Work:
    """What the threads share."""

    def __init__(
        self,
        sources: Sources,
        files: Sequence[ListedFile],
        cache: DigestCache | None,
        advance: Advance | None,
        announce: Announce | None,
        stop: Event,
    ) -> None:
        self.abandon = Event()
        self._sources = sources
        self._files = files
        self._cache = cache
        self._told = advance
        self._announce = announce
        self._stop = stop
        self._lock = Lock()

    def run(self, batch: list[int]) -> list[Hashed]:
        out: list[Hashed] = []
        with _Roots() as roots:
            for index in batch:
                if self._stopped():
                    raise Stopped
                out.append(Hashed(index, self._one(roots, index, self._files[index])))
        return out

    def _one(self, roots: _Roots, index: int, file: ListedFile) -> FileHash | str:
        try:
            root, relative = self._sources.locate(file.path)
            folders = roots.folders(root)
            if file.is_folder:
                folders.descriptor(relative.removesuffix("/"))
                return EMPTY
            descriptor = folders.open_file(relative)
        except OSError as error:
            return self._reason(error, file.path)
        try:
            return self._read(descriptor, index, file)
        except CutShort:
            return SHRUNK
        except OSError as error:
            return self._reason(error, file.path)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, index: int, file: ListedFile) -> FileHash | str:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            return NOT_A_FILE
        if before.st_size < file.size:
            return SHRUNK
        if before.st_size != file.size or before.st_mtime_ns // 1_000_000 != file.mtime_ms:
            return CHANGED_AFTER_LISTING
        key = _key(before)
        cache = self._cache if _old_enough(before) else None
        if cache is not None:
            with self._lock:
                known = cache.get(key)
            if known is not None and len(known.chunks) == DIGEST_BYTES * -(-file.size // file.chunk_bytes):
                self._advance(file.size)
                return known
        result = hash_file(
            descriptor,
            size=file.size,
            chunk_bytes=file.chunk_bytes,
            advance=self._advance,
            announce=partial(self._announce, index) if self._announce is not None else None,
            stopped=self._stopped,
        )
        after = os.fstat(descriptor)
        if _key(after) != key:
            return SHRUNK if after.st_size < file.size else CHANGED_WHILE_READ
        if cache is not None:
            with self._lock:
                cache.put(key, result)
        return result

    def _stopped(self) -> bool:
        return self._stop.is_set() or self.abandon.is_set()

    def _advance(self, count: int) -> None:
        if self._told is not None:
            with self._lock:
                self._told(count)

    def _reason(self, error: OSError, path: str) -> str:
        if error.errno in OURS:
            raise mapped(error, path) from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
            return REMOVED
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return NOT_A_FILE
        return UNREADABLE


def _key(info: os.stat_result) -> CacheKey:
    return CacheKey(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def _old_enough(info: os.stat_result) -> bool:
    """True when the file's last change is at least 2 s ago; a time in the future never is."""
    return time.time_ns() - max(info.st_mtime_ns, info.st_ctime_ns) >= CACHE_AGE_NS


class _Roots:
    """Open root folders of one batch."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, Folders]] = {}

    def folders(self, root: str) -> Folders:
        known = self._open.get(root)
        if known is None:
            descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            known = self._open[root] = descriptor, Folders(descriptor)
            if len(self._open) > 64:  # the items of a share may lie in many folders
                self._close(next(iter(self._open)))
        return known[1]

    def _close(self, root: str) -> None:
        descriptor, folders = self._open.pop(root)
        folders.close()
        os.close(descriptor)

    def __enter__(self) -> _Roots:
        return self

    def __exit__(self, *_: object) -> None:
        for root in list(self._open):
            self._close(root)
