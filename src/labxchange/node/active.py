"""What a sender's node holds of an outgoing transfer while it is fetched from; gone when nobody fetches, and made anew then."""

from __future__ import annotations

import asyncio

import msgspec

from labxchange.identity.statement import Signed
from labxchange.node.catalog import Loaded
from labxchange.node.hashing import Origin
from labxchange.sharing.exchange import Cut
from labxchange.store.transfers import TransferRow
from labxchange.transfer.lanes.sending import SendingLanes
from labxchange.transfer.pace import Pace


class Active(msgspec.Struct, kw_only=True):
    """An outgoing transfer while it is fetched from: ``told`` counts the files of ``gone`` in the trail, ``used`` is when the
    last fetch ended (loop time), ``stopped`` that nothing is sent until it is judged again."""

    row: TransferRow
    loaded: Loaded
    origin: Origin
    gone: dict[int, str] = {}
    tasks: set[asyncio.Task[object]] = set()
    lanes: list[SendingLanes] = []
    pace: Pace | None = None
    sent_bytes: int = 0
    noted: int = 0
    told: int = 0
    used: float = 0.0
    stopped: bool = False
    cut: Signed[Cut] | None = None
