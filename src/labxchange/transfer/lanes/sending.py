"""The sending end of lanes, at the sender's node: opened as the recipient asks, and told what to send.

The recipient's stream of OpenLanes keeps them open. Closing stops at once what was asked for and is not sent, so an ended grant
ends here too. All lanes of a transfer, however many requests opened them, go out under one rate: the lowest of what the two sides
chose and what the budget of the remote address leaves (``budget``). Whether a range may be sent is judged before, by the node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from labxchange.dataset.listing import Line
from labxchange.errors import LabxchangeError, PeerError, UnavailableError
from labxchange.net.channel import Channel, Stream
from labxchange.transfer.intervals import Interval
from labxchange.transfer.lanes import messages
from labxchange.transfer.lanes.leg import Leg, Watch, open_order, places, remotes
from labxchange.transfer.lanes.process import Worker, Workers
from labxchange.wire.control.messages import LaneRate, LanesDone, LanesOpen, OpenLanes, Priority, decode_lane_word


class Outgoing:
    """A transfer that goes out over lanes: what both sides chose for it, and its lanes, which share one rate evenly.

    Args:
        peer: who receives it. address: where they are.
    """

    def __init__(self, *, peer: str, address: str) -> None:
        self.peer = peer
        self.address = address
        self.groups: list[SendingLanes] = []
        self.own_rate_bytes_s = 0
        self.own_priority: Priority = "normal"
        self.peer_rate_bytes_s = 0
        self.peer_priority: Priority = "normal"
        self.budget_bytes_s = 0.0

    @property
    def legs(self) -> list[Leg]:
        return [leg for group in self.groups for leg in group.legs]

    @property
    def chosen_bytes_s(self) -> int:
        """The lower of what the two sides want; 0: no limit."""
        return min((rate for rate in (self.own_rate_bytes_s, self.peer_rate_bytes_s) if rate), default=0)

    @property
    def cap_bytes_s(self) -> float:
        """What holds; 0: no limit."""
        return min((rate for rate in (self.chosen_bytes_s, self.budget_bytes_s) if rate), default=0.0)

    def choose(self, rate_bytes_s: int, priority: Priority) -> None:
        """What this side wants from now on."""
        self.own_rate_bytes_s, self.own_priority = rate_bytes_s, priority
        self.divide()

    def divide(self) -> None:
        """Tell each lane its part of the rate, where that is another one than before."""
        legs = [leg for leg in self.legs if leg.over is None]
        for leg in legs:
            part = self.cap_bytes_s / len(legs)
            if part != leg.cap_bytes_s:
                leg.cap_bytes_s = part
                leg.worker.order(messages.Cap(lane=leg.lane, cap_bytes_s=part))


class _Request(NamedTuple):
    """Chunks that a lane was asked for: done when all went out once, with the files that are gone."""

    lane: bytes
    sent: asyncio.Future[list[tuple[int, str]]]


class SendingLanes:
    """The sending end of the lanes of one OpenLanes request; ``close`` stops everything at once.

    ``generation`` is that of the keys they are under.

    Args:
        outgoing: the transfer that they are lanes of.
    """

    def __init__(
        self, *, outgoing: Outgoing, workers: Workers, channel: Channel, line: Line, sources: bytes, listing: bytes, watch: Watch
    ) -> None:
        self.legs: list[Leg] = []
        self.generation = -1
        self._outgoing = outgoing
        self._workers = workers
        self._channel = channel
        self._line = line
        self._sources = sources
        self._listing = listing
        self._watch = watch
        self._requests: dict[int, _Request] = {}

    def open(self, request: OpenLanes) -> LanesOpen:
        """Make ready for the lanes that were asked for.

        Raises:
            UnavailableError: ``no-lane-port``, ``lane-keys-changed``. PeerError: ``malformed-message``, ``lane-used``.
        """
        if not self._workers.claim(self._channel, request.lanes):
            raise PeerError("lane-used", "The other node asked for a lane whose id was used before.")
        if request.generation != self._channel.generation:
            raise UnavailableError("lane-keys-changed", "The keys of the lanes changed while they were opened.")
        self.generation = request.generation
        outgoing = self._outgoing
        outgoing.peer_rate_bytes_s, outgoing.peer_priority = request.rate_bytes_s, request.priority
        workers = self._workers.least_busy(len(request.lanes))
        legs = [Leg(worker, 0, lane) for worker, lane in zip(workers, request.lanes, strict=True)]
        slots, offsets = places(legs, self._channel)
        calls = remotes(len(legs), self._channel, request.slots, request.offsets)
        jobs: dict[Worker, int] = {}
        part = outgoing.cap_bytes_s / (len(outgoing.legs) + len(legs))
        for leg, (slot, remote) in zip(legs, calls, strict=True):
            if leg.worker not in jobs:
                jobs[leg.worker] = self._workers.next_job()
                leg.worker.jobs[jobs[leg.worker]] = self._on_news
                leg.worker.order(messages.SendJob(job=jobs[leg.worker], sources=self._sources, listing=self._listing))
            leg.job = jobs[leg.worker]
            leg.cap_bytes_s = part
            leg.worker.lanes[leg.lane] = self._on_news
            leg.worker.order(open_order(leg, self._channel, cipher=request.cipher, slot=slot, remote=remote, cap_bytes_s=part))
        self.legs = legs
        outgoing.groups.append(self)
        outgoing.divide()
        return LanesOpen(slots=slots, offsets=offsets)

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
        request = self._requests[number] = _Request(lane, asyncio.get_running_loop().create_future())
        leg.worker.order(messages.Ask(lane=lane, request=number, ranges=list(asked)))
        try:
            return await request.sent
        finally:
            self._requests.pop(number, None)

    async def follow(self, stream: Stream) -> None:
        """Until the recipient ends the stream; meanwhile they may change the rate, and end some of the lanes."""
        while (data := await stream.receive()) is not None:
            match decode_lane_word(data):
                case LaneRate() as word:
                    self._outgoing.peer_rate_bytes_s, self._outgoing.peer_priority = word.rate_bytes_s, word.priority
                case LanesDone() as word:
                    self._end([leg for leg in self.legs if leg.lane in word.lanes])
            self._outgoing.divide()

    def _on_news(self, news: messages.News) -> None:
        match news:
            case messages.Sent():
                if (request := self._requests.get(news.request)) is not None and not request.sent.done():
                    request.sent.set_result(news.gone)
            case messages.JobClosed():
                self._fail(UnavailableError("worker-ended", "The process that moves the data ended."))
            case messages.Chunks() | messages.Trouble():
                pass  # of what is received
            case _ if (leg := self._leg(news.lane)) is not None:
                leg.hear(news, self._watch)
                if leg.over is not None:
                    self._fail(leg.over, lane=leg.lane)
                    self._outgoing.divide()

    def _leg(self, lane: bytes) -> Leg | None:
        return next((leg for leg in self.legs if leg.lane == lane), None)

    def _fail(self, error: LabxchangeError, *, lane: bytes = b"") -> None:
        for request in self._requests.values():
            if not request.sent.done() and lane in (b"", request.lane):
                request.sent.set_exception(error)

    def _end(self, legs: Sequence[Leg]) -> None:
        """Close lanes, and what no lane needs any more."""
        self.legs = [leg for leg in self.legs if leg not in legs]
        for leg in legs:
            leg.worker.lanes.pop(leg.lane, None)
            if any(other.job == leg.job for other in self.legs):
                leg.worker.order(messages.CloseLane(lane=leg.lane))
            elif leg.worker.jobs.pop(leg.job, None) is not None:
                leg.worker.order(messages.CloseJob(job=leg.job))
            self._fail(UnavailableError("lane-closed", "The lane was closed."), lane=leg.lane)

    def close(self) -> None:
        """Nothing more is sent."""
        self._end(self.legs)
        if self in self._outgoing.groups:
            self._outgoing.groups.remove(self)
            self._outgoing.divide()
