"""What an incoming transfer writes down as it goes: the journal of chunks and files, entries, signed progress.

Durable before it returns: a chunk that is journalled never comes again, and a release stands in the trail before the file has its
name. Progress is signed each 10 % or 64 GiB, and once at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

from msgspec.structs import replace
from sqlalchemy import Connection

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.encoding import pack
from labxchange.files.quarantine import Release
from labxchange.node.core import Core
from labxchange.settings import PROGRESS_BYTES, PROGRESS_PERCENT
from labxchange.sharing.exchange import Progress
from labxchange.store import statements, transfers
from labxchange.store.transfers import TransferRow
from labxchange.transfer.intervals import Interval, count, without


class TransferJournal:
    """``transfer.receive.Journal`` over the store and the trail.

    Args:
        entry: makes an entry about the transfer.
        wake: called with the sender's key when something was posted for them.
    """

    def __init__(
        self, core: Core, row: TransferRow, *, total: int, entry: Callable[..., Entry], wake: Callable[[str], None]
    ) -> None:
        self._core = core
        self._row = row
        self._entry = entry
        self._wake = wake
        self._step = max(total * PROGRESS_PERCENT // 100, PROGRESS_BYTES)
        self._told = row.done_bytes
        with core.database.begin() as tx:
            self._chunks = count(transfers.arrived_chunks(tx, row.transfer))

    def _save(self, tx: Connection, **changes: object) -> None:
        """Change the counters of the row as it stands: its state is not ours."""
        self._row = replace(transfers.transfer(tx, self._row.transfer) or self._row, **changes)
        transfers.put_transfer(tx, self._row)

    def commit(
        self,
        *,
        arrived: list[Interval],
        done_bytes: int,
        reused_bytes: int,
        releasing: Sequence[Release],
        released: list[Interval],
        done_files: int,
    ) -> None:
        entries = [self._releasing(releasing)] if releasing else []
        with self._core.act(*entries) as tx:
            transfers.add_arrived(tx, self._row.transfer, arrived)
            transfers.add_released(tx, self._row.transfer, released)
            self._save(tx, done_bytes=done_bytes, done_files=done_files, reused_bytes=reused_bytes)
        self._chunks += count(arrived)
        if done_bytes - self._told >= self._step:
            self._progress(done_bytes)

    def drop(self, chunks: list[Interval], *, done_bytes: int, reused_bytes: int) -> None:
        transfer = self._row.transfer
        with self._core.database.begin() as tx:
            transfers.replace_arrived(tx, transfer, without(transfers.arrived_chunks(tx, transfer), chunks))
            self._save(tx, done_bytes=done_bytes, reused_bytes=reused_bytes)
        self._chunks -= count(chunks)

    def finish(self, done_bytes: int) -> None:
        """All that could be had is here: the last word on it, once."""
        with self._core.database.begin() as tx:
            told = [found.body for found in statements.about(tx, self._row.transfer, Progress)]
        if all(body.bytes != done_bytes for body in told):
            self._progress(done_bytes)

    def _releasing(self, files: Sequence[Release]) -> Entry:
        digest = sha256(b"".join(pack([file.path, file.size]) for file in files)).hexdigest()
        details: dict[str, str | int] = {"files": len(files), "bytes": sum(file.size for file in files)}
        return self._entry(Event.FILE_RELEASED, self._row, object_type="file", object_digest=digest, details=details)

    def _progress(self, done_bytes: int) -> None:
        """Everything so far: signed, recorded, and delivered with what is posted next."""
        self._told = done_bytes
        row = self._row
        statement = self._core.sign(
            Progress,
            transfer=row.transfer,
            chunks=self._chunks,
            files=row.done_files,
            bytes=done_bytes,
            reused=row.reused_bytes,
        )
        details: dict[str, str | int] = {"bytes": done_bytes, "reused": row.reused_bytes}
        entry = self._entry(Event.TRANSFER_PROGRESS, row, object_digest=statement.id, details=details)
        with self._core.act(entry) as tx:
            statements.put(tx, statement, about=row.transfer, now=self._core.clock.now())
            statements.post(tx, row.peer, statement.id)
        self._wake(row.peer)
