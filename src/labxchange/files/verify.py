"""Checking a folder against a manifest: every byte is read again, nothing is taken from a cache.

Each listed file is opened without following links and hashed; where chunk digests are known, the first chunk that differs is
named. Files that are there and not listed are named too. The report says which checks ran and which did not.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, Lock
from typing import Final, NamedTuple
from unicodedata import normalize

from labxchange.dataset.check import Finding, FindingKind, Findings, NotRun, Report
from labxchange.dataset.listing import Line, ListedFile
from labxchange.dataset.manifest import DIGEST_BYTES, FileDigests, chunks_digest
from labxchange.dataset.names import OWN_PREFIX, PATH_MAX_PARTS, above, collision_key, escape
from labxchange.errors import UnavailableError
from labxchange.files.confined import Folders
from labxchange.files.disk_errors import check_place, mapped, mapping
from labxchange.files.hashing import OURS, CutShort, FileHash, Stopped, hash_file
from labxchange.files.parallel import batches, in_order

Progress = Callable[[int, int], None]

_CHECKS: Final = ("every listed file is there", "size of each file", "SHA-256 of each file", "BLAKE3 of each file's chunks")
_NAMES: Final = "no file that is not listed"
_CHUNKS: Final = "place of the first difference in a file"


class _Outcome(NamedTuple):
    size: int
    finding: Finding | None


def verify_folder(
    root: Path,
    files: Sequence[ListedFile],
    digests: Sequence[FileDigests],
    *,
    chunk_digests: bytes | memoryview | None = None,
    unexpected: bool = True,
    progress: Progress | None = None,
    stop: Event | None = None,
    threads: int = 0,
) -> Report:
    """Read the files below ``root`` and compare them with a manifest's digests.

    Args:
        chunk_digests: all chunk digests in global chunk order; with them a damaged file's first bad chunk is named.
        unexpected: look for files that are not listed.
        progress: called with (files, bytes) done so far, from worker threads, never two calls at once.
        stop: set it to end with ``stopped``.

    Raises:
        UnavailableError: ``file-missing``: the folder itself; ``stopped``; ``out-of-descriptors``.
    """
    if len(files) != len(digests):
        raise ValueError("every listed file has digests or a reason")
    check_place(root)
    with mapping(str(root)):
        top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        work = _Work(top, files, digests, chunk_digests, progress, stop or Event())
        found = Findings()
        for outcome in work.outcomes(threads):
            if outcome.finding is None:
                found.match(outcome.size)
            else:
                found.add(outcome.finding)
        for item in digests:
            if isinstance(item, str):
                found.leave_out()
        run, not_run = list(_CHECKS), [NotRun("modification times", "they are no part of a manifest")]
        if chunk_digests is not None:
            run.append(_CHUNKS)
        else:
            not_run.append(NotRun(_CHUNKS, "the chunk digests are not at hand"))
        if unexpected:
            for finding in _unexpected(top, files, digests):
                found.add(finding)
            run.append(_NAMES)
        else:
            not_run.append(NotRun(_NAMES, "it was not asked for"))
        left_out = sum(isinstance(item, str) for item in digests)
        if left_out:
            not_run.append(NotRun("digests of files left out", f"the manifest leaves out {left_out:,} of {len(files):,} files"))
    except Stopped:
        raise UnavailableError("stopped", "The check was stopped before its end.") from None
    finally:
        os.close(top)
    return found.report(checks_run=tuple(run), checks_not_run=tuple(not_run))


class _Work:
    """What the threads of one check share."""

    def __init__(
        self,
        top: int,
        files: Sequence[ListedFile],
        digests: Sequence[FileDigests],
        chunk_digests: bytes | memoryview | None,
        progress: Progress | None,
        stop: Event,
    ) -> None:
        self._top = top
        self._files = files
        self._digests = digests
        self._line = Line(files) if chunk_digests is not None else None
        self._chunk_digests = memoryview(chunk_digests) if chunk_digests is not None else None
        if self._line is not None and chunk_digests is not None and len(chunk_digests) != self._line.chunks * DIGEST_BYTES:
            raise ValueError("there is one digest for each chunk")
        self._progress = progress
        self._stop = stop
        self._abandon = Event()
        self._lock = Lock()
        self._done_files = 0
        self._done_bytes = 0

    def outcomes(self, threads: int) -> Iterator[_Outcome]:
        """The outcome of each file that has digests, in listing order."""
        known = (index for index, item in enumerate(self._digests) if not isinstance(item, str))
        for group in in_order(batches(self._files, known), self._run, threads=threads, abandon=self._abandon):
            yield from group

    def _run(self, batch: list[int]) -> list[_Outcome]:
        out = []
        with Folders(self._top) as folders:
            for index in batch:
                if self._stopped():
                    raise Stopped
                out.append(self._one(folders, index))
                self._advance(1, 0)
        return out

    def _one(self, folders: Folders, index: int) -> _Outcome:
        file = self._files[index]
        try:
            if file.is_folder:
                folders.descriptor(file.path[:-1])
                return _Outcome(0, None)
            descriptor = folders.open_file(file.path)
        except OSError as error:
            return _Outcome(0, _not_opened(error, file.path))
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                return _differ(file.path, text="Something that is not a file has its name.")
            size = min(before.st_size, file.size)
            result = hash_file(
                descriptor, size=size, chunk_bytes=file.chunk_bytes, advance=self._advance_bytes, stopped=self._stopped
            )
            after = os.fstat(descriptor)
        except CutShort:
            return _Outcome(0, Finding(path=file.path, kind=FindingKind.ERROR, text="It shrank while it was read."))
        except OSError as error:
            return _Outcome(0, _failed(error, file.path))
        finally:
            os.close(descriptor)
        if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (after.st_size, after.st_mtime_ns, after.st_ctime_ns):
            return _Outcome(0, Finding(path=file.path, kind=FindingKind.ERROR, text="It changed while it was read."))
        return self._compare(index, before.st_size, result)

    def _compare(self, index: int, actual: int, result: FileHash) -> _Outcome:
        file, expected = self._files[index], self._pair(index)
        if actual == file.size and result.digests == expected:
            return _Outcome(file.size, None)
        known = self._known_chunks(index)
        if actual != file.size:
            offset = -1 if known is None else min(_first_difference(known, result.chunks) * file.chunk_bytes, actual, file.size)
            text = "It is shorter than listed." if actual < file.size else "It is longer than listed."
            return _differ(file.path, offset=offset, expected=f"{file.size} bytes", got=f"{actual} bytes", text=text)
        if known is not None and (at := _first_difference(known, result.chunks)) * DIGEST_BYTES < len(known):
            part = slice(at * DIGEST_BYTES, (at + 1) * DIGEST_BYTES)
            return _differ(
                file.path,
                offset=at * file.chunk_bytes,
                expected=bytes(known[part]).hex(),
                got=result.chunks[part].hex(),
                text="Its bytes differ, first in the chunk that begins at this offset (BLAKE3).",
            )
        return _differ(file.path, expected=expected[0].hex(), got=result.sha256.hex(), text="Its bytes differ (SHA-256).")

    def _known_chunks(self, index: int) -> memoryview | None:
        """The chunk digests of a file, when they are at hand and are those that its manifest pins."""
        if self._line is None or self._chunk_digests is None:
            return None
        chunks = self._line.chunks_of(index)
        part = self._chunk_digests[chunks.start * DIGEST_BYTES : chunks.stop * DIGEST_BYTES]
        return part if chunks_digest(part) == self._pair(index)[1] else None

    def _pair(self, index: int) -> tuple[bytes, bytes]:
        item = self._digests[index]
        assert not isinstance(item, str)
        return item

    def _stopped(self) -> bool:
        return self._stop.is_set() or self._abandon.is_set()

    def _advance_bytes(self, count: int) -> None:
        self._advance(0, count)

    def _advance(self, files: int, count: int) -> None:
        if self._progress is None:
            return
        with self._lock:
            self._done_files += files
            self._done_bytes += count
            self._progress(self._done_files, self._done_bytes)


def _first_difference(known: memoryview, got: bytes) -> int:
    """Index of the first digest that differs; the number of digests in ``got`` when none does."""
    for at in range(0, len(got), DIGEST_BYTES):
        if known[at : at + DIGEST_BYTES] != got[at : at + DIGEST_BYTES]:
            return at // DIGEST_BYTES
    return len(got) // DIGEST_BYTES


def _differ(path: str, *, offset: int = -1, expected: str = "", got: str = "", text: str) -> _Outcome:
    return _Outcome(0, Finding(path=path, kind=FindingKind.DIFFER, offset=offset, expected=expected, got=got, text=text))


def _failed(error: OSError, path: str) -> Finding:
    if error.errno in OURS:
        raise mapped(error, path) from error
    return Finding(path=path, kind=FindingKind.ERROR, text=mapped(error, path).message)


def _not_opened(error: OSError, path: str) -> Finding:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Finding(path=path, kind=FindingKind.MISSING, text="It is not there.")
    if error.errno in (errno.ELOOP, errno.ENXIO):
        return Finding(path=path, kind=FindingKind.DIFFER, text="Something that is not a file has its name.")
    return _failed(error, path)


def _unexpected(top: int, files: Sequence[ListedFile], digests: Sequence[FileDigests]) -> Iterator[Finding]:
    """What lies below the folder and is not in the manifest; our own private folders at its top are not counted."""
    listed = {file.path for file in files}
    left_out = {file.path for file, item in zip(files, digests, strict=True) if isinstance(item, str)}
    parents = {above(path) for path in listed}
    with Folders(top) as folders:
        stack = [""]
        while stack:
            folder = stack.pop()
            try:
                empty = True
                with os.scandir(folders.descriptor(folder)) as entries:
                    for entry in entries:
                        empty = False
                        path = f"{folder}/{entry.name}" if folder else entry.name
                        if entry.is_dir(follow_symlinks=False):
                            if not folder and collision_key(entry.name).startswith(OWN_PREFIX):
                                continue
                            if path.count("/") < PATH_MAX_PARTS:
                                stack.append(path)
                                continue
                            path += "/"
                        if (name := normalize("NFC", path)) not in listed:
                            yield _extra(path, "It is not listed.")
                        elif name in left_out:
                            yield _extra(path, "The manifest leaves it out, so there is nothing to check it against.")
                if empty and folder and (name := normalize("NFC", folder)) + "/" not in listed and name not in parents:
                    yield _extra(folder + "/", "This empty folder is not listed.")
            except OSError as error:
                yield _failed(error, folder)


def _extra(path: str, text: str) -> Finding:
    return Finding(path=escape(path), kind=FindingKind.UNEXPECTED, text=text)
