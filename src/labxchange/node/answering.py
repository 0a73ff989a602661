"""What a share version holds, told to those who may list it: pages of listing, manifest and digests, and digests as they come.

``digests`` waits, within bounds, until hashing got further than the asker is; so chunk digests travel ahead of their chunks, and
the manifest comes with the last of them. Whether the asker may know is judged before each wait and after it.
"""

from __future__ import annotations

import asyncio

from labxchange.errors import PeerError, RefusedError
from labxchange.net.channel import Stream
from labxchange.node.catalog import Catalog
from labxchange.node.core import Core
from labxchange.node.hashing import Hashing
from labxchange.node.judging import Judging
from labxchange.settings import DIGESTS_WAIT_S
from labxchange.store import statements
from labxchange.store.people import Contact
from labxchange.store.shares import ShareRow
from labxchange.transfer.digests import ChunkDigests
from labxchange.wire.control.messages import (
    FIRST_DIGESTS_BYTES,
    PAGE_BYTES,
    Announced,
    GetDigests,
    GetPage,
    PageOf,
    encode,
)
from labxchange.wire.control.pages import deflated

_LOOK_S = 0.25
"""What was hashed meanwhile is told together."""


class Answering:
    """Answers what is asked about the content of a share version."""

    def __init__(self, core: Core, catalog: Catalog, hashing: Hashing, judging: Judging) -> None:
        self._core = core
        self._catalog = catalog
        self._hashing = hashing
        self._judging = judging

    async def page(self, stream: Stream, row: Contact, request: GetPage) -> None:
        self._judging.allowed(row, "list", request.share, request.version)
        loaded = self._catalog.load(share := self._judging.share(request.share, request.version))
        digest = loaded.listing.body.body
        if request.body != "listing":
            if loaded.manifest is None:
                raise not_hashed(share)
            digest = loaded.manifest.body.body if request.body == "manifest" else share.digests
        with self._core.database.begin() as tx:
            page = statements.page_of(tx, digest, request.number)
        if page is None:
            raise PeerError("range-outside", "The other node asked for a page that does not exist.")
        data, last = page
        if request.body == "listing":
            answer = await asyncio.to_thread(deflated, data, last=last)
        else:
            answer = PageOf(data=data, last=last)
        await stream.send(encode(answer), end=True)

    async def digests(self, stream: Stream, row: Contact, request: GetDigests) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DIGESTS_WAIT_S
        while True:
            self._judging.allowed(row, "list", request.share, request.version)
            answer = self._announced(request)
            if answer.data or answer.manifest or loop.time() >= deadline:
                break
            await self._hashing.hashed(request.share, request.version, timeout_s=_LOOK_S)
        await stream.send(encode(answer), end=True)

    def _announced(self, request: GetDigests) -> Announced:
        share = self._judging.share(request.share, request.version)
        known, manifest = self.known(share), b""
        if request.first_chunk > known.chunks:
            raise PeerError("range-outside", "The other node asked for digests of chunks that do not exist.")
        if share.manifest:
            loaded = self._catalog.load(share)
            assert loaded.manifest is not None
            manifest = loaded.manifest.envelope
        limit = PAGE_BYTES if request.first_chunk else FIRST_DIGESTS_BYTES
        return Announced(data=known.run(request.first_chunk, limit_bytes=limit), manifest=manifest)

    def known(self, share: ShareRow) -> ChunkDigests:
        """The chunk digests of an own share version as far as they are known.

        Raises:
            RefusedError: ``manifest-not-ready``, ``share-failed``.
        """
        if share.manifest and share.state != "hashing":
            loaded = self._catalog.load(share)
            return ChunkDigests(loaded.line.chunks, loaded.chunk_digests)
        found = self._hashing.digests(share.share, share.version)
        if found is None:
            raise not_hashed(share)
        return found


def not_hashed(share: ShareRow) -> RefusedError:
    """Why there is no manifest."""
    if share.state == "failed":
        return RefusedError("share-failed", "The sender could not read this share.", hint="Ask the sender to share it again.")
    return RefusedError("manifest-not-ready", "The sender has not hashed this share yet.", hint="It goes on by itself.")
