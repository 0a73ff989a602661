"""What a recipient asks the sender of a share version: its listing, to start, its manifest and digests; each checked and kept.

``follow`` asks for digests, as they come while the sender hashes, and hands them to the download, and settles it when the lists
of the manifest are there: digests that were announced otherwise are replaced by those that the manifest names. Rules: a list is
as long as the signed listing demands, page by page; a sender that has nothing new is asked again, not at once. Fetching is left
to ``transfer``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from labxchange.dataset.listing import LISTING_MAX_BYTES, ListedFile, Listing
from labxchange.dataset.manifest import DIGEST_BYTES, FileDigests, Manifest, check_chunk_digests, decode_digests
from labxchange.errors import InputError, IntegrityError, PeerError, RefusedError
from labxchange.identity.statement import Signed, parse
from labxchange.net.channel import Channel
from labxchange.node.catalog import Catalog, Loaded, decoded_listing
from labxchange.node.core import Core
from labxchange.node.inbox import Inbox
from labxchange.node.refusals import raise_refused
from labxchange.node.serving import possession_proof
from labxchange.settings import ANSWER_S, DIGESTS_WAIT_S
from labxchange.sharing.exchange import Accept
from labxchange.store import shares as rows
from labxchange.store import statements
from labxchange.store.shares import GrantRow, ShareRow
from labxchange.store.transfers import TransferRow
from labxchange.transfer.receive import Download
from labxchange.wire.control.messages import (
    FIRST_DIGESTS_BYTES,
    PAGE_BYTES,
    Accepting,
    Announced,
    Begin,
    GetDigests,
    GetPage,
    Nonce,
    PageOf,
    Refused,
    Started,
    decode_answer,
    encode,
)
from labxchange.wire.control.pages import bytes_of

_PACE_FIRST_S = 0.03
_PACE_S = 0.25
_AGAIN_S = 1.0
"""Between questions to a sender who hashes: soon at first, when a fast path has nothing else to ask for; then twice as long each
time, up to the second of these, and to the third after nothing new."""


class Opening(NamedTuple):
    """The first questions of an attempt.

    ``proven``: the accept is on its way, and lanes may be asked for. ``started``: the sender took it and the listing is here; the
    share as it is known now. ``announced``: the first digests; None where all are here.
    """

    proven: asyncio.Future[None]
    started: asyncio.Future[ShareRow]
    announced: asyncio.Future[Announced] | None


class Asking:
    """Asks over a channel."""

    def __init__(self, core: Core, catalog: Catalog, inbox: Inbox) -> None:
        self._core = core
        self._catalog = catalog
        self._inbox = inbox

    @contextlib.asynccontextmanager
    async def opening(self, channel: Channel, row: TransferRow, grant: GrantRow, share: ShareRow) -> AsyncIterator[Opening]:
        """Ask at once for what can be, as each round trip counts; what is not here at the end is given up."""
        proven = asyncio.get_running_loop().create_future()
        started = asyncio.ensure_future(self._start(channel, row, grant, share, proven))
        announced = None if share.digests else asyncio.ensure_future(self._announced(channel, share, 0))
        tasks = [task for task in (started, announced) if task is not None]
        try:
            yield Opening(proven, started, announced)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _start(
        self, channel: Channel, row: TransferRow, grant: GrantRow, share: ShareRow, proven: asyncio.Future[None]
    ) -> ShareRow:
        """Get the listing and, beside it: prove possession, sign the accept, get the manifest if there is one yet."""
        with self._core.database.begin() as tx:
            listing = statements.need(tx, share.listing, Listing)
        listed = asyncio.ensure_future(self._listing(channel, share, listing))
        try:
            started = await self._accept(channel, row, grant, share, proven)
            await listed
        finally:
            listed.cancel()
            await asyncio.gather(listed, return_exceptions=True)
        return self._take(started.manifest, share) if started.manifest else share

    async def _accept(
        self, channel: Channel, row: TransferRow, grant: GrantRow, share: ShareRow, proven: asyncio.Future[None]
    ) -> Started:
        trail = self._core.trail
        assert trail is not None
        async with await channel.open() as stream:
            await stream.send(encode(Begin(transfer=row.transfer)))
            nonce = decode_answer(await stream.receive(ANSWER_S))
            if isinstance(nonce, Refused):
                raise_refused(nonce.statement, channel)
            if not isinstance(nonce, Nonce):
                raise _another_answer()
            with self._core.database.begin() as tx:
                checkpoint = trail.newest_checkpoint(tx)
            accept = self._core.sign(
                Accept,
                transfer=row.transfer,
                offer=grant.offer,
                grant=grant.statement,
                listing=share.listing,
                proof=possession_proof(nonce.nonce, channel.th2),
                checkpoint=checkpoint,
            )
            with self._core.database.begin() as tx:
                statements.put(tx, accept, about=row.transfer, now=self._core.clock.now())
            await stream.send(encode(Accepting(statement=accept.envelope)), end=True)
            proven.set_result(None)
            answer = decode_answer(await stream.receive(ANSWER_S))
        if isinstance(answer, Refused):
            raise_refused(answer.statement, channel)
        if not isinstance(answer, Started):
            raise _another_answer()
        return answer

    def _take(self, envelope: bytes, share: ShareRow) -> ShareRow:
        manifest = parse(envelope, Manifest)
        if manifest.body.listing != share.listing:
            raise PeerError("manifest-unknown", "The sender's manifest is about another listing.")
        fresh = self._inbox.take_manifest(manifest)
        assert fresh is not None
        return fresh

    async def _listing(self, channel: Channel, share: ShareRow, listing: Signed[Listing]) -> None:
        with self._core.database.begin() as tx:
            have = statements.body(tx, listing.body.body)
        if have is None:
            body = await self._body(channel, share, "listing", limit=_listing_limit(listing.body))
            with ours():
                listed = await asyncio.to_thread(decoded_listing, listing, body)  # takes seconds for a million files
            self._catalog.keep(share, listed)
            with self._core.database.begin() as tx:
                statements.put_body(tx, body)

    async def follow(
        self, channel: Channel, share: ShareRow, download: Download, announced: Awaitable[Announced] | None = None
    ) -> None:
        """Hand digests to the download as they come, a few first so that it can begin, and settle it when the manifest is there.

        Args:
            announced: the first answer, which was asked for already.

        Raises:
            RefusedError: the sender's word, also that its hashing failed.
            PeerError: ``digests-malformed``, ``digests-withheld``.
        """
        first, chunks, pace_s = 0, download.line.chunks, _PACE_FIRST_S
        while True:
            told = await (announced or self._announced(channel, share, first))
            announced = None
            count, rest = divmod(len(told.data), DIGEST_BYTES)
            if rest or first + count > chunks:
                raise PeerError("digests-malformed", "The other node announces digests that its listing has no chunks for.")
            download.announce(first, told.data)
            is_full = len(told.data) >= (PAGE_BYTES if first else FIRST_DIGESTS_BYTES)
            first += count
            if told.manifest and first == chunks:
                break
            if told.manifest and not count:
                raise PeerError("digests-withheld", "The other node has a manifest and withholds digests of it.")
            if not told.manifest and not is_full:
                await asyncio.sleep(pace_s)
                pace_s = min(2 * pace_s, _PACE_S if count else _AGAIN_S)
        loaded = await self._lists(channel, self._take(told.manifest, share), bytes(download.digests.view))
        download.settle(loaded.digests, loaded.chunk_digests)

    async def _lists(self, channel: Channel, share: ShareRow, announced: bytes) -> Loaded:
        """The manifest's digests and the chunk digests, checked; kept for the next attempt. The latter come again only when they
        were announced otherwise than the manifest has them."""
        if share.digests:
            return await self._catalog.read(share)
        with self._core.database.begin() as tx:
            manifest = statements.need(tx, share.manifest, Manifest)
        listed = await self._catalog.listed(share)
        files = listed.files
        body = await self._body(channel, share, "manifest", limit=16 + 80 * len(files))
        digests = await asyncio.to_thread(decode_digests, body, manifest.body, files)
        chunk_digests = announced
        if not await asyncio.to_thread(_agree, files, digests, announced):
            chunk_digests = await self._body(channel, share, "digests", limit=len(announced))
            if len(chunk_digests) != len(announced):
                raise IntegrityError("chunk-digests", "The list of chunk digests has another length than the listing demands.")
            await asyncio.to_thread(_check, files, digests, chunk_digests)
        with self._core.database.begin() as tx:
            statements.put_body(tx, body)
            fresh = replace(share, digests=statements.put_body(tx, chunk_digests))
            rows.put_share(tx, fresh)
        return self._catalog.keep(fresh, replace(listed, manifest=manifest, digests=digests, chunk_digests=chunk_digests))

    async def _announced(self, channel: Channel, share: ShareRow, first: int) -> Announced:
        request = GetDigests(share=share.share, version=share.version, first_chunk=first)
        async with await channel.open() as stream:
            await stream.send(encode(request), end=True)
            answer = decode_answer(await stream.receive(DIGESTS_WAIT_S + ANSWER_S))
        if isinstance(answer, Refused):
            raise_refused(answer.statement, channel)
        if not isinstance(answer, Announced):
            raise _another_answer()
        return answer

    async def _body(self, channel: Channel, share: ShareRow, body: str, *, limit: int) -> bytes:
        """A detached body, page by page, at most ``limit`` bytes."""
        out = bytearray()
        for number in range(limit // PAGE_BYTES + 1):
            request = GetPage(body=body, share=share.share, version=share.version, number=number)  # type: ignore[arg-type]
            async with await channel.open() as stream:
                await stream.send(encode(request), end=True)
                page = decode_answer(await stream.receive(ANSWER_S))
            if isinstance(page, Refused):
                raise_refused(page.statement, channel)
            if not isinstance(page, PageOf):
                raise _no_page()
            data = bytes_of(page)
            if len(data) != PAGE_BYTES and not page.last:
                raise _no_page()
            out += data
            if page.last:
                return bytes(out)
            if len(out) > limit:
                break
        raise PeerError("body-too-large", "The other node sends more than its signed listing allows.")


def _listing_limit(listing: Listing) -> int:
    """Bytes that a list of so many files may take."""
    return min(64 + 4200 * listing.files, LISTING_MAX_BYTES)


def _check(files: Sequence[ListedFile], digests: Sequence[FileDigests], chunk_digests: bytes) -> None:
    """Raises IntegrityError ``chunk-digests``."""
    position = 0
    for file, item in zip(files, digests, strict=True):
        size = DIGEST_BYTES * -(-file.size // file.chunk_bytes)
        if not isinstance(item, str):
            check_chunk_digests(memoryview(chunk_digests)[position : position + size], file=file, expected=item[1])
        position += size


def _agree(files: Sequence[ListedFile], digests: Sequence[FileDigests], announced: bytes) -> bool:
    try:
        _check(files, digests, announced)
    except IntegrityError:
        return False
    return True


def _no_page() -> PeerError:
    return PeerError("out-of-order", "The other node sent something else where a page was due.")


def _another_answer() -> PeerError:
    return PeerError("out-of-order", "The other node gave an answer to another question.")


@contextlib.contextmanager
def ours() -> Iterator[None]:
    """A rule of this node refuses what came: not the sender's word, and nothing that passes by itself."""
    try:
        yield
    except RefusedError as error:
        raise InputError(error.code, error.message, hint=error.hint) from error
