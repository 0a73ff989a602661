"""The sending end of lanes, at the sender's node: opened as the recipient asks, and told what to send.

The recipient's stream of OpenLanes keeps them open; the lower of the two rates that the sides want holds. Closing stops at once
what was asked for and is not sent, so an ended grant ends here too. Whether a range may be sent is judged before, by the node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from labxchange.dataset.listing import Line
from labxchange.errors import LabxchangeError, PeerError, UnavailableError
from labxchange.net.channel import Channel, Stream
from labxchange.transfer.intervals import Interval
from labxchange.transfer.lanes import messages
from labxchange.transfer.lanes.leg import Leg, open_order, places, remotes
from labxchange.transfer.lanes.process import Worker, Workers
from labxchange.wire.control.messages import LaneRate, LanesOpen, OpenLanes, decode
from labxchange.wire.data.datagram import Cipher


class SendingLanes:
    """The sending end of the lanes of one OpenLanes request; ``close`` stops everything at once."""

    def __init__(self, *, workers: Workers, channel: Channel, line: Line, sources: bytes, listing: bytes) -> None:
        self.legs: list[Leg] = []
        self._peer_rate = 0
        self._own_rate = 0
        self._workers = workers
        self._channel = channel
        self._line = line
        self._sources = sources
        self._listing = listing
        self._requests: dict[int, asyncio.Future[list[tuple[int, str]]]] = {}

    def open(self, request: OpenLanes, *, cipher: Cipher, own_rate_bytes_s: int) -> LanesOpen:
        """Make ready for the lanes that were asked for.

        Raises:
            UnavailableError: ``no-lane-port``. PeerError: ``malformed-message``, ``lane-used``.
        """
        if not self._workers.claim(self._channel, request.lanes):
            raise PeerError("lane-used", "The other node asked for a lane whose id was used before.")
        self._own_rate, self._peer_rate = own_rate_bytes_s, request.rate_bytes_s
        workers = self._workers.least_busy(len(request.lanes))
        legs = [Leg(worker, 0, lane) for worker, lane in zip(workers, request.lanes, strict=True)]
        slots, offsets = places(legs, self._channel)
        calls = remotes(len(legs), self._channel, request.slots, request.offsets)
        jobs: dict[Worker, int] = {}
        for leg, (slot, remote) in zip(legs, calls, strict=True):
            if leg.worker not in jobs:
                jobs[leg.worker] = self._workers.next_job()
                leg.worker.jobs[jobs[leg.worker]] = self._on_news
                leg.worker.order(messages.SendJob(job=jobs[leg.worker], sources=self._sources, listing=self._listing))
            leg.job = jobs[leg.worker]
            leg.worker.lanes[leg.lane] = self._on_news
            cap = self._rate() / len(legs)
            leg.worker.order(open_order(leg, self._channel, cipher=cipher, slot=slot, remote=remote, cap_bytes_s=cap))
        self.legs = legs
        return LanesOpen(slots=slots, offsets=offsets, cipher=cipher, generation=self._channel.generation)

    def has(self, lane: bytes) -> bool:
        return any(leg.lane == lane and leg.over is None for leg in self.legs)

    async def send(self, lane: bytes, asked: Sequence[Interval]) -> list[tuple[int, str]]:
        """Send these chunks; returns when all went out once, with the files that are gone and why. Cancelling does not stop it.

        Raises:
            UnavailableError: the lane is over.
        """
        leg = next(leg for leg in self.legs if leg.lane == lane)
        if leg.over is not None:
            raise leg.over
        number = self._workers.next_job()
        future: asyncio.Future[list[tuple[int, str]]] = asyncio.get_running_loop().create_future()
        self._requests[number] = future
        leg.worker.order(messages.Ask(lane=lane, request=number, ranges=list(asked)))
        try:
            return await future
        finally:
            self._requests.pop(number, None)

    async def follow(self, stream: Stream) -> None:
        """Until the recipient ends the stream; meanwhile they may change the rate."""
        while (data := await stream.receive()) is not None:
            self._peer_rate = decode(data, LaneRate).rate_bytes_s
            self._set_caps()

    def set_own_rate(self, rate_bytes_s: int) -> None:
        """Send no faster over all these lanes from now on; 0 is no limit."""
        self._own_rate = rate_bytes_s
        self._set_caps()

    def _rate(self) -> int:
        """The lower of what the two sides want."""
        return min((rate for rate in (self._own_rate, self._peer_rate) if rate), default=0)

    def _set_caps(self) -> None:
        for leg in self.legs:
            leg.worker.order(messages.Cap(lane=leg.lane, cap_bytes_s=self._rate() / len(self.legs)))

    def _on_news(self, news: messages.News) -> None:
        match news:
            case messages.Sent():
                if (future := self._requests.get(news.request)) is not None and not future.done():
                    future.set_result(news.gone)
            case messages.LaneStats():
                self._leg(news.lane).stats = news
            case messages.LaneUp():
                self._leg(news.lane).is_up = True
            case messages.LaneOver():
                self._leg(news.lane).over = error = UnavailableError(news.code, news.sentence, hint="It is tried again.")
                self._fail(error)
            case messages.JobClosed():
                self._fail(UnavailableError("worker-ended", "The process that moves the data ended."))
            case _:
                pass

    def _leg(self, lane: bytes) -> Leg:
        return next(leg for leg in self.legs if leg.lane == lane)

    def _fail(self, error: LabxchangeError) -> None:
        for future in self._requests.values():
            if not future.done():
                future.set_exception(error)

    def close(self) -> None:
        """Nothing more is sent."""
        for leg in self.legs:
            leg.worker.lanes.pop(leg.lane, None)
            if leg.worker.jobs.pop(leg.job, None) is not None:
                leg.worker.order(messages.CloseJob(job=leg.job))
        self._fail(UnavailableError("lane-closed", "The lane was closed."))
