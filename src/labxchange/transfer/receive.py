"""The receiving side: fetches chunks into quarantine, journals them, verifies files and releases them.

Life of a chunk: asked for -> written and its digest compared, by whatever fetches it (``Fetching``) -> flushed -> journal row
committed: only then is it verified, and never comes again. Life of a file: all chunks verified -> SHA-256 compared with
the manifest -> entry in the trail -> renamed to its name -> journal. Small files go through in batches. Rules: at most 64 MiB are
asked for and not written; a chunk that is wrong three times names its file. The journal, the trail and who may receive are the
node's; how bytes come is left to ``streams``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from labxchange.dataset.check import Finding, FindingKind
from labxchange.dataset.listing import Line, ListedFile
from labxchange.dataset.manifest import FileDigests
from labxchange.errors import LabxchangeError
from labxchange.files.quarantine import Outcome, Quarantine, Release
from labxchange.settings import (
    BATCH_BYTES,
    BATCH_FILES,
    FETCH_BYTES,
    JOURNAL_BYTES,
    JOURNAL_SECONDS,
    JOURNAL_SMALL_SECONDS,
)
from labxchange.transfer.intervals import Interval, of_mask, of_numbers
from labxchange.transfer.streams import Ended, Fetching, expected, write_part
from labxchange.wire.control.messages import Gone

_ATTEMPTS = 3
_FEW = 16
_MAX_INTERVALS = 4096
_READ_BYTES = 1 << 20


class Journal(Protocol):
    """What the node writes down, durably and at once, before it returns."""

    def commit(
        self,
        *,
        arrived: list[Interval],
        done_bytes: int,
        releasing: Sequence[Release],
        released: list[Interval],
        done_files: int,
    ) -> None:
        """These chunks are verified and on the disk; these files matched and are about to get their names; those are in place."""


class Download:
    """One transfer into one quarantine; what it did not finish is for the next one, from the journal.

    Args:
        chunk_digests: 32 bytes for each chunk, checked against the manifest.
        digests: the manifest's digests, or reasons for files left out.
        arrived, released: what the journal holds already.
    """

    def __init__(
        self,
        transfer: str,
        *,
        files: Sequence[ListedFile],
        line: Line,
        chunk_digests: bytes,
        digests: Sequence[FileDigests],
        quarantine: Quarantine,
        journal: Journal,
        arrived: Sequence[Interval],
        released: Sequence[Interval],
        on_progress: Callable[[], None],
    ) -> None:
        self.transfer = transfer
        self.files = files
        self.line = line
        self.findings: dict[int, Finding] = {}
        self.unplaced: set[int] = set()
        """Files that are right and have no name, because it is taken or refused here; their parts are worth keeping."""
        self._chunk_digests = memoryview(chunk_digests)
        self._digests = digests
        self._quarantine = quarantine
        self._journal = journal
        self._on_progress = on_progress
        self._here = np.zeros(line.chunks, np.bool_)
        self._released = np.zeros(len(files), np.bool_)
        for first, last in arrived:
            self._here[first : last + 1] = True
        for first, last in released:
            self._released[first : last + 1] = True
        self._missing = np.diff(line.first_chunk).astype(np.int64)
        if line.chunks:
            held = np.concatenate(([0], np.cumsum(self._here)))
            self._missing -= held[line.first_chunk[1:]] - held[line.first_chunk[:-1]]
        self._record: dict[int, bytes] = {}
        self._attempts: dict[int, int] = {}
        self._fresh: list[int] = []
        self._fresh_bytes = 0
        self._ready: deque[int] = deque()
        self._unrecorded: list[int] = []
        self._work: deque[list[Interval]] = deque()
        self._commit = asyncio.Lock()
        self._full = asyncio.Event()
        self.received_bytes = 0
        self.done_bytes = self._bytes_of(self._here)
        self.done_files = int(self._released.sum())
        for file, item in enumerate(digests):
            if isinstance(item, str):
                self._leave_out(file, item, f"The sender left this file out of the manifest: {item}.")
        self._ready.extend(int(file) for file in np.flatnonzero((self._missing == 0) & ~self._released))

    def _bytes_of(self, mask: NDArray[np.bool_]) -> int:
        total = 0
        for first, last in of_mask(mask):
            end = self.line.chunk_at(last)
            total += end.offset + end.length - self.line.chunk_at(first).offset
        return total

    @property
    def complete(self) -> bool:
        """Every file is released or named in ``findings``."""
        return self.done_files + len(self.findings) >= len(self.files)

    def lasting(self) -> tuple[list[Interval], int]:
        """Verified chunks, and their bytes, of files that are in place or whose parts are worth keeping: what is left of a
        download that ended with findings."""
        mask = self._here.copy()
        for file in self.findings.keys() - self.unplaced:
            chunks = self.line.chunks_of(file)
            mask[chunks.start : chunks.stop] = False
        return of_mask(mask), self._bytes_of(mask)

    # --- what to ask for ----------------------------------------------------------------------------------------------
    def _plan(self) -> None:
        """Cut what is missing into requests."""
        self._work.clear()
        wanted = ~self._here
        for file in self.findings:
            chunks = self.line.chunks_of(file)
            wanted[chunks.start : chunks.stop] = False
        request: list[Interval] = []
        size = 0
        for first, last in of_mask(wanted):
            start = first
            while start <= last:
                begin = self.line.chunk_at(start)
                room = max(FETCH_BYTES - size, 1)
                end = min(last, self.line.chunk_of(min(begin.offset + room, self.line.bytes) - 1))
                if (
                    end < last
                    and end > start
                    and self.line.chunk_at(end).offset + self.line.chunk_at(end).length > begin.offset + room
                ):
                    end -= 1
                stop = self.line.chunk_at(end)
                request.append((start, end))
                size += stop.offset + stop.length - begin.offset
                start = end + 1
                if size >= FETCH_BYTES or len(request) >= _MAX_INTERVALS:
                    self._work.append(request)
                    request, size = [], 0
        if request:
            self._work.append(request)

    # --- running ------------------------------------------------------------------------------------------------------
    async def run(self, fetching: Fetching) -> None:
        """Fetch until everything is released or named; cancel it to pause.

        Raises:
            LabxchangeError: what the fetching raises; UnavailableError when the disk here is full.
        """
        self._fresh.clear()
        self._fresh_bytes = 0
        try:
            await self._commit_fresh(everything=True)
            while not self.complete:
                self._plan()
                await self._fetch_all(fetching)
                await self._commit_fresh(everything=True)
        finally:
            # What is on the disk already must not come again, however this ends.
            try:
                await _to_its_end(asyncio.ensure_future(self._commit_fresh()))
            except LabxchangeError:
                pass  # what is not recorded comes again
            finally:
                fetching.close()

    async def _fetch_all(self, fetching: Fetching) -> None:
        fetchers = [asyncio.ensure_future(self._fetcher(fetching)) for _ in range(min(fetching.parallel, len(self._work)))]
        everything = asyncio.gather(*fetchers)
        over = asyncio.Event()
        committer = asyncio.ensure_future(self._commit_often(over))
        try:
            await _first(everything, committer)
            if not committer.done():
                await everything
        finally:
            for task in fetchers:
                task.cancel()
            await asyncio.gather(everything, *fetchers, return_exceptions=True)
            over.set()
            self._full.set()
            await _to_its_end(committer)

    async def _fetcher(self, fetching: Fetching) -> None:
        while self._work:
            await fetching.fetch(self._work.popleft(), self)

    async def _commit_often(self, over: asyncio.Event) -> None:
        """Commit each half second or 64 MiB, many small files each 2 s or 2,000; ends by itself, never within a commit."""
        waited = 0.0
        while not over.is_set():
            try:
                async with asyncio.timeout(JOURNAL_SECONDS):
                    await self._full.wait()
            except TimeoutError:
                waited += JOURNAL_SECONDS
                if len(self._fresh) > _FEW and waited < JOURNAL_SMALL_SECONDS:
                    continue
            waited = 0.0
            self._full.clear()
            await self._commit_fresh()

    def done(self, ended: Sequence[Ended]) -> None:
        """``Sink``: chunks that were written."""
        for chunk, length, wrong, record in ended:
            self.received_bytes += length
            if wrong:
                self._wrong(chunk, wrong)
                continue
            if record:
                self._record[self.line.chunk_at(chunk).file] = record
            self._fresh.append(chunk)
            self._fresh_bytes += length
        if self._fresh_bytes >= JOURNAL_BYTES or len(self._fresh) >= BATCH_FILES:
            self._full.set()

    def _wrong(self, chunk: int, got: str) -> None:
        place = self.line.chunk_at(chunk)
        self._attempts[chunk] = self._attempts.get(chunk, 0) + 1
        if self._attempts[chunk] < _ATTEMPTS:
            self._work.append([(chunk, chunk)])
            return
        self.findings[place.file] = Finding(
            path=self.files[place.file].path,
            kind=FindingKind.DIFFER,
            offset=place.file_offset,
            expected=expected(self._chunk_digests, chunk).hex(),
            got=got,
            text=f"The sender's bytes from {place.file_offset} on are not those of the manifest.",
        )

    def gone(self, files: Sequence[Gone]) -> None:
        """``Sink``: files that cannot be sent."""
        for gone in files:
            if gone.file not in self.findings:
                self._leave_out(gone.file, gone.reason, f"The sender could not send this file as it was listed: {gone.reason}.")

    def _leave_out(self, file: int, reason: str, text: str) -> None:
        self.findings[file] = Finding(path=self.files[file].path, kind=FindingKind.MISSING, got=reason, text=text)

    # --- journal and release ------------------------------------------------------------------------------------------
    async def _commit_fresh(self, *, everything: bool = False) -> None:
        """Flush and journal what arrived, and release complete files: one flush, one commit, one entry and the renames a batch.

        A short batch of small files waits for company unless ``everything``.
        """
        async with self._commit:
            chunks, self._fresh, self._fresh_bytes = self._fresh, [], 0
            places = [self.line.chunk_at(chunk) for chunk in chunks]
            if chunks:
                await asyncio.to_thread(self._quarantine.flush, sorted({place.file for place in places}))
                for place in places:
                    self._missing[place.file] -= 1
                    if self._missing[place.file] == 0:
                        self._ready.append(place.file)
            releases = await self._next_batch(everything=everything)
            while chunks or releases or (everything and self._unrecorded):
                self._record_batch(chunks, sum(place.length for place in places), releases)
                chunks, places = [], []
                if releases:
                    await self._release(releases)
                releases = await self._next_batch(everything=everything)

    def _record_batch(self, chunks: list[int], size: int, releases: list[Release]) -> None:
        released, self._unrecorded = self._unrecorded, []
        self._journal.commit(
            arrived=of_numbers(chunks),
            done_bytes=self.done_bytes + size,
            releasing=releases,
            released=of_numbers(released),
            done_files=self.done_files,
        )
        self._here[chunks] = True
        self.done_bytes += size
        self._on_progress()

    async def _next_batch(self, *, everything: bool) -> list[Release]:
        """Complete files whose SHA-256 matches, as many as go together; none while too few are ready."""
        while self._ready:
            batch: list[int] = []
            size = 0
            while self._ready and len(batch) < BATCH_FILES and size < BATCH_BYTES:
                file = self._ready.popleft()
                if file not in self.findings and not self._released[file]:
                    batch.append(file)
                    size += self.files[file].size
            full = len(batch) >= BATCH_FILES or size >= BATCH_BYTES or any(self.files[file].size >= _READ_BYTES for file in batch)
            if not everything and not full:
                self._ready.extendleft(reversed(batch))
                return []
            if matched := [self._release_of(file) for file in batch if await self._matches(file)]:
                return matched
        return []

    async def _release(self, releases: list[Release]) -> None:
        outcomes = await asyncio.to_thread(self._quarantine.release, releases)
        done = [outcome.file for outcome in outcomes if outcome.done]
        for release, outcome in zip(releases, outcomes, strict=True):
            if outcome.outcome is Outcome.ALREADY_THERE and await self._is_there(release):
                done.append(outcome.file)
            elif not outcome.done:
                if outcome.outcome in (Outcome.ALREADY_THERE, Outcome.NAME_REFUSED):
                    self.unplaced.add(outcome.file)
                self.findings[outcome.file] = Finding(
                    path=self.files[outcome.file].path, kind=FindingKind.ERROR, text=outcome.text or str(outcome.outcome)
                )
        self._unrecorded += done
        self._released[done] = True
        self.done_files += len(done)
        self._on_progress()

    async def _is_there(self, release: Release) -> bool:
        """The file that has the name is the one of the manifest, from an earlier transfer: it counts as released."""
        digest = self._digests[release.file]
        assert not isinstance(digest, str)
        return await asyncio.to_thread(self._quarantine.take_for_released, release, digest[0])

    async def _matches(self, file: int) -> bool:
        """The digest of record of a complete file; a file of several chunks is read back from the disk."""
        expected = self._digests[file]
        assert not isinstance(expected, str)
        got = self._record.pop(file, b"") or await asyncio.to_thread(self._read_back, file)
        if got == expected[0]:
            return True
        self.findings[file] = Finding(
            path=self.files[file].path,
            kind=FindingKind.DIFFER,
            expected=expected[0].hex(),
            got=got.hex(),
            text="The SHA-256 of the file is not the one of the manifest.",
        )
        return False

    def _read_back(self, file: int) -> bytes:
        """From the part, or from the file in place where a crash came between its release and the journal."""
        item, digest = self._release_of(file), sha256()
        if not item.size and not self.files[file].is_folder and not self._quarantine.in_place(item):
            write_part(self._quarantine, file, 0, b"")
        for view in self._quarantine.contents(item, memoryview(bytearray(min(_READ_BYTES, max(item.size, 1))))):
            digest.update(view)
        return digest.digest()

    def _release_of(self, file: int) -> Release:
        listed = self.files[file]
        return Release(file, listed.path, listed.size, listed.mtime_ms)


async def _first(*tasks: asyncio.Future[Any]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def _to_its_end(task: asyncio.Future[None]) -> None:
    """Wait for work that must not stop in the middle; a cancellation meanwhile takes effect afterwards."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError
