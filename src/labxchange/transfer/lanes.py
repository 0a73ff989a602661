"""Lanes of transfers, as the node handles them: opened over the control channel, run by the workers, watched from here.

The recipient asks for lanes, whoever dialled: it names fresh lane ids; the side that listens names the workers' slots, the side
that dialled has its workers call there. Ranges are then asked for as over QUIC, with the lane's id, and come to the recipient's
worker; this module compares each chunk's digest with the one it must have. Rules kept here: a lane id is used once; keys are
derived here and go to the worker alone; where a lane does not come up within seconds, or fails, that is an error with a code, and
the node falls back. Policy, journal and trail are the node's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from labxchange.dataset.listing import Line
from labxchange.errors import InputError, LabxchangeError, PeerError, RefusedError, UnavailableError
from labxchange.files.quarantine import Quarantine
from labxchange.net.channel import Channel, Stream
from labxchange.settings import FETCH_BYTES, LANE_CREDIT_BYTES
from labxchange.transfer import lane_messages as messages
from labxchange.transfer.intervals import Interval
from labxchange.transfer.lane_process import Worker, Workers
from labxchange.transfer.streams import Ended, Sink, expected
from labxchange.wire.control.messages import (
    GONE_MAX,
    Fetch,
    Fetched,
    LaneRate,
    LanesOpen,
    OpenLanes,
    Refused,
    decode,
    decode_answer,
    encode,
)
from labxchange.wire.data.datagram import LANE_ID_BYTES, Cipher, Writer, lane_secret

UP_S: Final = 5.0
"""How long the first word over a lane may take: several tries over the slowest paths."""
STALL_S: Final = 30.0
CLOSE_S: Final = 5.0
CIPHERS: Final[tuple[Cipher, ...]] = ("aes-256-gcm", "chacha20-poly1305")


class Leg:
    """One lane of a transfer at one worker; ``stats`` is its newest report."""

    def __init__(self, worker: Worker, job: int, lane: bytes) -> None:
        self.worker = worker
        self.job = job
        self.lane = lane
        self.asked = 0
        self.is_up = False
        self.is_worn = False
        self.is_closed = False
        self.over: LabxchangeError | None = None
        self.stats: messages.LaneStats | None = None


def _open_order(
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
        cap_bytes_s=cap_bytes_s,
    )


def _places(legs: Sequence[Leg], channel: Channel) -> tuple[list[int], list[int]]:
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


def _remotes(
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


class _Request:
    """A fetch under way: what has not come."""

    def __init__(self, asked: Sequence[Interval], leg: Leg, sink: Sink) -> None:
        self.left = {chunk for first, last in asked for chunk in range(first, last + 1)}
        self.leg = leg
        self.sink = sink
        self.moved = asyncio.Event()


class LaneFetching:
    """``transfer.streams.Fetching`` over lanes.

    Args:
        chunk_digests: 32 bytes for each chunk; those of chunks that are asked for must be there.
        refused: turns a Refused message into the error to raise.
    """

    parallel = LANE_CREDIT_BYTES // FETCH_BYTES

    def __init__(
        self,
        transfer: str,
        channel: Channel,
        *,
        workers: Workers,
        count: int,
        rate_bytes_s: int,
        random_bytes: Callable[[int], bytes],
        line: Line,
        chunk_digests: bytes | bytearray | memoryview,
        destination: bytes,
        quarantine: Quarantine,
        refused: Callable[[bytes, Channel], RefusedError],
        ciphers: Sequence[Cipher] = CIPHERS,
    ) -> None:
        self.cipher = ""
        self.legs: list[Leg] = []
        self._transfer = transfer
        self._channel = channel
        self._workers = workers
        self._count = count
        self._rate_bytes_s = rate_bytes_s
        self._random_bytes = random_bytes
        self._line = line
        self._digests = memoryview(chunk_digests)
        self._destination = destination
        self._refused = refused
        self._ciphers = ciphers
        self._control: list[Stream] = []
        self._requests: dict[int, _Request] = {}
        self._tainted: set[int] = set()
        self._trouble: LabxchangeError | None = None
        self._changed = asyncio.Event()
        self._received = 0
        self._closing = False
        quarantine.written_elsewhere = True

    # --- opening ------------------------------------------------------------------------------------------------------
    async def open(self) -> None:
        """Open the lanes and wait for a first word over one of them.

        Raises:
            UnavailableError: ``lane-silent``, ``no-lane-port``, ``lane-keys-changed``, ``worker-ended``.
            RefusedError: the sender does not want lanes, or ended the transfer.
            PeerError.
        """
        legs = [
            Leg(worker, self._workers.next_job(), self._random_bytes(LANE_ID_BYTES))
            for worker in self._workers.least_busy(self._count)
        ]
        if not self._workers.claim(self._channel, [leg.lane for leg in legs]):
            raise UnavailableError("lane-closed", "This connection has had too many lanes.")
        slots, offsets = _places(legs, self._channel)
        request = OpenLanes(
            transfer=self._transfer,
            lanes=[leg.lane for leg in legs],
            slots=slots,
            offsets=offsets,
            ciphers=list(self._ciphers),
            rate_bytes_s=self._rate_bytes_s,
        )
        stream = await self._channel.open()
        self._control.append(stream)
        await stream.send(encode(request))
        answer = decode_answer(await stream.receive())
        if isinstance(answer, Refused):
            raise self._refused(answer.statement, self._channel)
        if not isinstance(answer, LanesOpen) or answer.cipher not in self._ciphers:
            raise PeerError("out-of-order", "The other node gave an answer to another question.")
        if answer.generation != self._channel.generation:
            raise UnavailableError("lane-keys-changed", "The keys of the lanes changed while they were opened.")
        self.cipher = answer.cipher
        remotes = _remotes(len(legs), self._channel, answer.slots, answer.offsets)
        for leg, (slot, remote) in zip(legs, remotes, strict=True):
            self._begin(leg, slot, remote, answer.cipher)
        self.legs += legs
        await self._wait_up(legs)

    def _begin(self, leg: Leg, slot: int, remote: tuple[str, int] | None, cipher: Cipher) -> None:
        leg.worker.jobs[leg.job] = self._on_news
        leg.worker.lanes[leg.lane] = self._on_news
        leg.worker.order(
            messages.ReceiveJob(
                job=leg.job, transfer=self._transfer, destination=self._destination, sizes=self._line.size.tobytes()
            )
        )
        leg.worker.order(_open_order(leg, self._channel, cipher=cipher, slot=slot, remote=remote, cap_bytes_s=0.0))

    async def _wait_up(self, legs: Sequence[Leg]) -> None:
        try:
            async with asyncio.timeout(UP_S):
                while not any(leg.is_up for leg in legs):
                    self._check()
                    if failed := next((leg.over for leg in legs if leg.over is not None), None):
                        raise failed
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise UnavailableError(
                "lane-silent",
                "Nothing was heard from the other node over a lane.",
                hint="A firewall may let only some UDP through; `labxchange doctor` says more.",
            ) from None

    # --- news of the workers ------------------------------------------------------------------------------------------
    def _on_news(self, news: messages.News) -> None:
        match news:
            case messages.Chunks():
                self._on_chunks(news.chunks)
            case messages.LaneStats():
                self._leg(news.lane).stats = news
                received = sum(leg.stats.received_bytes for leg in self.legs if leg.stats is not None)
                if received > self._received:
                    self._received = received
                    self._touch()
            case messages.LaneUp():
                self._leg(news.lane).is_up = True
            case messages.LaneOver():
                self._leg(news.lane).over = UnavailableError(news.code, news.sentence, hint="It is tried again.")
            case messages.LaneWorn():
                self._leg(news.lane).is_worn = True
            case messages.Trouble():
                kind = {"InputError": InputError, "RefusedError": InputError}.get(news.kind, UnavailableError)
                self._trouble = kind(news.code, news.sentence, hint=news.hint)
            case messages.JobClosed():
                self._on_closed(news.job)
            case _:
                pass
        self._changed.set()
        if not isinstance(news, messages.LaneStats):
            self._touch()

    def _on_closed(self, job: int) -> None:
        leg = next(leg for leg in self.legs if leg.job == job)
        leg.is_closed = True
        leg.worker.jobs.pop(job, None)
        if not self._closing:
            self._trouble = self._trouble or UnavailableError("worker-ended", "The process that moves the data ended.")

    def _touch(self) -> None:
        for request in self._requests.values():
            request.moved.set()

    def _leg(self, lane: bytes) -> Leg:
        return next(leg for leg in self.legs if leg.lane == lane)

    def _on_chunks(self, chunks: Sequence[messages.Came]) -> None:
        ended: dict[_Request, list[Ended]] = {}
        for came in chunks:
            request = self._requests.pop(came.chunk, None)
            if request is None:
                continue
            place = self._line.chunk_at(came.chunk)
            wrong = "" if came.digest == expected(self._digests, came.chunk) else came.digest.hex()
            if wrong:
                self._tainted.add(place.file)  # the worker's SHA-256 of this file went over wrong bytes
            record = b"" if place.file in self._tainted else came.record
            request.left.discard(came.chunk)
            request.leg.asked -= place.length
            ended.setdefault(request, []).append(Ended(came.chunk, place.length, wrong, record))
        for request, done in ended.items():
            request.sink.done(done)
            request.moved.set()

    # --- fetching -----------------------------------------------------------------------------------------------------
    async def fetch(self, asked: list[Interval], sink: Sink) -> None:
        self._check()
        leg = min((leg for leg in self.legs if leg.over is None), key=lambda leg: leg.asked, default=None)
        if leg is None:
            raise self.legs[-1].over or UnavailableError("lane-silent", "No lane is open.")
        request = _Request(asked, leg, sink)
        for chunk in request.left:
            self._requests[chunk] = request
            leg.asked += self._line.chunk_at(chunk).length
        leg.worker.order(messages.Ask(lane=leg.lane, request=0, ranges=asked))
        try:
            async with await self._channel.open() as stream:
                await stream.send(encode(Fetch(transfer=self._transfer, chunks=asked, lane=leg.lane)), end=True)
                await self._follow(request, stream)
        finally:
            for chunk in request.left:
                if self._requests.get(chunk) is request:
                    del self._requests[chunk]
                    leg.asked -= self._line.chunk_at(chunk).length

    async def _follow(self, request: _Request, stream: Stream) -> None:
        """Until each chunk came, or its file was named."""
        answer = asyncio.ensure_future(stream.receive())
        try:
            while request.left:
                self._check()
                if request.leg.over is not None:
                    raise request.leg.over
                request.moved.clear()
                moved = asyncio.ensure_future(request.moved.wait())
                waits = {moved} if answer.done() else {moved, answer}
                done, _ = await asyncio.wait(waits, timeout=STALL_S, return_when=asyncio.FIRST_COMPLETED)
                moved.cancel()
                if not done:
                    raise PeerError("peer-stalled", "The other node stopped sending.", hint="It is tried again later.")
                if answer in done:
                    self._take_answer(request, answer.result())
        finally:
            answer.cancel()
            with contextlib.suppress(asyncio.CancelledError, LabxchangeError):
                await answer

    def _take_answer(self, request: _Request, data: bytes | None) -> None:
        answer = decode_answer(data)
        if isinstance(answer, Refused):
            raise self._refused(answer.statement, self._channel)
        if not isinstance(answer, Fetched):
            raise PeerError("out-of-order", "The other node sent something else where the end of a range was due.")
        missing: dict[int, list[int]] = {}
        for chunk in request.left:
            missing.setdefault(self._line.chunk_at(chunk).file, []).append(chunk)
        named = {gone.file for gone in answer.gone}
        if not named <= missing.keys() or len(answer.gone) > GONE_MAX:
            raise PeerError("left-out", "The other node named a file that it was not asked for.")
        skipped: list[Interval] = []
        for file in sorted(named):
            chunks = missing[file]
            for chunk in chunks:
                request.left.discard(chunk)
                self._requests.pop(chunk, None)
                request.leg.asked -= self._line.chunk_at(chunk).length
            skipped.append((min(chunks), max(chunks)))
        if skipped:
            request.leg.worker.order(messages.Skip(lane=request.leg.lane, chunks=skipped))
            request.sink.gone(answer.gone)

    async def set_rate(self, rate_bytes_s: int) -> None:
        """Have the sender send no faster; 0 is no limit."""
        self._rate_bytes_s = rate_bytes_s
        for stream in self._control:
            await stream.send(encode(LaneRate(rate_bytes_s=rate_bytes_s)))

    def _check(self) -> None:
        if self._trouble is not None:
            raise self._trouble

    def close(self) -> None:
        """Nothing more is taken; what came whole is still written."""
        self._closing = True
        for leg in self.legs:
            leg.worker.lanes.pop(leg.lane, None)
            if leg.job in leg.worker.jobs:
                leg.worker.order(messages.CloseJob(job=leg.job))
            else:
                leg.is_closed = True
        for stream in self._control:
            stream.close()
        self._control.clear()

    async def closed(self) -> None:
        """After ``close``: until nothing is written any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while not all(leg.is_closed for leg in self.legs):
                    self._changed.clear()
                    await self._changed.wait()


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
        slots, offsets = _places(legs, self._channel)
        remotes = _remotes(len(legs), self._channel, request.slots, request.offsets)
        jobs: dict[Worker, int] = {}
        for leg, (slot, remote) in zip(legs, remotes, strict=True):
            if leg.worker not in jobs:
                jobs[leg.worker] = self._workers.next_job()
                leg.worker.jobs[jobs[leg.worker]] = self._on_news
                leg.worker.order(messages.SendJob(job=jobs[leg.worker], sources=self._sources, listing=self._listing))
            leg.job = jobs[leg.worker]
            leg.worker.lanes[leg.lane] = self._on_news
            cap = self._rate() / len(legs)
            leg.worker.order(_open_order(leg, self._channel, cipher=cipher, slot=slot, remote=remote, cap_bytes_s=cap))
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


