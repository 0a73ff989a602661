"""Hashing one's own share versions in the background, and signing their manifests when it ends.

Digests are there for recipients as they come (``digests``), in the order of the listing. A file that changed meanwhile is left
out of the manifest, with its reason; the rest goes on. What a stop interrupts is hashed again at the next unlock, as listed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from hashlib import sha256
from typing import Literal

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.dataset.listing import Line, Listing
from labxchange.dataset.manifest import DIGEST_BYTES, FileDigests, make_manifest
from labxchange.dataset.names import escape
from labxchange.errors import LabxchangeError, NodeLocked
from labxchange.files.hashing import CacheKey, FileHash, Hashed, hash_files
from labxchange.files.scan import Scan, Sources
from labxchange.identity.statement import sign
from labxchange.node.catalog import Catalog, listed
from labxchange.node.core import Core
from labxchange.store import shares as rows
from labxchange.store import statements
from labxchange.store.damage import reading
from labxchange.store.hash_cache import HashCache
from labxchange.store.shares import ShareRow
from labxchange.transfer.digests import ChunkDigests

_CACHED_MIN_BYTES = 1 << 18


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where an own share version comes from, as the store keeps it."""

    sources: Sources
    skipped: tuple[tuple[str, str], ...]
    reason: str = ""


def origin_of(row: ShareRow) -> Origin:
    """Raises IntegrityError ``database-damaged``."""
    with reading("The place of a share's files"):
        return msgspec.msgpack.decode(row.source, type=Origin)


class _Job:
    """One share version that is being hashed."""

    def __init__(self, row: ShareRow, found: Scan) -> None:
        self.row = row
        self.found = found
        self.line = Line(found.files)
        self.digests = ChunkDigests(self.line.chunks)
        self.files: list[FileDigests] = []
        self.bytes = 0
        self.task: asyncio.Task[None] | None = None

    def advance(self, count: int) -> None:
        self.bytes += count

    def announce(self, file: int, number: int, digest: bytes) -> None:
        """A chunk within a large file; from a thread of the hashing."""
        self.digests.put(int(self.line.first_chunk[file]) + number, digest)

    def add(self, batch: list[Hashed]) -> None:
        """Whole files, in order."""
        for hashed in batch:
            chunks = self.line.chunks_of(hashed.file)
            if isinstance(hashed.result, str):
                self.files.append(hashed.result)
                self.digests.put(chunks.start, bytes(DIGEST_BYTES * len(chunks)))
            else:
                self.files.append((hashed.result.sha256, sha256(hashed.result.chunks).digest()))
                self.digests.put(chunks.start, hashed.result.chunks)


