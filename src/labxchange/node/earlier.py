"""Earlier versions of a share that this node received and still has: where equal chunks need not travel again."""

from __future__ import annotations

from pathlib import Path

from labxchange.files.earlier import EarlierFiles
from labxchange.node.catalog import Catalog
from labxchange.node.core import Core
from labxchange.store import shares as rows
from labxchange.store import transfers
from labxchange.store.transfers import TransferRow
from labxchange.transfer.intervals import to_mask
from labxchange.transfer.reuse import Held

_MOST = 4
"""The newest are looked at: each is a list of digests in memory."""


def earlier_versions(core: Core, catalog: Catalog, row: TransferRow) -> list[Held]:
    """What other transfers of this share from this sender brought here, the newest first."""
    with core.database.begin() as tx:
        others = [item for item in transfers.of_share(tx, row.share, row.peer) if item.direction == "in"]
        found = [
            (item, rows.share(tx, item.share, item.version, owner=row.peer), transfers.arrived_chunks(tx, item.transfer))
            for item in others
        ]
    held = []
    for item, share, arrived in reversed(found):
        if item.transfer == row.transfer or share is None or not share.digests or not arrived:
            continue
        loaded = catalog.load(share)
        destination = Path(item.destination.decode(errors="surrogateescape"))
        held.append(
            Held(
                files=loaded.files,
                line=loaded.line,
                chunk_digests=loaded.chunk_digests,
                arrived=to_mask(arrived, loaded.line.chunks),
                place=EarlierFiles(destination, item.transfer),
            )
        )
        if len(held) == _MOST:
            break
    return held