def chosen_cipher(offered: Sequence[Cipher]) -> Cipher:
    """The first that was offered and is known here; both sides know the two that there are."""
    return next((cipher for cipher in offered if cipher in CIPHERS), CIPHERS[0])


class LaneView(msgspec.Struct, frozen=True, kw_only=True):
    """How the lanes of a transfer are doing together, for screens."""

    lanes: int
    rate_bytes_s: int
    rtt_ms: float
    loss: float
    resent_bytes: int
    dropped_here: int
    datagrams_per_call: float
    limit: str


def view(legs: Sequence[Leg]) -> LaneView | None:
    """Of the newest reports; None before the first."""
    known = [leg.stats for leg in legs if leg.stats is not None]
    if not known:
        return None
    sent = sum(item.sent_packets for item in known)
    return LaneView(
        lanes=len(legs),
        rate_bytes_s=int(sum(item.rate_bytes_s for item in known)),
        rtt_ms=max(item.rtt_s for item in known) * 1000,
        loss=sum(item.lost_packets for item in known) / sent if sent else 0.0,
        resent_bytes=sum(item.resent_bytes for item in known),
        dropped_here=max(item.dropped_here for item in known),
        datagrams_per_call=max(item.datagrams_per_call for item in known),
        limit=known[0].limit,
    )
