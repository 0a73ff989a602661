"""The receiving side: gets chunks into quarantine, journals them, verifies files and releases them.

Life of a chunk: its digest is known -> copied from an earlier version, or asked for -> written and its digest compared, by what
brings it (``Reuse``, ``Fetching``) -> flushed -> journal row committed: only then has it arrived, and never comes again. Life of
a file: all chunks arrived and the manifest there -> SHA-256 compared with it -> entry in the trail -> renamed -> journal.

While the sender hashes, digests are announced ahead of the manifest and chunks arrive by them; nothing is released before
``settle``. A file whose SHA-256 is not the manifest's is looked through, and chunks that are not the manifest's come again, for
they may have been announced otherwise. Small files go through in batches. Rules: what may come again after a kill is bounded
(``_has_room``); a chunk that is wrong three times names its file. The journal, the trail and who may receive are the node's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from labxchange.dataset.check import Finding, FindingKind
from labxchange.dataset.listing import Line, ListedFile
from labxchange.dataset.manifest import DIGEST_BYTES, FileDigests
from labxchange.errors import LabxchangeError
from labxchange.files.quarantine import Outcome, Quarantine, Release
from labxchange.settings import (
    BATCH_BYTES,
    BATCH_FILES,
    JOURNAL_BYTES,
    JOURNAL_SECONDS,
    JOURNAL_SMALL_SECONDS,
)
from labxchange.transfer.checking import digest_of_record, release_of, wrong_chunks
from labxchange.transfer.digests import ChunkDigests
from labxchange.transfer.intervals import Interval, of_mask, of_numbers
from labxchange.transfer.reuse import Reuse
from labxchange.transfer.streams import Ended, Fetching
from labxchange.transfer.wanted import Wanted
from labxchange.wire.control.messages import Gone

_ATTEMPTS = 3
_FEW, _SMALL_BYTES = 16, 256 << 10
_READ_BYTES = 1 << 20
_WINDOWS = 2
_RECORDS_MAX = 100_000
"""SHA-256 of small files kept until their release; those of more are read back."""


class Journal(Protocol):
    """What the node writes down, durably and at once, before it returns."""

    def commit(
        self,
        *,
        arrived: list[Interval],
        done_bytes: int,
        reused_bytes: int,
        releasing: Sequence[Release],
        released: list[Interval],
        done_files: int,
    ) -> None:
        """These chunks arrived and are on the disk; these files matched and are about to get their names; those are in place."""

    def drop(self, chunks: list[Interval], *, done_bytes: int, reused_bytes: int) -> None:
        """These chunks are not what the manifest says, and come again."""


class Download:
    """One transfer into one quarantine; what it did not finish is for the next one, from the journal.

    Args:
        digests: the chunk digests as far as they are known; all of them where ``manifest`` is given.
        manifest: the manifest's digests, or reasons for files left out; None while the sender hashes.
        arrived, released, reused_bytes: what the journal holds already.
        reuse: earlier versions on this disk.
    """

    def __init__(
        self,
        transfer: str,
        *,
        files: Sequence[ListedFile],
        line: Line,
        digests: ChunkDigests,
        manifest: Sequence[FileDigests] | None,
        quarantine: Quarantine,
        journal: Journal,
        arrived: Sequence[Interval],
        released: Sequence[Interval],
        reused_bytes: int = 0,
        reuse: Reuse | None = None,
        on_progress: Callable[[], None],
    ) -> None:
        self.transfer = transfer
        self.files = files
        self.line = line
        self.digests = digests
        self.findings: dict[int, Finding] = {}
        self.unplaced: set[int] = set()
        """Files that are right and have no name, because it is taken or refused here; their parts are worth keeping."""
        self.mended = 0
        """Files of which chunks came again, because they were announced otherwise than the manifest says."""
        self._manifest: Sequence[FileDigests] = ()
        self._quarantine = quarantine
        self._journal = journal
        self._reuse = reuse
        self._on_progress = on_progress
        self._here = np.zeros(line.chunks, np.bool_)
        self._released = np.zeros(len(files), np.bool_)
        for first, last in arrived:
            self._here[first : last + 1] = True
        for first, last in released:
            self._released[first : last + 1] = True
        self._got = self._here.copy()
        """Written, and perhaps not journalled yet."""
        self._wanted = Wanted(line, digests=digests, written=self._got, reuse=reuse)
        self._reused = np.zeros(line.chunks, np.bool_)
        self._missing = np.diff(line.first_chunk).astype(np.int64)
        if line.chunks:
            held = np.concatenate(([0], np.cumsum(self._here)))
            self._missing -= held[line.first_chunk[1:]] - held[line.first_chunk[:-1]]
        self._record: dict[int, bytes] = {}
        self._attempts: dict[int, int] = {}
        self._fresh: list[int] = []
        self._fresh_bytes = 0
        self._flushing_bytes = 0
        self._requests = 0
        """Under way."""
        self._ready: deque[int] = deque()
        self._unrecorded: list[int] = []
        self._full = asyncio.Event()
        self._roomy = asyncio.Event()
        self._commit = asyncio.Lock()
        self.received_bytes = 0
        self.reused_bytes = reused_bytes
        self.done_bytes = self._bytes_of(self._here)
        self.done_files = int(self._released.sum())
        self._ready.extend(int(file) for file in np.flatnonzero((self._missing == 0) & ~self._released))
        if manifest is not None:
            self.settle(manifest)

    def _bytes_of(self, mask: NDArray[np.bool_]) -> int:
        total = 0
        for first, last in of_mask(mask):
            end = self.line.chunk_at(last)
            total += end.offset + end.length - self.line.chunk_at(first).offset
        return total

    @property
    def complete(self) -> bool:
        """Every file is released or named in ``findings``."""
        return self._wanted.settled and self.done_files + len(self.findings) >= len(self.files)

    def lasting(self) -> tuple[list[Interval], int]:
        """Arrived chunks, and their bytes, of files that are in place or whose parts are worth keeping: what is left of a
        download that ended with findings."""
        mask = self._here.copy()
        for file in self.findings.keys() - self.unplaced:
            chunks = self.line.chunks_of(file)
            mask[chunks.start : chunks.stop] = False
        return of_mask(mask), self._bytes_of(mask)

    # --- what is known ------------------------------------------------------------------------------------------------
    def announce(self, first: int, chunk_digests: bytes) -> None:
        """The sender hashed this far: chunks from ``first`` on may be fetched by these digests."""
        self.digests.put(first, chunk_digests)
        self._wanted.open(first, first + len(chunk_digests) // DIGEST_BYTES)

    def settle(self, manifest: Sequence[FileDigests], chunk_digests: bytes = b"") -> None:
        """The manifest is there, with the chunk digests where they are not known yet: files may be released from now on."""
        if chunk_digests:
            self.digests.settle(chunk_digests)
        self._manifest = manifest
        self._wanted.settled = True
        for file, item in enumerate(manifest):
            if isinstance(item, str):
                text = f"The sender left this file out of the manifest: {item}."
                self._give_up(file, FindingKind.MISSING, text, got=item)
        self._wanted.open(0, self.line.chunks)
        self._full.set()

    # --- running ------------------------------------------------------------------------------------------------------
    async def run(self, fetching: Fetching) -> None:
        """Get everything until it is released or named; cancel it to pause.

        Raises:
            LabxchangeError: what the fetching raises; UnavailableError when the disk here is full.
        """
        self._wanted.requests.request_bytes = fetching.request_bytes
        try:
            await self._commit_fresh(everything=True)
            while not self.complete:
                self._wanted.anew()
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
        workers = [asyncio.ensure_future(self._fetcher(fetching)) for _ in range(fetching.parallel)]
        if self._reuse is not None:
            workers.append(asyncio.ensure_future(self._copier(self._reuse)))
        everything = asyncio.gather(*workers)
        over = asyncio.Event()
        committer = asyncio.ensure_future(self._commit_often(over))
        try:
            await asyncio.wait((everything, committer), return_when=asyncio.FIRST_COMPLETED)
            if not committer.done():
                await everything
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(everything, *workers, return_exceptions=True)
            over.set()
            self._full.set()
            await _to_its_end(committer)

    async def _fetcher(self, fetching: Fetching) -> None:
        while asked := await self._wanted.next(self._wanted.requests):
            while not self._has_room(fetching):
                self._roomy.clear()
                await self._roomy.wait()
            self._requests += 1
            await fetching.fetch(asked, self)
            self._requests -= 1
            self._roomy.set()
            self._wanted.over(asked)

    def _has_room(self, fetching: Fetching) -> bool:
        """On a slow disk: two windows of the journal, one being flushed while the other fills, and the requests under way."""
        room = _WINDOWS * JOURNAL_BYTES + (fetching.parallel - self._requests) * fetching.request_bytes
        return self._fresh_bytes + self._flushing_bytes < room

    async def _copier(self, reuse: Reuse) -> None:
        while asked := await self._wanted.next(self._wanted.copies):
            copying = asyncio.to_thread(reuse.copy, asked, line=self.line, digests=self.digests, quarantine=self._quarantine)
            await _to_its_end(task := asyncio.ensure_future(copying))  # its thread writes on, whoever waits
            self._take(ended := task.result())
            for item in ended:
                self._reused[item.chunk] = True
                self.reused_bytes += item.length
            self._wanted.over(asked)

    async def _commit_often(self, over: asyncio.Event) -> None:
        """Commit each half second or 64 MiB, many small files each 2 s or 4,000; ends by itself, never within a commit."""
        waited = 0.0
        while not over.is_set():
            try:
                async with asyncio.timeout(JOURNAL_SECONDS):
                    await self._full.wait()
            except TimeoutError:
                waited += JOURNAL_SECONDS
                small = self._fresh_bytes < len(self._fresh) * _SMALL_BYTES
                if small and len(self._fresh) > _FEW and waited < JOURNAL_SMALL_SECONDS:
                    continue
            waited = 0.0
            self._full.clear()
            await self._commit_fresh()

    def done(self, ended: Sequence[Ended]) -> None:
        """``Sink``: chunks that came."""
        self.received_bytes += sum(item.length for item in ended)
        self._take(ended)

    def _take(self, ended: Sequence[Ended]) -> None:
        for chunk, length, wrong, record in ended:
            if self._got[chunk]:
                continue
            if wrong:
                self._wrong(chunk, wrong)
                continue
            if record and (self._wanted.settled or len(self._record) < _RECORDS_MAX):
                self._record[self.line.chunk_at(chunk).file] = record
            self._got[chunk] = True
            self._fresh.append(chunk)
            self._fresh_bytes += length
        if self._fresh_bytes >= JOURNAL_BYTES or len(self._fresh) >= self._wanted.batch_files:
            self._full.set()

    def _wrong(self, chunk: int, got: str) -> None:
        place = self.line.chunk_at(chunk)
        self._attempts[chunk] = self._attempts.get(chunk, 0) + 1
        if self._attempts[chunk] < _ATTEMPTS:
            return
        text = f"The sender's bytes from {place.file_offset} on are not those of the manifest."
        expected = self.digests.of(chunk).hex()
        self._give_up(place.file, FindingKind.DIFFER, text, offset=place.file_offset, expected=expected, got=got)

    def gone(self, files: Sequence[Gone]) -> None:
        """``Sink``: files that cannot be sent."""
        for gone in files:
            if gone.file not in self.findings:
                text = f"The sender could not send this file as it was listed: {gone.reason}."
                self._give_up(gone.file, FindingKind.MISSING, text, got=gone.reason)

    def _give_up(self, file: int, kind: FindingKind, text: str, **where: Any) -> None:
        self.findings[file] = Finding(path=self.files[file].path, kind=kind, text=text, **where)
        self._wanted.give_up(self.line.chunks_of(file))

    # --- journal and release ------------------------------------------------------------------------------------------
    async def _commit_fresh(self, *, everything: bool = False) -> None:
        """Flush and journal what arrived, and release complete files: one flush, one commit, one entry and the renames a batch.

        A short batch of small files waits for company unless ``everything``.
        """
        async with self._commit:
            chunks, self._fresh = self._fresh, []
            self._flushing_bytes, self._fresh_bytes = self._fresh_bytes, 0
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
                chunks, places, self._flushing_bytes = [], [], 0
                self._roomy.set()
                if releases:
                    await self._release(releases)
                releases = await self._next_batch(everything=everything)

    def _record_batch(self, chunks: list[int], size: int, releases: list[Release]) -> None:
        released, self._unrecorded = self._unrecorded, []
        self._journal.commit(
            arrived=of_numbers(chunks),
            done_bytes=self.done_bytes + size,
            reused_bytes=self.reused_bytes,
            releasing=releases,
            released=of_numbers(released),
            done_files=self.done_files,
        )
        self._here[chunks] = True
        self.done_bytes += size
        self._on_progress()

    async def _next_batch(self, *, everything: bool) -> list[Release]:
        """Complete files whose SHA-256 matches, as many as go together; none while too few are ready, or before the manifest."""
        while self._ready and self._wanted.settled:
            batch: list[int] = []
            size = 0
            while self._ready and len(batch) < BATCH_FILES and size < BATCH_BYTES:
                file = self._ready.popleft()
                if file not in self.findings and not self._released[file]:
                    batch.append(file)
                    size += self.files[file].size
            full = len(batch) >= self._wanted.batch_files or size >= BATCH_BYTES
            full = full or any(self.files[file].size >= _READ_BYTES for file in batch)
            if not everything and not full:
                self._ready.extendleft(reversed(batch))
                return []
            if matched := [release_of(self.files, file) for file in batch if await self._matches(file)]:
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
                self._give_up(outcome.file, FindingKind.ERROR, outcome.text or str(outcome.outcome))
        self._unrecorded += done
        self._released[done] = True
        self.done_files += len(done)
        self._on_progress()

    async def _is_there(self, release: Release) -> bool:
        """The file that has the name is the one of the manifest, from an earlier transfer: it counts as released."""
        digest = self._manifest[release.file]
        assert not isinstance(digest, str)
        return await asyncio.to_thread(self._quarantine.take_for_released, release, digest[0])

    async def _matches(self, file: int) -> bool:
        """The digest of record of a complete file; a file of several chunks is read back from the disk."""
        expected, item = self._manifest[file], release_of(self.files, file)
        assert not isinstance(expected, str)
        got = self._record.pop(file, b"") or await asyncio.to_thread(digest_of_record, self._quarantine, item)
        if got == expected[0]:
            return True
        look = partial(wrong_chunks, self._quarantine, item, line=self.line, digests=self.digests)
        if wrong := await asyncio.to_thread(look):
            self._get_again(file, wrong)
            return False
        text = "The SHA-256 of the file is not the one of the manifest."
        self._give_up(file, FindingKind.DIFFER, text, expected=expected[0].hex(), got=got.hex())
        return False

    def _get_again(self, file: int, wrong: dict[int, str]) -> None:
        """Chunks arrived by digests that the manifest does not have."""
        chunks = sorted(wrong)
        lengths = {chunk: self.line.chunk_at(chunk).length for chunk in chunks}
        reused = sum(lengths[chunk] for chunk in chunks if self._reused[chunk])
        size = sum(lengths.values())
        self._journal.drop(of_numbers(chunks), done_bytes=self.done_bytes - size, reused_bytes=self.reused_bytes - reused)
        self.done_bytes -= size
        self.reused_bytes -= reused
        self._here[chunks] = self._reused[chunks] = False
        self._missing[file] += len(chunks)
        self.mended += 1
        for chunk, got in wrong.items():
            self._wrong(chunk, got)
        self._wanted.lost(chunks)


async def _to_its_end(task: asyncio.Future[Any]) -> None:
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
