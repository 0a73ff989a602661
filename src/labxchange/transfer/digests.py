"""The chunk digests of a share version as far as they are known: filled while its files are hashed, at the sender from the disk
and at the recipient from what the sender announces, and settled when the manifest is there.

Rules: room for all of them is taken at the start, so readers in other threads hold views that stay right; a digest counts as
known only after its bytes are in place. Zeros stand for a chunk of a file that was left out. Which digests are right is left to
the callers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from labxchange.dataset.manifest import DIGEST_BYTES
from labxchange.transfer.intervals import Interval


class ChunkDigests:
    """32 bytes for each chunk.

    Args:
        chunks: how many there are.
        whole: all of them, where they are known already.
    """

    def __init__(self, chunks: int, whole: bytes = b"") -> None:
        self.chunks = chunks
        self.view = memoryview(whole or bytearray(DIGEST_BYTES * chunks))
        self._known = np.full(chunks, bool(whole), np.bool_)

    def put(self, first: int, digests: bytes) -> None:
        """Digests of the chunks from ``first`` on; known ones are replaced."""
        stop = first + len(digests) // DIGEST_BYTES
        self.view[first * DIGEST_BYTES : stop * DIGEST_BYTES] = digests
        self._known[first:stop] = True

    def settle(self, whole: bytes) -> None:
        """All of them, from the manifest."""
        if len(whole) != DIGEST_BYTES * self.chunks:
            raise ValueError("another number of digests")
        self.view = memoryview(whole)
        self._known[:] = True

    def of(self, chunk: int) -> bytes:
        return bytes(self.view[chunk * DIGEST_BYTES : (chunk + 1) * DIGEST_BYTES])

    def known_until(self, first: int) -> int:
        """The end of the run of known digests that begins with ``first``."""
        unknown = np.flatnonzero(~self._known[first:])
        return first + int(unknown[0]) if len(unknown) else self.chunks

    def run(self, first: int, *, limit_bytes: int) -> bytes:
        """The known digests from ``first`` on without a hole, at most so many bytes."""
        stop = min(self.known_until(first), first + limit_bytes // DIGEST_BYTES)
        return bytes(self.view[first * DIGEST_BYTES : stop * DIGEST_BYTES])

    def hold(self, asked: Iterable[Interval]) -> bool:
        """True when all these digests are known."""
        return all(bool(self._known[first : last + 1].all()) for first, last in asked)

    def present(self, first: int, stop: int) -> NDArray[np.bool_]:
        """Which of these chunks belong to files that were not left out."""
        rows = np.frombuffer(self.view[first * DIGEST_BYTES : stop * DIGEST_BYTES], np.uint64).reshape(-1, DIGEST_BYTES // 8)
        return np.asarray(rows.any(axis=1))
