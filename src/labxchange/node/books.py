"""What this node sent to whom, by its own notes: the evidence against which a receipt is held and by which a slot returns.

Chunks are noted before they are sent. A recipient who has an earlier version of a share takes equal chunks from there, so what
counts is what they were ever sent: a chunk reached them when it, or one with its digest, was sent to them in any transfer of the
share. A node restored from a backup does not know what it sent after that backup: under grants that were in it everything may
have been sent, the notes prove nothing, and the recipient's signed word stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from labxchange.dataset.manifest import DIGEST_BYTES
from labxchange.node.catalog import Catalog, Loaded, whole_files
from labxchange.node.core import Core
from labxchange.node.hashing import Hashing
from labxchange.store import shares as rows
from labxchange.store import transfers
from labxchange.store.shares import ShareRow
from labxchange.store.transfers import TransferRow
from labxchange.transfer.digests import ChunkDigests
from labxchange.transfer.intervals import of_mask, to_mask


class Books:
    """Reads the notes of outgoing transfers."""

    def __init__(self, core: Core, catalog: Catalog, hashing: Hashing) -> None:
        self._core = core
        self._catalog = catalog
        self._hashing = hashing

    def may_be_short(self, row: TransferRow) -> bool:
        """True when chunks may have been sent under this grant that the notes do not hold."""
        with self._core.database.begin() as tx:
            grant = rows.grant(tx, row.grant, owner=self._core.me)
        return grant is None or bool(grant.restored)

    def sent(self, row: TransferRow) -> tuple[int, int]:
        """Whole files with bytes that were sent in this transfer alone, and the bytes of all chunks."""
        loaded, _ = self._version(row.share, row.version)
        with self._core.database.begin() as tx:
            return whole_files(loaded, transfers.arrived_chunks(tx, row.transfer))

    def everything_reached(self, row: TransferRow) -> bool:
        """True when every chunk reached the recipient, in this transfer or before."""
        return bool(self._reached(row).all())

    def nothing_whole_sent(self, row: TransferRow) -> bool:
        """True when by the notes no file became whole at the recipient by what this transfer sent."""
        if self.may_be_short(row):
            return False
        loaded, _ = self._version(row.share, row.version)
        sent, reached = self._sent(row, loaded), self._reached(row)
        first = loaded.line.first_chunk
        for begin, end in of_mask(sent):
            low, high = (int(first.searchsorted(chunk, "right")) - 1 for chunk in (begin, end))
            if any(reached[first[file] : first[file + 1]].all() for file in range(low, high + 1)):
                return False
        return True

    def _version(self, share_id: str, version: int) -> tuple[Loaded, ShareRow]:
        with self._core.database.begin() as tx:
            share = rows.share(tx, share_id, version, owner=self._core.me)
        assert share is not None
        return self._catalog.load(share), share

    def _sent(self, row: TransferRow, loaded: Loaded) -> NDArray[np.bool_]:
        with self._core.database.begin() as tx:
            return to_mask(transfers.arrived_chunks(tx, row.transfer), loaded.line.chunks)

    def _reached(self, row: TransferRow) -> NDArray[np.bool_]:
        loaded, share = self._version(row.share, row.version)
        reached = self._sent(row, loaded)
        if reached.all():
            return reached
        wanted, present = self._digests(loaded, share)
        for version, sent in self._sent_otherwise(row):
            earlier = self._version(row.share, version)
            digests, there = self._digests(*earlier)
            if version == row.version:
                reached |= sent
            reached |= present & np.isin(wanted, digests[sent & there])
        return reached

    def _sent_otherwise(self, row: TransferRow) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """(version, mask of chunks) of what this person was sent of the share in other transfers, or may have been sent of
        versions whose notes are short."""
        with self._core.database.begin() as tx:
            others = [item for item in transfers.of_share(tx, row.share, row.peer) if item.direction == "out"]
            restored = {grant.version for grant in rows.restored_grants(tx, row.peer, row.share, owner=self._core.me)}
        for other in others:
            if other.transfer != row.transfer and other.version not in restored:
                yield other.version, self._sent(other, self._version(other.share, other.version)[0])
        for version in restored:
            yield version, np.ones(self._version(row.share, version)[0].line.chunks, np.bool_)

    def _digests(self, loaded: Loaded, share: ShareRow) -> tuple[NDArray[np.bytes_], NDArray[np.bool_]]:
        """The digest of each chunk, and which of them are known and not of a file that was left out."""
        chunks = loaded.line.chunks
        known = ChunkDigests(chunks, loaded.chunk_digests) if loaded.chunk_digests else None
        known = known or self._hashing.digests(share.share, share.version) or ChunkDigests(chunks)
        return np.frombuffer(known.view, f"S{DIGEST_BYTES}"), known.present(0, chunks)
