"""Chunks of a share version that this disk holds already, in earlier versions: found by their digest and copied.

A copied chunk is read, hashed while it is copied, and counts only when its digest is the wanted one; what was changed on the disk
since does not match and is fetched like everything else. Which transfers are looked at is the node's choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from labxchange.dataset.listing import Chunk, Line, ListedFile
from labxchange.dataset.manifest import DIGEST_BYTES
from labxchange.files.earlier import EarlierFiles
from labxchange.files.quarantine import Quarantine
from labxchange.transfer.digests import ChunkDigests
from labxchange.transfer.intervals import Interval
from labxchange.transfer.streams import Ended, write_part

_READ_BYTES = 1 << 20
_WHOLE_BYTES = 4 << 20
_TRIES = 4
"""Places with the same digest that are tried; more of them hold the same bytes, or were made to waste time."""


class Held(NamedTuple):
    """An earlier transfer: what was listed, the digests of its manifest, which chunks arrived (a mask), and where they lie."""

    files: Sequence[ListedFile]
    line: Line
    chunk_digests: bytes
    arrived: NDArray[np.bool_]
    place: EarlierFiles


class Reuse:
    """An index over the chunks of earlier transfers, by digest."""

    def __init__(self, held: Sequence[Held]) -> None:
        self._held = held
        keys, sources, chunks = [], [], []
        for number, item in enumerate(held):
            digests = ChunkDigests(item.line.chunks, item.chunk_digests)
            there = np.flatnonzero(item.arrived & digests.present(0, item.line.chunks))
            keys.append(_heads(digests, 0, item.line.chunks)[there])
            sources.append(np.full(len(there), number, np.int32))
            chunks.append(there)
        every = np.concatenate(keys) if keys else np.zeros(0, np.uint64)
        order = np.argsort(every, kind="stable")
        self._keys = every[order]
        self._source = np.concatenate(sources)[order] if sources else np.zeros(0, np.int32)
        self._chunk = np.concatenate(chunks)[order] if chunks else np.zeros(0, np.int64)

    def may_hold(self, digests: ChunkDigests, first: int, stop: int) -> NDArray[np.bool_]:
        """Which of the chunks [first, stop) look as if they were here; copying them tells."""
        if not len(self._keys):
            return np.zeros(stop - first, np.bool_)
        heads = _heads(digests, first, stop)
        at = np.minimum(self._keys.searchsorted(heads), len(self._keys) - 1)
        return np.asarray((self._keys[at] == heads) & digests.present(first, stop))

    def copy(self, asked: Sequence[Interval], *, line: Line, digests: ChunkDigests, quarantine: Quarantine) -> list[Ended]:
        """Copy chunks into the quarantine (blocks); returns those that are right. The others must be fetched."""
        done: list[Ended] = []
        buffer = memoryview(bytearray(_WHOLE_BYTES))
        for first, last in asked:
            for chunk in range(first, last + 1):
                expected, place = digests.of(chunk), line.chunk_at(chunk)
                for item, old in self._candidates(expected):
                    if _copy(item, old, place, expected, quarantine, buffer):
                        in_memory = place.length == int(line.size[place.file]) and place.length <= len(buffer)
                        record = sha256(buffer[: place.length]).digest() if in_memory else b""
                        done.append(Ended(chunk, place.length, record=record))
                        break
        return done

    def _candidates(self, digest: bytes) -> Iterator[tuple[Held, int]]:
        key = np.frombuffer(digest[:8], np.uint64)[0]
        at = int(self._keys.searchsorted(key))
        for index in range(at, min(at + _TRIES, len(self._keys))):
            item, chunk = self._held[int(self._source[index])], int(self._chunk[index])
            if item.chunk_digests[chunk * DIGEST_BYTES : (chunk + 1) * DIGEST_BYTES] == digest:
                yield item, chunk

    def close(self) -> None:
        for item in self._held:
            item.place.close()


def _heads(digests: ChunkDigests, first: int, stop: int) -> NDArray[np.uint64]:
    """The first eight bytes of each digest."""
    rows = np.frombuffer(digests.view[first * DIGEST_BYTES : stop * DIGEST_BYTES], np.uint64)
    return rows.reshape(-1, DIGEST_BYTES // 8)[:, 0]


def _copy(item: Held, old: int, place: Chunk, expected: bytes, quarantine: Quarantine, buffer: memoryview) -> bool:
    """Copy one chunk, by way of ``buffer``, which holds it afterwards if it fits; False when it is not what was expected.

    A longer chunk is written as it is read: should it turn out wrong, it is written again when it is fetched.
    """
    source = item.line.chunk_at(old)
    if source.length != place.length:
        return False
    hasher, path = blake3(), item.files[source.file].path
    in_memory = place.length <= len(buffer)
    step = place.length if in_memory else _READ_BYTES
    for start in range(0, place.length, step):
        view = buffer[: min(step, place.length - start)]
        if not item.place.read(source.file, path, source.file_offset + start, view):
            return False
        hasher.update(view)
        if not in_memory:
            write_part(quarantine, place.file, place.file_offset + start, view)
    if hasher.digest() != expected:
        return False
    if in_memory:
        write_part(quarantine, place.file, place.file_offset, buffer[: place.length])
    return True
