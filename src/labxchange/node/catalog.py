"""Share versions as the node works with them: files, line, digests, read from the store and kept for the last few."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from labxchange.dataset.listing import Line, ListedFile, Listing, decode_files
from labxchange.dataset.manifest import FileDigests, Manifest, decode_digests
from labxchange.errors import IntegrityError
from labxchange.identity.statement import Signed, parse
from labxchange.node.core import Core
from labxchange.store import statements
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


class Catalog:
    """Loads and remembers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._loaded: OrderedDict[tuple[str, str], Loaded] = OrderedDict()

    def load(self, row: ShareRow) -> Loaded:
        """Raises IntegrityError ``database-damaged`` when a body is not there."""
        key = (row.listing, row.manifest + row.digests)
        if key in self._loaded:
            self._loaded.move_to_end(key)
            return self._loaded[key]
        loaded = self._load(row)
        self._loaded[key] = loaded
        while len(self._loaded) > _KEPT:
            self._loaded.popitem(last=False)
        return loaded

    def _load(self, row: ShareRow) -> Loaded:
        with self._core.database.begin() as tx:
            listing = parse(self._need(statements.get(tx, row.listing)), Listing)
            files = decode_files(self._need(statements.body(tx, listing.body.body)), listing.body)
            line = Line(files)
            if not row.manifest:
                return Loaded(listing=listing, files=files, line=line, manifest=None, digests=[], chunk_digests=b"")
            manifest = parse(self._need(statements.get(tx, row.manifest)), Manifest)
            digests = decode_digests(self._need(statements.body(tx, manifest.body.body)), manifest.body, files)
            chunk_digests = self._need(statements.body(tx, row.digests)) if row.digests else b""
        return Loaded(listing=listing, files=files, line=line, manifest=manifest, digests=digests, chunk_digests=chunk_digests)

    def _need(self, found: bytes | None) -> bytes:
        if found is None:
            raise IntegrityError(
                "database-damaged",
                "A list of files is missing from the node's database.",
                hint="Restore your last backup with `labxchange node restore`.",
            )
        return found


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
