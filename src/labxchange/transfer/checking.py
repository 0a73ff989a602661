"""Is a received file what the manifest says? Its bytes read back from the disk (these block; call them in a thread)."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from blake3 import blake3

from labxchange.dataset.listing import Line, ListedFile
from labxchange.files.quarantine import Quarantine, Release
from labxchange.transfer.digests import ChunkDigests
from labxchange.transfer.streams import write_part

_READ_BYTES = 1 << 20


def release_of(files: Sequence[ListedFile], file: int) -> Release:
    listed = files[file]
    return Release(file, listed.path, listed.size, listed.mtime_ms)


def digest_of_record(quarantine: Quarantine, item: Release) -> bytes:
    """SHA-256 of the part, or of the file in place where a crash came between its release and the journal."""
    digest = sha256()
    if not item.size and not item.path.endswith("/") and not quarantine.in_place(item):
        write_part(quarantine, item.file, 0, b"")
    for view in quarantine.contents(item, memoryview(bytearray(min(_READ_BYTES, max(item.size, 1))))):
        digest.update(view)
    return digest.digest()


def wrong_chunks(quarantine: Quarantine, item: Release, *, line: Line, digests: ChunkDigests) -> dict[int, str]:
    """The chunks of a part that do not have their digest, with the one that they have (hex)."""
    if quarantine.in_place(item):
        return {}
    wrong = {}
    for chunk in line.chunks_of(item.file):
        place, hasher = line.chunk_at(chunk), blake3()
        for start in range(0, place.length, _READ_BYTES):
            hasher.update(quarantine.read(item.file, place.file_offset + start, min(_READ_BYTES, place.length - start)))
        if (got := hasher.digest()) != digests.of(chunk):
            wrong[chunk] = got.hex()
    return wrong
