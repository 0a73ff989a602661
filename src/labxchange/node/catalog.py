"""Share versions as the node works with them: files, line, digests, read from the store and kept for the last few."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import msgspec
from msgspec.structs import replace

from labxchange.dataset.listing import Line, ListedFile, Listing, decode_files
from labxchange.dataset.manifest import FileDigests, Manifest, decode_digests
from labxchange.identity.statement import Signed
from labxchange.node.core import Core
from labxchange.store import statements
from labxchange.store.damage import damaged
from labxchange.store.shares import ShareRow
from labxchange.transfer.intervals import Interval, of_mask, to_mask

_KEPT = 4


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A share version in memory. ``manifest``, ``digests`` and ``chunk_digests`` are empty while hashing goes on."""

    listing: Signed[Listing]
    files: list[ListedFile]
    line: Line
    manifest: Signed[Manifest] | None
    digests: list[FileDigests]
    chunk_digests: bytes


class _Bodies(msgspec.Struct, frozen=True, kw_only=True):
    """The same as the store has it; ``files`` are empty where they are ``listed``."""

    listing: Signed[Listing]
    listed: Loaded | None
    files: bytes
    manifest: Signed[Manifest] | None = None
    digests: bytes = b""
    chunk_digests: bytes = b""


class Catalog:
    """Loads and remembers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._loaded: OrderedDict[tuple[str, str], Loaded] = OrderedDict()

    def load(self, row: ShareRow) -> Loaded:
        """Raises IntegrityError ``database-damaged`` when a body is not there."""
        return self._cached(row) or self._keep(row, _decoded(self._bodies(row)))

    async def read(self, row: ShareRow) -> Loaded:
        """The same; lists are decoded beside the loop, which takes seconds for a million files."""
        return self._cached(row) or self._keep(row, await asyncio.to_thread(_decoded, self._bodies(row)))

    async def listed(self, row: ShareRow) -> Loaded:
        """What the listing alone says, also where the manifest's lists are still to come."""
        return await self.read(_without_manifest(row))

    def keep(self, row: ShareRow, loaded: Loaded) -> Loaded:
        """What was just decoded, as it came: a listing, or all lists."""
        return self._keep(row if loaded.manifest is not None else _without_manifest(row), loaded)

    def _cached(self, row: ShareRow) -> Loaded | None:
        found = self._loaded.get(_key(row))
        if found is not None:
            self._loaded.move_to_end(_key(row))
        return found

    def _keep(self, row: ShareRow, loaded: Loaded) -> Loaded:
        self._loaded[_key(row)] = loaded
        while len(self._loaded) > _KEPT:
            self._loaded.popitem(last=False)
        return loaded

    def _bodies(self, row: ShareRow) -> _Bodies:
        with self._core.database.begin() as tx:
            listing = statements.need(tx, row.listing, Listing)
            listed = self._cached(_without_manifest(row))
            files = self._need(statements.body(tx, listing.body.body)) if listed is None else b""
            if not row.manifest:
                return _Bodies(listing=listing, listed=listed, files=files)
            manifest = statements.need(tx, row.manifest, Manifest)
            digests = self._need(statements.body(tx, manifest.body.body))
            chunk_digests = self._need(statements.body(tx, row.digests)) if row.digests else b""
        lists = _Bodies(listing=listing, listed=listed, files=files)
        return replace(lists, manifest=manifest, digests=digests, chunk_digests=chunk_digests)

    def _need(self, found: bytes | None) -> bytes:
        if found is None:
            raise damaged("A list of files")
        return found


def _key(row: ShareRow) -> tuple[str, str]:
    return row.listing, row.manifest + row.digests


def _without_manifest(row: ShareRow) -> ShareRow:
    return replace(row, manifest="", digests="")


def _decoded(bodies: _Bodies) -> Loaded:
    listed = bodies.listed or decoded_listing(bodies.listing, bodies.files)
    if bodies.manifest is None:
        return listed
    digests = decode_digests(bodies.digests, bodies.manifest.body, listed.files)
    return replace(listed, manifest=bodies.manifest, digests=digests, chunk_digests=bodies.chunk_digests)


def decoded_listing(listing: Signed[Listing], body: bytes) -> Loaded:
    """What a listing alone says.

    Raises:
        PeerError, RefusedError: of ``decode_files``.
    """
    files = decode_files(body, listing.body)
    return listed(listing, files, Line(files))


def listed(listing: Signed[Listing], files: list[ListedFile], line: Line) -> Loaded:
    """What is known before the manifest is there."""
    return Loaded(listing=listing, files=files, line=line, manifest=None, digests=[], chunk_digests=b"")


def whole_files(loaded: Loaded, chunks: list[Interval]) -> tuple[int, int]:
    """How many files with bytes are whole in ``chunks``, and the bytes of all chunks."""
    mask = to_mask(chunks, loaded.line.chunks)
    files = 0
    first = loaded.line.first_chunk
    for begin, end in of_mask(mask):
        low = int(first.searchsorted(begin, "left"))
        high = int(first.searchsorted(end + 1, "right")) - 1
        files += sum(1 for file in range(low, high) if first[file] < first[file + 1])
    size = 0
    for begin, end in of_mask(mask):
        stop = loaded.line.chunk_at(end)
        size += stop.offset + stop.length - loaded.line.chunk_at(begin).offset
    return files, size