class Hashing:
    """The share versions that are being hashed."""

    def __init__(self, core: Core, catalog: Catalog) -> None:
        self._core = core
        self._catalog = catalog
        self._jobs: dict[tuple[str, int], _Job] = {}
        self._stopping = threading.Event()

    # --- doing it -----------------------------------------------------------------------------------------------------
    def begin(self, row: ShareRow, found: Scan) -> None:
        job = self._jobs[row.share, row.version] = _Job(row, found)
        with self._core.database.begin() as tx:
            listing = statements.need(tx, row.listing, Listing)
        self._catalog.keep(row, listed(listing, job.found.files, job.line))
        job.task = asyncio.ensure_future(self._hash(job))

    async def _hash(self, job: _Job) -> None:
        row = job.row
        try:
            await self._hash_all(job)
            if self._stopping.is_set():
                return
            self._sign_manifest(job)
        except NodeLocked:
            return  # as after a stop: the next unlock hashes again
        except LabxchangeError as error:
            self._fail(row, error)
        finally:
            self._jobs.pop((row.share, row.version), None)
            self._core.notices.publish("share", row.share)

    async def _hash_all(self, job: _Job) -> None:
        cache = await asyncio.to_thread(HashCache, self._core.home.root / "hash-cache.db")
        batches = hash_files(
            job.found.sources,
            job.found.files,
            cache=_Cache(cache),
            advance=job.advance,
            announce=job.announce,
            stop=self._stopping,
        )
        try:
            while batch := await self._next(batches):
                job.add(batch)
        finally:
            await asyncio.to_thread(batches.close)
            await asyncio.to_thread(cache.close)

    async def _next(self, batches: Iterator[list[Hashed]]) -> list[Hashed]:
        """The next results; empty at the end."""
        return await asyncio.to_thread(next, batches, [])

    def _sign_manifest(self, job: _Job) -> None:
        row = job.row
        loaded = self._catalog.load(row)
        identity, now = self._core.require(), self._core.clock.now()
        head, body = make_manifest(loaded.files, job.files, issuer=self._core.me, issued=now, listing=row.listing)
        manifest = sign(head, identity)
        left_out = [(file.path, item) for file, item in zip(loaded.files, job.files, strict=True) if isinstance(item, str)]
        entries = [
            Entry(
                event=Event.TRANSFER_SOURCE_CHANGED,
                object_type="file",
                object_id=escape(path, limit=1000),
                dataset=row.share,
                who=self._core.who(actor="program"),
                result="error",
                result_code=reason,
            )
            for path, reason in left_out[:100]
        ]
        entries.append(
            Entry(
                event=Event.DATASET_VERIFIED,
                object_type="dataset",
                object_id=row.share,
                object_digest=head.root,
                who=self._core.who(actor="program"),
                details={"files": head.files, "left_out": head.left_out, "bytes": head.bytes},
            )
        )
        with self._core.act(*entries) as tx:
            statements.put_body(tx, body)
            statements.put(tx, manifest, about=row.share, now=now)
            chunk_digests = bytes(job.digests.view)
            digests = statements.put_body(tx, chunk_digests)
            fresh = replace(self._now(tx, row, "available"), manifest=manifest.id, digests=digests)
            rows.put_share(tx, fresh)
        self._catalog.keep(fresh, replace(loaded, manifest=manifest, digests=job.files, chunk_digests=chunk_digests))

    def _now(self, tx: Connection, row: ShareRow, state: Literal["available", "failed"]) -> ShareRow:
        """The row in its new state, unless the share was retracted while it was hashed."""
        current = rows.share(tx, row.share, row.version, owner=self._core.me)
        return replace(row, state=current.state if current is not None and current.state == "retracted" else state)

    def _fail(self, row: ShareRow, error: LabxchangeError) -> None:
        origin = origin_of(row)
        source = msgspec.msgpack.encode(replace(origin, reason=error.message))
        entry = Entry(
            event=Event.DATASET_VERIFIED,
            object_type="dataset",
            object_id=row.share,
            who=self._core.who(actor="program"),
            result="error",
            result_code=error.code,
        )
        with self._core.act(entry) as tx:
            rows.put_share(tx, replace(self._now(tx, row, "failed"), source=source))

    async def resume(self) -> None:
        """After a start: hash what a stop interrupted, as it was listed."""
        with self._core.database.begin() as tx:
            pending = [row for row in rows.owned_shares(tx, self._core.me) if row.state == "hashing"]
        for row in pending:
            if (row.share, row.version) in self._jobs:
                continue
            origin = origin_of(row)
            self.begin(row, Scan(self._catalog.load(row).files, origin.sources, []))

    async def close(self) -> None:
        self._stopping.set()
        await asyncio.gather(*self.tasks(), return_exceptions=True)

    def tasks(self) -> list[asyncio.Task[None]]:
        return [job.task for job in self._jobs.values() if job.task is not None]

    # --- looking ------------------------------------------------------------------------------------------------------
    def hashed_bytes(self, share: str, version: int) -> int:
        """How far it is; 0 when it is not being hashed."""
        job = self._jobs.get((share, version))
        return job.bytes if job else 0

    def digests(self, share: str, version: int) -> ChunkDigests | None:
        """The chunk digests as far as they are known; None when it is not being hashed."""
        job = self._jobs.get((share, version))
        return job.digests if job else None

    async def hashed(self, share: str, version: int, *, timeout_s: float | None = None) -> None:
        """Wait until the manifest of a share version is signed, or hashing failed or was interrupted (state ``hashing``); at most
        so long."""
        job = self._jobs.get((share, version))
        if job is not None and job.task is not None:
            done, _ = await asyncio.wait([job.task], timeout=timeout_s)
            for task in done:
                task.result()


class _Cache:
    """``store.hash_cache`` in the words of ``files.hashing``; a small file is hashed sooner than it is looked up."""

    def __init__(self, cache: HashCache) -> None:
        self._cache = cache

    def get(self, key: CacheKey) -> FileHash | None:
        found = self._cache.get(key) if key.size >= _CACHED_MIN_BYTES else None
        return FileHash(*found) if found else None

    def put(self, key: CacheKey, value: FileHash) -> None:
        if key.size >= _CACHED_MIN_BYTES:
            self._cache.put(key, value)
