"""One attempt to receive: over one channel, from the first question to the receipts.

What can be asked for at once is, as each round trip counts: listing, agreement and first digests (``Asking``), and beside them a
way to fetch (``Bulk``), which is told what it brings when that is known. An attempt may end at any point; what arrived is in
the journal for the next. When to try, and what an error means, is ``receiving``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, Protocol

from msgspec.structs import replace

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.dataset.listing import Listing
from labxchange.errors import UnavailableError
from labxchange.files.quarantine import Quarantine
from labxchange.net.channel import Channel
from labxchange.node.asking import Asking, ours
from labxchange.node.bulk import Bulk
from labxchange.node.catalog import Catalog, Loaded
from labxchange.node.core import Core
from labxchange.node.earlier import earlier_versions
from labxchange.node.journal import TransferJournal
from labxchange.node.receipts import Receipts
from labxchange.sharing.exchange import Path as Travelled
from labxchange.store import shares as rows
from labxchange.store import statements, transfers
from labxchange.store.shares import ShareRow
from labxchange.store.transfers import TransferRow
from labxchange.transfer.digests import ChunkDigests
from labxchange.transfer.receive import Download
from labxchange.transfer.reuse import Reuse
from labxchange.transfer.streams import Content, Fetching
from labxchange.wire.control.messages import Announced


class Life(Protocol):
    """The life of transfers that attempts are part of."""

    def row(self, transfer: str) -> TransferRow:
        """As it stands now."""
        ...

    def move(self, row: TransferRow, state: str, event: Event) -> TransferRow:
        """One transition: entry and row together."""
        ...

    def entry(self, event: Event, row: TransferRow, **fields: object) -> Entry:
        """An entry about a transfer."""
        ...

    def downloading(self, transfer: str, download: Download) -> None:
        """This is what runs, for whoever looks."""
        ...

    def sample(self, transfer: str) -> None:
        """It got further."""
        ...

    def wake(self, key: str) -> None:
        """Something was posted for a contact."""
        ...


class Attempts:
    """Makes them."""

    def __init__(self, core: Core, catalog: Catalog, asking: Asking, receipts: Receipts, bulk: Bulk, life: Life) -> None:
        self._core = core
        self._catalog = catalog
        self._asking = asking
        self._receipts = receipts
        self._bulk = bulk
        self._life = life

    async def make(self, row: TransferRow, channel: Channel) -> None:
        """Fetch what is missing, verify it and sign receipts.

        Raises:
            LabxchangeError, OSError: why it ended before its time; what arrived is in the journal.
        """
        with self._core.database.begin() as tx:
            grant = rows.grant(tx, row.grant, owner=row.peer)
            share = rows.share(tx, row.share, row.version, owner=row.peer)
        assert grant is not None
        assert share is not None
        self._check_room(row, share)
        async with contextlib.AsyncExitStack() as stack:
            content: asyncio.Future[Content] = asyncio.get_running_loop().create_future()
            async with (
                self._asking.opening(channel, row, grant, share) as asked,
                self._way(channel, row, asked.proven, content) as opening,
            ):
                share = await asked.started
                listed = await self._catalog.listed(share)
                row = self._life.row(row.transfer)
                if row.state != "running":
                    event = Event.TRANSFER_RESUMED if row.done_bytes or row.done_files else Event.TRANSFER_STARTED
                    row = self._life.move(row, "running", event)
                with ours():
                    quarantine = Quarantine(path_of(row), row.transfer)
                stack.push_async_callback(asyncio.to_thread, quarantine.close)
                if listed.line.bytes - row.done_bytes > quarantine.free_bytes():
                    raise _no_room()
                digests = ChunkDigests(listed.line.chunks)
                content.set_result(Content(listed.line, digests, quarantine))
                loaded = await self._catalog.read(share) if share.digests else listed
                if loaded.manifest is not None:
                    digests.settle(loaded.chunk_digests)
                download, path = await self._download(channel, row, share, loaded, digests, quarantine, opening, asked.announced)
            await self._conclude(row, share, loaded, quarantine, download, path)

    def _check_room(self, row: TransferRow, share: ShareRow) -> None:
        """Before a download is reserved, and before lists are fetched whose length follows from what is claimed to come."""
        with self._core.database.begin() as tx:
            listing = statements.need(tx, share.listing, Listing).body
        place = next(folder for folder in (path_of(row), *path_of(row).parents) if folder.exists())
        if listing.bytes - row.done_bytes > shutil.disk_usage(place).free:
            raise _no_room()

    @contextlib.asynccontextmanager
    async def _way(
        self, channel: Channel, row: TransferRow, proven: asyncio.Future[None], content: asyncio.Future[Content]
    ) -> AsyncIterator[asyncio.Future[tuple[Fetching, Travelled]]]:
        """A way to fetch, opened beside the lists that are still to come: each round trip counts. At the end no worker writes any
        more."""

        async def opened_beside() -> tuple[Fetching, Travelled]:
            await proven
            return await self._bulk.fetching(channel, row, content)

        opening = asyncio.ensure_future(opened_beside())
        trouble: BaseException | None = None
        try:
            yield opening
        except BaseException as error:
            trouble = error
            raise
        finally:
            opening.cancel()
            (opened,) = await asyncio.gather(opening, return_exceptions=True)
            if not isinstance(opened, BaseException):
                await self._bulk.fetched(row.transfer, row.peer, opened[0], error=trouble)

    async def _download(
        self,
        channel: Channel,
        row: TransferRow,
        share: ShareRow,
        loaded: Loaded,
        digests: ChunkDigests,
        quarantine: Quarantine,
        opening: asyncio.Future[tuple[Fetching, Travelled]],
        announced: asyncio.Future[Announced] | None,
    ) -> tuple[Download, Travelled]:
        with self._core.database.begin() as tx:
            arrived = transfers.arrived_chunks(tx, row.transfer)
            transfers.replace_arrived(tx, row.transfer, arrived)
            released = transfers.released_files(tx, row.transfer)
        journal = TransferJournal(self._core, row, total=loaded.line.bytes, entry=self._life.entry, wake=self._life.wake)
        earlier = earlier_versions(self._core, self._catalog, row)
        reuse = await asyncio.to_thread(Reuse, earlier) if earlier else None
        try:
            download = Download(
                row.transfer,
                files=loaded.files,
                line=loaded.line,
                digests=digests,
                manifest=loaded.digests if loaded.manifest is not None else None,
                quarantine=quarantine,
                journal=journal,
                arrived=arrived,
                released=released,
                reused_bytes=row.reused_bytes,
                reuse=reuse,
                on_progress=lambda: self._life.sample(row.transfer),
            )
            self._life.downloading(row.transfer, download)

            async def run() -> None:
                fetching, _ = await opening
                await download.run(fetching)

            if loaded.manifest is not None:
                await run()
            else:
                await _both(run(), self._asking.follow(channel, share, download, announced))
            _, path = await opening
        finally:
            if reuse is not None:
                reuse.close()
        journal.finish(download.done_bytes)
        return download, path

    async def _conclude(
        self, row: TransferRow, share: ShareRow, loaded: Loaded, quarantine: Quarantine, download: Download, path: Travelled
    ) -> None:
        if loaded.manifest is None:
            with self._core.database.begin() as tx:
                share = rows.share(tx, row.share, row.version, owner=row.peer) or share
            loaded = await self._catalog.read(share)
        if not download.findings:
            await asyncio.to_thread(quarantine.discard)  # nothing is in it any more
        row = self._life.row(row.transfer)
        if row.state != "running":
            return
        self._finish(row, share, loaded, download, path)
        if download.findings:
            await asyncio.to_thread(lambda: quarantine.discard(keep=download.unplaced))
        self._core.notices.publish("transfer", row.transfer)
        self._life.wake(row.peer)

    def _finish(self, row: TransferRow, share: ShareRow, loaded: Loaded, download: Download, path: Travelled) -> None:
        """Receipts and report; with findings also what of the journal does not last, so that a resume fetches it again."""
        findings = list(download.findings.values())
        if not findings:
            self._receipts.sign(row, share, loaded, findings, path=path, mended=download.mended)
            return
        lasting, size = download.lasting()
        entries = []
        if size < row.done_bytes:
            details: dict[str, str | int] = {"bytes": row.done_bytes - size}
            deleted = self._life.entry(Event.FILE_DELETED, row, object_type="file", reason_code="not-intact", details=details)
            entries.append(deleted)
        kept = replace(row, done_bytes=size, reused_bytes=min(row.reused_bytes, size))
        self._receipts.sign(kept, share, loaded, findings, path=path, mended=download.mended, also=entries, lasting=lasting)


async def _both(download: Coroutine[Any, Any, None], follow: Coroutine[Any, Any, None]) -> None:
    """Both to their end; when one fails, or this is cancelled, the other is stopped and has ended too."""
    tasks = [asyncio.ensure_future(download), asyncio.ensure_future(follow)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in reversed(tasks):
        if not task.cancelled():
            task.result()


def _no_room() -> UnavailableError:
    return UnavailableError(
        "disk-full",
        "There is not enough free space for this share.",
        hint="Free some space, then `labxchange transfer resume`.",
    )


def path_of(row: TransferRow) -> Path:
    """The destination."""
    return Path(row.destination.decode(errors="surrogateescape"))
