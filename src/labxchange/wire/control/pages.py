"""A page of a detached body as it travels: deflated (zlib, RFC 1950) where that is shorter.

Names are much alike, so a listing shrinks to a fraction; lists of digests do not and are not tried. What is inflated is bounded
by the size of a page, whatever the other side claims. Which pages there are is the node's.
"""

from __future__ import annotations

import zlib
from typing import Final

from labxchange.errors import PeerError
from labxchange.wire.control.messages import PAGE_BYTES, PageOf

_LEVEL: Final = 1
"""Level 6 takes three times as long for a quarter less."""


def deflated(data: bytes, *, last: bool) -> PageOf:
    """A page of ``data``, shorter if it can be."""
    packed = zlib.compress(data, _LEVEL)
    return PageOf(data=packed, last=last, deflated=True) if len(packed) < len(data) else PageOf(data=data, last=last)


def bytes_of(page: PageOf) -> bytes:
    """What a page stands for, at most ``PAGE_BYTES``.

    Raises:
        PeerError: ``malformed-page``.
    """
    if not page.deflated:
        return page.data
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(page.data, PAGE_BYTES + 1)
    except zlib.error:
        data = b""
    if not inflate.eof or inflate.unused_data or len(data) > PAGE_BYTES:
        raise PeerError("malformed-page", "The other node sent a page that does not inflate to one.")
    return data
