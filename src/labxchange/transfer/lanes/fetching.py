"""Chunks over lanes, at the recipient: opened, asked for as over QUIC but with a lane's id, and taken from the workers.

Rules kept here: a lane id is used once; each chunk's digest is compared with the one it must have; a lane that carried 64 GiB or
an hour is replaced by one under new keys while the transfer goes on; where no lane comes up within seconds, or one fails, that is
an error with a code, and the node falls back. Policy, journal and trail are the node's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import numpy as np

from labxchange.errors import InputError, LabxchangeError, PeerError, RefusedError, UnavailableError
from labxchange.net.channel import Channel, Stream
from labxchange.settings import ANSWER_S, LANE_CREDIT_BYTES, LANE_FETCH_BYTES
from labxchange.transfer.intervals import Interval
from labxchange.transfer.lanes import messages
from labxchange.transfer.lanes.leg import CIPHERS, Leg, Watch, open_order, places, remotes
from labxchange.transfer.lanes.process import Workers
from labxchange.transfer.streams import Content, Ended, Sink
from labxchange.wire.control.messages import (
    GONE_MAX,
    Fetch,
    Fetched,
    LaneRate,
    LanesDone,
    LanesOpen,
    OpenLanes,
    Priority,
    Refused,
    decode_answer,
    encode,
)
from labxchange.wire.data.datagram import LANE_ID_BYTES, Cipher

UP_S: Final = 5.0
"""How long the first word over a lane may take: several tries over the slowest paths."""
STALL_S: Final = 30.0
CLOSE_S: Final = 5.0
_KEYS_TRIES: Final = 3


class _Request:
    """A fetch under way: what has not come."""

    def __init__(self, asked: Sequence[Interval], leg: Leg, sink: Sink, *, size: int) -> None:
        self.left = {chunk for first, last in asked for chunk in range(first, last + 1)}
        self.leg = leg
        self.sink = sink
        self.moved = asyncio.Event()
        self._left_bytes = size
        leg.asked += size

    def take(self, chunk: int, length: int) -> None:
        """A chunk came, or will not come."""
        self.left.discard(chunk)
        self._left_bytes -= length
        self.leg.asked -= length

    def end(self) -> None:
        """Nothing more is waited for."""
        self.leg.asked -= self._left_bytes
        self._left_bytes = 0


class LaneFetching:
    """``transfer.streams.Fetching`` over lanes.

    Args:
        content: may still be to come while lanes are asked for.
        refused: turns a Refused message into the error to raise.
    """

    def __init__(
        self,
        transfer: str,
        channel: Channel,
        *,
        workers: Workers,
        count: int,
        rate_bytes_s: int,
        priority: Priority,
        watch: Watch,
        random_bytes: Callable[[int], bytes],
        content: Awaitable[Content],
        destination: bytes,
        refused: Callable[[bytes, Channel], RefusedError],
        cipher: Cipher = CIPHERS[0],
    ) -> None:
        self.cipher = cipher
        self.request_bytes = LANE_FETCH_BYTES // min(count, 2)  # several lanes end more evenly so
        self.parallel = LANE_CREDIT_BYTES // self.request_bytes
        self.legs: list[Leg] = []
        self._transfer = transfer
        self._channel = channel
        self._workers = workers
        self._count = count
        self._rate_bytes_s = rate_bytes_s
        self._priority = priority
        self._watch = watch
        self._random_bytes = random_bytes
        self._content = content
        self._destination = destination
        self._refused = refused
        self._control: list[Stream] = []
        self._requests: dict[int, _Request] = {}
        self._tainted: set[int] = set()
        self._trouble: LabxchangeError | None = None
        self._changed = asyncio.Event()
        self._closing = False
        self._up_by = self._moved_at = 0.0
        self._renewing = asyncio.Lock()

    # --- opening ------------------------------------------------------------------------------------------------------
    async def open(self) -> None:
        """Open as many lanes as were asked for. A first word over them is waited for with the first range.

        Raises:
            UnavailableError: ``no-lane-port``, ``worker-ended``.
            RefusedError: the sender does not want lanes, or ended the transfer.
            PeerError.
        """
        await self._open(self._count)

    async def _open(self, count: int) -> None:
        """That many more; asked for anew where the keys changed meanwhile, or change because of it."""
        for left in reversed(range(_KEYS_TRIES)):
            legs = self._made(count)
            try:
                await self._ask_for(legs)
                return
            except LabxchangeError as error:
                for leg in [leg for leg in legs if leg in self.legs]:
                    self.legs.remove(leg)
                    self._close_leg(leg)
                if error.code != "lane-keys-changed" or not left:
                    raise

    def _made(self, count: int) -> list[Leg]:
        legs = [
            Leg(worker, self._workers.next_job(), self._random_bytes(LANE_ID_BYTES)) for worker in self._workers.least_busy(count)
        ]
        if not self._workers.claim(self._channel, [leg.lane for leg in legs]):
            raise UnavailableError("lane-closed", "This connection has had too many lanes.")
        return legs

    async def _ask_for(self, legs: Sequence[Leg]) -> None:
        slots, offsets = places(legs, self._channel)
        request = OpenLanes(
            transfer=self._transfer,
            lanes=[leg.lane for leg in legs],
            slots=slots,
            offsets=offsets,
            cipher=self.cipher,
            generation=self._channel.generation,
            rate_bytes_s=self._rate_bytes_s,
            priority=self._priority,
        )
        if not self._channel.dialled:  # the other side may call before its answer is here
            for leg in legs:
                self._begin(leg, 0, None)
        stream = await self._channel.open()
        try:
            await stream.send(encode(request))
            answer = decode_answer(await stream.receive(ANSWER_S))
            if isinstance(answer, Refused):
                raise self._refused(answer.statement, self._channel)
            if not isinstance(answer, LanesOpen):
                raise PeerError("out-of-order", "The other node gave an answer to another question.")
            calls = remotes(len(legs), self._channel, answer.slots, answer.offsets)
        except BaseException:
            stream.close()
            raise
        self._control.append(stream)
        for leg, (slot, remote) in zip(legs, calls, strict=True):
            leg.control = stream
            if self._channel.dialled:
                self._begin(leg, slot, remote)
        self._up_by = _now() + UP_S
        self._line, self._digests, quarantine = await self._content
        quarantine.written_elsewhere = True
        for leg in legs:
            leg.worker.order(
                messages.Contents(
                    job=leg.job, transfer=self._transfer, destination=self._destination, sizes=self._line.size.tobytes()
                )
            )

    def _begin(self, leg: Leg, slot: int, remote: tuple[str, int] | None) -> None:
        self.legs.append(leg)
        leg.worker.jobs[leg.job] = self._on_news
        leg.worker.lanes[leg.lane] = self._on_news
        leg.worker.order(messages.ReceiveJob(job=leg.job))
        leg.worker.order(open_order(leg, self._channel, cipher=self.cipher, slot=slot, remote=remote, cap_bytes_s=0.0))

    def _check_up(self, leg: Leg) -> None:
        """Raises UnavailableError ``lane-silent`` when a lane ought to have been heard by now."""
        if not leg.is_up and _now() > self._up_by:
            raise UnavailableError(
                "lane-silent",
                "Nothing was heard from the other node over a lane.",
                hint="A firewall may let only some UDP through; `labxchange doctor` says more.",
            )

    # --- news of the workers ------------------------------------------------------------------------------------------
    def _on_news(self, news: messages.News) -> None:
        match news:
            case messages.Chunks():
                self._on_chunks(news.chunks)
            case messages.Trouble():
                kind = {"InputError": InputError, "RefusedError": InputError}.get(news.kind, UnavailableError)
                self._trouble = kind(news.code, news.sentence, hint=news.hint)
            case messages.JobClosed():
                self._on_closed(news.job)
            case _ if (leg := self._leg(news.lane)) is not None:
                self._on_lane(leg, news)
        self._changed.set()
        if isinstance(news, messages.Chunks):
            self._moved_at = _now()
        elif not isinstance(news, messages.LaneStats):
            self._touch()

    def _on_lane(self, leg: Leg, news: messages.News) -> None:
        before = leg.stats.received_bytes if leg.stats is not None else 0
        leg.hear(news, self._watch)
        if isinstance(news, messages.LaneStats) and news.received_bytes > before:
            self._moved_at = _now()

    def _on_closed(self, job: int) -> None:
        leg = next((leg for leg in self.legs if leg.job == job), None)
        if leg is None:  # one that was replaced
            return
        leg.is_closed = True
        leg.worker.jobs.pop(job, None)
        if not self._closing:
            self._trouble = self._trouble or UnavailableError("worker-ended", "The process that moves the data ended.")

    def _touch(self) -> None:
        self._moved_at = _now()
        for request in self._requests.values():
            request.moved.set()

    def _leg(self, lane: bytes) -> Leg | None:
        return next((leg for leg in self.legs if leg.lane == lane), None)

    def _on_chunks(self, chunks: Sequence[messages.Came]) -> None:
        files, lengths = self._line.places(np.fromiter((came.chunk for came in chunks), np.int64, len(chunks)))
        ended: dict[_Request, list[Ended]] = {}
        for came, file, length in zip(chunks, files.tolist(), lengths.tolist(), strict=True):
            request = self._requests.pop(came.chunk, None)
            if request is None:
                continue
            wrong = "" if came.digest == self._digests.of(came.chunk) else came.digest.hex()
            if wrong:
                self._tainted.add(file)  # the worker's SHA-256 of this file went over wrong bytes
            record = b"" if file in self._tainted else came.record
            request.take(came.chunk, length)
            ended.setdefault(request, []).append(Ended(came.chunk, length, wrong, record))
        for request, done in ended.items():
            request.sink.done(done)
            request.moved.set()

    # --- fetching -----------------------------------------------------------------------------------------------------
    async def _renew(self) -> None:
        """New lanes in the place of worn ones, under keys that were agreed anew; the old ones end with what was asked of them."""
        async with self._renewing:
            worn = [leg for leg in self.legs if leg.is_worn and not leg.is_retired]
            if not worn:
                return
            if self._channel.dialled:
                await self._channel.rekey()
            await self._open(len(worn))
            for leg in worn:
                leg.is_retired = True

    async def set_lanes(self, count: int) -> None:
        """Go on over so many lanes: more are opened, or some get nothing more to bring and end with what they were asked for.

        Raises:
            LabxchangeError: as ``open``; the transfer goes on over those that it has.
        """
        async with self._renewing:
            self._count = count
            using = [leg for leg in self.legs if leg.over is None and not leg.is_retired]
            for leg in using[count:]:
                leg.is_retired = True
            if len(using) < count:
                await self._open(count - len(using))
            await self._end_retired()

    async def _end_retired(self) -> None:
        """Lanes that nothing more is asked of and that have brought all that was: the sender closes its ends too."""
        over = [leg for leg in self.legs if leg.is_retired and not leg.asked]
        self.legs = [leg for leg in self.legs if leg not in over]
        for leg in over:
            self._close_leg(leg)
        for stream in {leg.control for leg in over if leg.control is not None}:
            if any(leg.control is stream for leg in self.legs):
                await stream.send(encode(LanesDone(lanes=[leg.lane for leg in over if leg.control is stream])))
            elif stream in self._control:
                self._control.remove(stream)
                stream.close()

    async def fetch(self, asked: list[Interval], sink: Sink) -> None:
        self._check()
        if any(leg.is_worn and not leg.is_retired for leg in self.legs):
            await self._renew()
        open_ones = [leg for leg in self.legs if leg.over is None and not leg.is_retired]
        usable = [leg for leg in open_ones if leg.is_up] or open_ones  # the first range does not wait for the first word
        if not usable:
            raise self.legs[-1].over or UnavailableError("lane-silent", "No lane is open.")
        leg = min(usable, key=lambda leg: leg.asked)
        request = _Request(asked, leg, sink, size=sum(self._line.span(first, last) for first, last in asked))
        self._requests.update(dict.fromkeys(request.left, request))
        self._moved_at = _now()
        leg.worker.order(messages.Ask(lane=leg.lane, request=0, ranges=asked))
        try:
            async with await self._channel.open() as stream:
                await stream.send(encode(Fetch(transfer=self._transfer, chunks=asked, lane=leg.lane)), end=True)
                await self._follow(request, stream)
        finally:
            for chunk in request.left:
                if self._requests.get(chunk) is request:
                    del self._requests[chunk]
            request.end()
        await self._end_retired()

    async def _follow(self, request: _Request, stream: Stream) -> None:
        """Until each chunk came, or its file was named."""
        answer = asyncio.ensure_future(stream.receive())
        try:
            while request.left:
                self._check()
                if request.leg.over is not None:
                    raise request.leg.over
                self._check_up(request.leg)
                request.moved.clear()
                moved = asyncio.ensure_future(request.moved.wait())
                waits = {moved} if answer.done() else {moved, answer}
                patience_s = STALL_S + self._moved_at - _now() if request.leg.is_up else UP_S
                done, _ = await asyncio.wait(waits, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
                moved.cancel()
                if not done and request.leg.is_up and _now() - self._moved_at >= STALL_S:
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
                self._requests.pop(chunk, None)
                request.take(chunk, self._line.chunk_at(chunk).length)
            skipped.append((min(chunks), max(chunks)))
        if skipped:
            request.leg.worker.order(messages.Skip(lane=request.leg.lane, chunks=skipped))
            request.sink.gone(answer.gone)

    async def set_rate(self, rate_bytes_s: int, priority: Priority) -> None:
        """Have the sender send no faster (0 is no limit), and divide what its way here carries by this priority.

        Raises:
            LabxchangeError: the connection is lost; the next attempt asks for it.
        """
        self._rate_bytes_s, self._priority = rate_bytes_s, priority
        for stream in list(self._control):
            await stream.send(encode(LaneRate(rate_bytes_s=rate_bytes_s, priority=priority)))

    def _check(self) -> None:
        if self._trouble is not None:
            raise self._trouble

    def close(self) -> None:
        """Nothing more is taken; what came whole is still written."""
        self._closing = True
        for leg in self.legs:
            self._close_leg(leg)
        for stream in self._control:
            stream.close()
        self._control.clear()

    def _close_leg(self, leg: Leg) -> None:
        leg.worker.lanes.pop(leg.lane, None)
        if leg.job in leg.worker.jobs:
            leg.worker.order(messages.CloseJob(job=leg.job))
        else:
            leg.is_closed = True

    async def closed(self) -> None:
        """After ``close``: until nothing is written any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while not all(leg.is_closed for leg in self.legs):
                    self._changed.clear()
                    await self._changed.wait()


def _now() -> float:
    return asyncio.get_running_loop().time()
