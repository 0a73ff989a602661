"""One lane as the node sees it, and what both sides need to open one.

The recipient asks for lanes, whoever dialled: it names fresh lane ids; the side that listens names the workers' slots, the side
that dialled has its workers call there. Keys are derived here and go to the worker alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from labxchange.errors import LabxchangeError, PeerError, UnavailableError
from labxchange.net.channel import Channel, Stream
from labxchange.transfer.lanes import messages
from labxchange.transfer.lanes.process import Worker
from labxchange.wire.data.datagram import Cipher, Writer, lane_secret

CIPHERS: Final[tuple[Cipher, ...]] = ("aes-256-gcm", "chacha20-poly1305")


class Watch(Protocol):
    """Who is told of what happened to a lane and belongs into the trail."""

    def forged(self, count: int) -> None:
        """So many more datagrams bore the lane's id and did not open."""

    def moved(self, before: str, address: str) -> None:
        """The other side answers from another address."""


class Leg:
    """One lane of a transfer at one worker: ``asked`` counts the bytes that have not come, ``stats`` is its newest report,
    ``control`` the stream that keeps it open, ``cap_bytes_s`` its part of a rate that was set (0: none); one that ``is_retired``
    is asked for nothing more."""

    def __init__(self, worker: Worker, job: int, lane: bytes) -> None:
        self.worker = worker
        self.job = job
        self.lane = lane
        self.asked = 0
        self.is_up = False
        self.is_worn = False
        self.is_retired = False
        self.control: Stream | None = None
        self.is_closed = False
        self.over: LabxchangeError | None = None
        self.stats: messages.LaneStats | None = None
        self.cap_bytes_s = 0.0

    @property
    def is_usable(self) -> bool:
        """It was heard, it did not fail, and it stays."""
        return self.is_up and self.over is None and not self.is_retired

    def hear(self, news: messages.News, watch: Watch) -> None:
        """News of this lane."""
        match news:
            case messages.LaneStats():
                forged = news.forged - (self.stats.forged if self.stats is not None else 0)
                self.stats = news
                if forged > 0:
                    watch.forged(forged)
            case messages.LaneUp():
                self.is_up = True
            case messages.LaneOver():
                self.over = UnavailableError(news.code, news.sentence, hint="It is tried again.")
            case messages.LaneWorn():
                self.is_worn = True
            case messages.LaneMoved():
                watch.moved(news.before, news.address)
            case _:
                pass


def open_order(
    leg: Leg, channel: Channel, *, cipher: Cipher, slot: int, remote: tuple[str, int] | None, cap_bytes_s: float
) -> messages.OpenLane:
    ours: Writer = "I" if channel.dialled else "R"
    theirs: Writer = "R" if channel.dialled else "I"
    return messages.OpenLane(
        job=leg.job,
        lane=leg.lane,
        write=lane_secret(channel.k_lane, leg.lane, ours),
        read=lane_secret(channel.k_lane, leg.lane, theirs),
        cipher=cipher,
        slot=slot,
        remote=remote,
        host=channel.remote_address[0],
        cap_bytes_s=cap_bytes_s,
    )


def places(legs: Sequence[Leg], channel: Channel) -> tuple[list[int], list[int]]:
    """Slots and port offsets of our workers, when we are the side that was dialled.

    Raises:
        UnavailableError: ``no-lane-port``.
    """
    if channel.dialled:
        return [], []
    slots, offsets = [], []
    for leg in legs:
        if leg.worker.listen is None:
            raise UnavailableError("no-lane-port", "This node has no port for lanes.")
        slots.append(leg.worker.number)
        offsets.append(leg.worker.offset)
    return slots, offsets


def remotes(
    count: int, channel: Channel, slots: Sequence[int], offsets: Sequence[int]
) -> list[tuple[int, tuple[str, int] | None]]:
    """(slot, address) to call for each lane, or that we are called.

    Raises:
        PeerError: ``malformed-message``: the side that listens did not say where.
    """
    if not channel.dialled:
        return [(0, None)] * count
    if len(slots) != count or len(offsets) != count or not all(slots):
        raise PeerError("malformed-message", "The other node did not say where its lanes listen.")
    host, port = channel.remote_address
    return [(slot, (host, port + offset)) for slot, offset in zip(slots, offsets, strict=True)]


class LaneView(msgspec.Struct, frozen=True, kw_only=True):
    """How the lanes of a transfer are doing together, for screens; ``limit`` as in ``LaneStats``."""

    lanes: int
    rate_bytes_s: int
    rtt_ms: float
    loss: float
    resent_bytes: int
    dropped_here: int
    datagram_bytes: int
    datagrams_per_call: float
    limit: str


def view(legs: Sequence[Leg]) -> LaneView | None:
    """Of the newest reports; None before the first."""
    known = [leg.stats for leg in legs if leg.stats is not None]
    if not known:
        return None
    packets = sum(item.packets for item in known)
    limits = Counter(item.limit for item in known if item.limit)
    return LaneView(
        lanes=sum(leg.is_usable for leg in legs),
        rate_bytes_s=int(sum(item.rate_bytes_s for item in known)),
        rtt_ms=max(item.rtt_s for item in known) * 1000,
        loss=sum(item.lost_packets for item in known) / packets if packets else 0.0,
        resent_bytes=sum(item.resent_bytes for item in known),
        dropped_here=max(item.dropped_here for item in known),
        datagram_bytes=max(item.datagram_bytes for item in known),
        datagrams_per_call=max(item.datagrams_per_call for item in known),
        limit=limits.most_common(1)[0][0] if limits else "",
    )
