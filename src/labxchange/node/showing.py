"""A transfer as the faces see it: what is kept of it, and what is known only while it runs; and what a share left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labxchange.dataset.listing import Listing
from labxchange.dataset.names import escape
from labxchange.node.values import TransferInfo, WithheldInfo
from labxchange.sharing.exchange import Receipt
from labxchange.sharing.share import Share
from labxchange.store import shares, statements
from labxchange.store.transfers import TransferRow

if TYPE_CHECKING:
    from labxchange.node.node import Node


def transfer_info(node: Node, row: TransferRow) -> TransferInfo:
    """The transfer of this row, now."""
    with node.core.database.begin() as tx:
        share = shares.share(tx, row.share, row.version, owner=row.owner(node.core.me))
        signed = statements.find(tx, share.listing, Listing) if share else None
        received = statements.any_about(tx, row.transfer, Receipt)
    listing = signed.body if signed else None
    download, samples = node.receiving.live(row.transfer)
    done, reused = (download.done_bytes, download.reused_bytes) if download else (row.done_bytes, row.reused_bytes)
    if row.direction == "out" and row.state == "running":
        done = max(done, min(node.serving.sent_bytes(row.transfer), listing.bytes if listing else 0))
    rate, eta = _rate(samples, (listing.bytes if listing else 0) - done) if row.state == "running" else (0, -1)
    return TransferInfo(
        transfer=row.transfer,
        direction=row.direction,
        peer=node.contacts.name(row.peer),
        peer_key=row.peer,
        share=row.share,
        version=row.version,
        title=share.title if share else "",
        state=row.state,
        reason=row.reason,
        files=listing.files if listing else 0,
        bytes=listing.bytes if listing else 0,
        done_files=download.done_files if download else row.done_files,
        done_bytes=done,
        reused_bytes=reused,
        rate=rate,
        eta=eta,
        started=row.started_ms,
        finished=row.finished_ms,
        destination=row.destination.decode(errors="replace"),
        receipt="yes" if received else "",
        limits=node.controls.limits_info(row.transfer),
        path=node.controls.path_info(row),
    )


def _rate(samples: list[tuple[float, int]], rest: int) -> tuple[int, int]:
    """Bytes a second over the last seconds, and seconds to go (-1: unknown)."""
    if len(samples) < 2:
        return 0, -1
    seconds = samples[-1][0] - samples[0][0]
    rate = int((samples[-1][1] - samples[0][1]) / seconds) if seconds > 0 else 0
    return rate, -(-rest // rate) if rate > 0 else -1


def told_withheld(share: Share) -> tuple[WithheldInfo, ...]:
    """For faces: the sender's words, escaped."""
    return tuple(
        WithheldInfo(file=escape(item.file, limit=1000), columns=tuple(map(escape, item.columns)), rows=item.rows)
        for item in share.withheld
    )
