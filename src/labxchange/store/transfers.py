"""Transfers of both directions, what a person chose for each while it is under way, and the journal of what arrived."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import ColumnElement, Connection, Table, bindparam, delete, func, literal_column, or_, select
from sqlalchemy.dialects.sqlite import insert

from labxchange.store.rows import Row, read, read_by, write
from labxchange.store.tables import arrived, released, transfer_limits, transfers
from labxchange.wire.control.messages import Priority

State = Literal["waiting", "running", "paused", "verified", "failed", "cancelled", "cut", "completed"]
LIVE: tuple[State, ...] = ("waiting", "running", "paused", "cut")
OVER: tuple[State, ...] = ("verified", "completed", "cancelled")
"""No byte moves any more."""
_ORDER: ColumnElement[int] = literal_column("transfers.rowid")
"""The order in which they began: times tie, and the clock may have been set back."""
_SLOTS = select(func.count()).where(
    transfers.c.direction == "out",
    transfers.c.grant == bindparam("of"),
    transfers.c.peer == bindparam("by"),
    or_(transfers.c.slot == "reserved", transfers.c.slot == "used"),
    transfers.c.transfer != bindparam("without"),
)
"""Asked at each range request, so built once."""


class TransferRow(Row, frozen=True, kw_only=True):
    """A transfer; ``slot`` (outgoing) is reserved, used or returned; ``reused_bytes`` of ``done_bytes`` were on the recipient's
    disk already; ``report`` is the encoded verification report."""

    transfer: str
    direction: Literal["in", "out"]
    peer: str
    share: str
    version: int
    grant: str
    state: State
    slot: Literal["", "reserved", "used", "returned"] = ""
    reason: str = ""
    destination: bytes = b""
    started_ms: int
    finished_ms: int = 0
    done_bytes: int = 0
    done_files: int = 0
    reused_bytes: int = 0
    report: bytes = b""

    def owner(self, me: str) -> str:
        """Whose share it is of: the peer's, or that of this node's own key ``me``."""
        return self.peer if self.direction == "in" else me


class Limits(Row, frozen=True, kw_only=True):
    """What a person chose for a transfer: bytes a second (0: none), how important it is, and lanes (0: automatic)."""

    transfer: str
    rate_bytes_s: int = 0
    priority: Priority = "normal"
    lanes: int = 0

    def __str__(self) -> str:
        """As entries hold it."""
        return f"rate {self.rate_bytes_s} bytes/s, priority {self.priority}, lanes {self.lanes}"


def transfer(tx: Connection, transfer_id: str) -> TransferRow | None:
    found = read_by(tx, transfers, TransferRow, transfer=transfer_id)
    return found[0] if found else None


def all_transfers(tx: Connection, *where: ColumnElement[bool]) -> list[TransferRow]:
    return read(tx, transfers, TransferRow, *where, order=_ORDER)


def incoming(tx: Connection) -> list[TransferRow]:
    return all_transfers(tx, transfers.c.direction == "in")


def incoming_of(tx: Connection, grant_id: str, *, owner: str) -> list[TransferRow]:
    """What came, or comes, under a grant that ``owner`` gave."""
    return all_transfers(tx, transfers.c.direction == "in", transfers.c.peer == owner, transfers.c.grant == grant_id)


def outgoing_of(tx: Connection, grant_id: str) -> list[TransferRow]:
    """What went, or goes, out under one's own grant."""
    return all_transfers(tx, transfers.c.direction == "out", transfers.c.grant == grant_id)


def of_share(tx: Connection, share: str, peer: str) -> list[TransferRow]:
    """Transfers of any version of a share, from or to ``peer``."""
    return all_transfers(tx, transfers.c.share == share, transfers.c.peer == peer)


def of_peer(tx: Connection, peer: str) -> list[TransferRow]:
    return all_transfers(tx, transfers.c.peer == peer)


def put_transfer(tx: Connection, row: TransferRow) -> None:
    """Write a transfer; what was chosen for one that is over goes."""
    write(tx, transfers, row)
    if row.state in OVER:
        tx.execute(delete(transfer_limits).where(transfer_limits.c.transfer == row.transfer))


def limits(tx: Connection, transfer_id: str) -> Limits:
    """What was chosen, or that nothing was."""
    found = read_by(tx, transfer_limits, Limits, transfer=transfer_id)
    return found[0] if found else Limits(transfer=transfer_id)


def put_limits(tx: Connection, chosen: Limits) -> None:
    write(tx, transfer_limits, chosen)


def slots_taken(tx: Connection, grant_id: str, recipient: str, *, without: str) -> int:
    """Download slots of ``recipient`` under a grant that are reserved or used, not counting transfer ``without``."""
    return int(tx.execute(_SLOTS, {"of": grant_id, "by": recipient, "without": without}).scalar_one())


def _intervals(tx: Connection, table: Table, transfer_id: str) -> list[tuple[int, int]]:
    query = select(table.c.first, table.c.last).where(table.c.transfer == transfer_id).order_by(table.c.first)
    merged: list[tuple[int, int]] = []
    for first, last in tx.execute(query):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((int(first), int(last)))
    return merged


def _add(tx: Connection, table: Table, transfer_id: str, intervals: list[tuple[int, int]]) -> None:
    rows = [{"transfer": transfer_id, "first": first, "last": last} for first, last in intervals]
    if rows:
        tx.execute(insert(table), rows)


def arrived_chunks(tx: Connection, transfer_id: str) -> list[tuple[int, int]]:
    """Chunks verified and on disk (incoming) or sent (outgoing), as merged inclusive intervals."""
    return _intervals(tx, arrived, transfer_id)


def add_arrived(tx: Connection, transfer_id: str, intervals: list[tuple[int, int]]) -> None:
    _add(tx, arrived, transfer_id, intervals)


def drop_arrived(tx: Connection, transfer_id: str) -> None:
    tx.execute(delete(arrived).where(arrived.c.transfer == transfer_id))


def replace_arrived(tx: Connection, transfer_id: str, intervals: list[tuple[int, int]]) -> None:
    """Keep the same journal in fewer rows, or with chunks taken out."""
    drop_arrived(tx, transfer_id)
    _add(tx, arrived, transfer_id, intervals)


def released_files(tx: Connection, transfer_id: str) -> list[tuple[int, int]]:
    """Files in place under their names, as merged inclusive intervals of their indices."""
    return _intervals(tx, released, transfer_id)


def add_released(tx: Connection, transfer_id: str, intervals: list[tuple[int, int]]) -> None:
    _add(tx, released, transfer_id, intervals)
