"""One connection to one proven peer: sealed streams of messages, with back-pressure both ways.

Rules kept here: a message that nobody received yet stops its sender (windows of ``quic``); at most 4 MiB are handed to QUIC and
not acknowledged; messages over 64 KiB of different streams go one after another, so that whole ones fit into the other side's
window. The connection under it is a ``Link``; what messages mean is the node's.

    channel = await endpoint.dial("data.example.org:4433", key)
    stream = await channel.open()
    await stream.send(request, end=True)
    while (message := await stream.receive()) is not None: ...
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from labxchange.errors import LabxchangeError, PeerError, RefusedError, UnavailableError
from labxchange.identity.card import Card
from labxchange.identity.statement import Signed
from labxchange.net.network import Closed, Stats, UdpAddress
from labxchange.wire.control import session as wire
from labxchange.wire.control.handshake import Peer, RekeyOffer

if TYPE_CHECKING:
    from labxchange.net.link import Link

UNACKNOWLEDGED_MAX_BYTES = 4 << 20
SMALL_MESSAGE_BYTES = 1 << 16
RESERVE_BYTES = 1 << 18
"""Kept free for small messages when large ones fill the send buffer."""


class Stream:
    """One exchange of messages with the peer; either side opened it. Use as a context manager to be sure it is given back."""

    def __init__(self, channel: Channel, stream_id: int) -> None:
        self.channel = channel
        self.id = stream_id
        self._inbox: deque[tuple[bytes, int]] = deque()
        self._readable = asyncio.Event()
        self._peer_ended = False
        self._ended = False
        self._stopped = False
        self._unwanted = False
        self._error: LabxchangeError | None = None

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Send one message, waiting while too much is unacknowledged; ``end``: nothing follows.

        Raises:
            ValueError: longer than a message may be.
            RefusedError: the peer wants nothing more on this stream, or closed the channel with a code.
            UnavailableError: the connection is lost or closed.
        """
        await self.channel.turn(self, len(data))
        if self._ended:
            raise RuntimeError("the stream was ended")
        self._ended = end
        self.channel.write(self, data, last=end)

    async def receive(self, within_s: float | None = None) -> bytes | None:
        """The next message, waiting at most ``within_s``; None once the peer ended the stream.

        Raises:
            PeerError: the peer broke the rules; the channel is over. ``peer-stalled``: nothing came in time.
            RefusedError: the peer closed the channel with a code.
            UnavailableError: ``stream-reset`` by the peer, or the connection is lost or closed.
        """
        try:
            async with asyncio.timeout(within_s):
                return await self._next()
        except TimeoutError:
            raise PeerError("peer-stalled", "The other node stopped sending.", hint="It is tried again later.") from None

    async def _next(self) -> bytes | None:
        while not self._inbox:
            if self._error is not None:
                raise self._error
            if self._peer_ended:
                return None
            self._readable.clear()
            await self._readable.wait()
        data, wire_bytes = self._inbox.popleft()
        self.channel.consume(self, wire_bytes)
        return data

    def end(self) -> None:
        """Say that nothing follows; no effect when it was said."""
        if not self._ended and not self._stopped:
            self._ended = True
            self.channel.write(self, None, last=True)

    def reset(self, code: int = 1) -> None:
        """Give the stream up at once, both ways; what was not received is lost."""
        self._ended = self._stopped = True
        self._drop_inbox()
        self.channel.abandon(self, code, sending=True)

    def close(self) -> None:
        """Done with it: end what we say, and want nothing more of the peer."""
        self.end()
        self._drop_inbox()
        if not self._peer_ended:
            self.channel.abandon(self, 0, sending=False)

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self.reset()

    def _drop_inbox(self) -> None:
        self._unwanted = True
        while self._inbox:
            self.channel.consume(self, self._inbox.popleft()[1])

    # told by the channel

    def deliver(self, data: bytes, wire_bytes: int) -> None:
        """A message came."""
        self._inbox.append((data, wire_bytes))
        self._readable.set()

    def peer_ended(self) -> None:
        """The peer says nothing more."""
        self._peer_ended = True
        self._readable.set()

    def failed(self, error: LabxchangeError) -> None:
        """The connection is over: nothing more will come."""
        if self._error is None and not self._peer_ended:
            self._error = error
        self._readable.set()

    def peer_reset(self) -> None:
        """The peer gave the stream up; its windows count as consumed already, so what was not received is lost."""
        self._inbox.clear()
        self.failed(UnavailableError("stream-reset", "The other node gave up an exchange before its end."))
        self._peer_ended = True

    def stop(self) -> None:
        """The peer wants nothing more on it."""
        self._stopped = True

    @property
    def is_stopped(self) -> bool:
        """True when nothing can be sent any more."""
        return self._stopped

    @property
    def is_unwanted(self) -> bool:
        """True when what comes is thrown away."""
        return self._unwanted

    @property
    def is_over(self) -> bool:
        """True when both sides are done and all was received."""
        return (self._ended or self._stopped) and (self._peer_ended or self._unwanted) and not self._inbox


Handler = Callable[[Stream], Awaitable[None]]


class Channel:
    """A connection to a proven peer: ``open`` streams, ``serve`` the peer's, ``close``. Of its facts only ``k_lane`` changes."""

    def __init__(self, link: Link, peer: Peer) -> None:
        self._link = link
        self.peer = peer
        self._streams: dict[int, Stream] = {}
        self._unserved: deque[Stream] = deque()
        self._handler: Handler | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._large: set[int] = set()
        self._over = asyncio.Event()
        self._error: LabxchangeError | None = None
        self._rekeyed = asyncio.Event()
        self._rekeying = asyncio.Lock()

    @property
    def peer_key(self) -> bytes:
        """The peer's identity key."""
        return self.peer.key

    @property
    def card(self) -> Signed[Card]:
        """The card that the peer showed in this handshake."""
        return self.peer.card

    @property
    def kinds(self) -> dict[str, int]:
        """Highest version of each statement kind that the peer knows."""
        return self.peer.kinds

    @property
    def th2(self) -> bytes:
        """The handshake's transcript hash: what possession proofs are bound to."""
        return self.peer.th2

    @property
    def dialled(self) -> bool:
        """True when this side dialled."""
        return self._link.dialled

    @property
    def started_at(self) -> float:
        """When the handshake began, in the loop's time."""
        return self._link.started_at

    @property
    def remote_address(self) -> UdpAddress:
        """Where the peer's datagrams go now."""
        return self._link.address

    @property
    def k_lane(self) -> bytes:
        """Root key of the lanes, of the latest generation."""
        return self._link.session.k_lane if self._link.session is not None else b""

    @property
    def generation(self) -> int:
        """How often ``k_lane`` was agreed anew."""
        return self._link.session.generation if self._link.session is not None else 0

    @property
    def stats(self) -> Stats:
        """Counters."""
        return self._link.stats

    @property
    def is_open(self) -> bool:
        """False once it is over."""
        return not self._over.is_set()

    async def open(self) -> Stream:
        """A new stream; waits while the peer allows no more.

        Raises:
            RefusedError, UnavailableError: the channel is over.
        """
        self._check()
        quic = self._link.quic
        stream_id = quic.get_next_available_stream_id()
        quic.put(stream_id, b"", end=False)
        stream = self._streams[stream_id] = Stream(self, stream_id)
        assert self._link.session is not None
        self._link.session.open_stream(stream_id)
        while quic.is_blocked(stream_id):
            await self._wait()
        return stream

    def serve(self, handler: Handler) -> None:
        """Run ``handler(stream)`` for each stream that the peer opens, and for those already opened."""
        self._handler = handler
        while self._unserved:
            self._start(self._unserved.popleft())

    def close(self, code: str = "") -> None:
        """End the channel at once; ``code`` tells the peer why ("" = done). Unacknowledged messages may be lost: ``flush``."""
        if not self._over.is_set():
            self._link.close(code)

    async def flush(self) -> None:
        """Wait until all that was sent is acknowledged."""
        while not self._over.is_set() and self._link.quic.unacknowledged_bytes:
            await self._wait()

    def doubt(self) -> None:
        """The peer may have lost this channel, as it made another: unless it answers soon, this one is lost."""
        self._link.doubt()

    async def closed(self) -> Closed:
        """Wait for the end."""
        await self._over.wait()
        assert self._link.closed is not None
        return self._link.closed

    async def rekey(self) -> bytes:
        """Agree on a new ``k_lane`` (dialling side only) and return it."""
        async with self._rekeying:  # several transfers may want it
            self._check()
            assert self._link.session is not None
            self._rekeyed.clear()
            self._link.session.rekey(RekeyOffer(x25519=X25519PrivateKey.generate(), mlkem=MLKEM768PrivateKey.generate()))
            self._link.pump_soon()
            await self._rekeyed.wait()
            self._check()
            return self.k_lane

    # for Stream

    async def turn(self, stream: Stream, size: int) -> None:
        """Wait until ``size`` bytes may be handed over."""
        while True:
            self._check()
            if stream.is_stopped:
                raise RefusedError("stream-stopped", "The other node wants nothing more on this stream.")
            if self._may_send(stream, size):
                return
            await self._wait()

    def write(self, stream: Stream, data: bytes | None, *, last: bool) -> None:
        """Hand one message to the session."""
        if self._over.is_set() or stream.is_stopped:
            return
        assert self._link.session is not None
        self._link.session.send(stream.id, data, last=last)
        self._link.stats.messages_sent += data is not None
        if data is not None and len(data) > SMALL_MESSAGE_BYTES:
            self._large.add(stream.id)
        self._link.write_streams()  # now, so that the next message's turn sees it
        self._link.pump_soon()
        self._forget_if_over(stream)

    def consume(self, stream: Stream, wire_bytes: int) -> None:
        """The application has received what ``wire_bytes`` carried."""
        if not self._over.is_set():
            self._link.quic.consume(stream.id, wire_bytes)
            self._link.pump_soon()
            self._forget_if_over(stream)

    def abandon(self, stream: Stream, code: int, *, sending: bool) -> None:
        """Stop receiving, and with ``sending`` also sending."""
        if self._over.is_set():
            return
        quic = self._link.quic
        if sending:
            quic.give_up(stream.id, code)
        quic.stop_receiving(stream.id, code)
        self._link.pump_soon()
        self._forget_if_over(stream)

    # for Link

    def session_event(self, event: wire.Event) -> None:
        """What the session says about streams and keys."""
        if isinstance(event, wire.StreamOpened):
            stream = self._streams[event.stream_id] = Stream(self, event.stream_id)
            if self._handler is None:
                self._unserved.append(stream)
            else:
                self._start(stream)
        elif isinstance(event, wire.LaneKeyChanged):
            self._rekeyed.set()
        elif isinstance(event, wire.Message | wire.StreamEnded | wire.StreamReset):
            self._stream_event(event)

    def _stream_event(self, event: wire.Message | wire.StreamEnded | wire.StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        if isinstance(event, wire.Message):
            self._link.stats.messages_received += 1
            stream.deliver(event.data, event.wire_bytes)
        elif isinstance(event, wire.StreamEnded):
            stream.peer_ended()
            self.consume(stream, event.wire_bytes)
        else:
            stream.peer_reset()
            self._forget_if_over(stream)

    def stopped(self, stream_id: int) -> None:
        """The peer wants nothing more on a stream."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.stop()
            self._forget_if_over(stream)

    def is_unwanted(self, stream_id: int) -> bool:
        """True when what comes on it is thrown away."""
        stream = self._streams.get(stream_id)
        return stream is not None and stream.is_unwanted

    def wake_senders(self) -> None:
        """Room may have come free."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def over(self, closed: Closed, error: LabxchangeError | None) -> None:
        """The link has ended."""
        if error is not None:
            self._error = error
        elif closed.whose == "us":
            self._error = UnavailableError("channel-closed", "The connection to the other node was closed.")
        elif closed.whose == "peer" and closed.code:
            self._error = RefusedError(closed.code, f"The other node closed the connection ({closed.code}).")
        elif closed.whose == "peer":
            self._error = UnavailableError("peer-closed", "The other node closed the connection.")
        else:
            self._error = UnavailableError(
                "connection-lost", "The connection to the other node was lost.", hint="It is tried again; check the network."
            )
        self._over.set()
        self._rekeyed.set()
        for stream in self._streams.values():
            stream.failed(self._error)
        self._streams.clear()
        self.wake_senders()

    # inside

    def _check(self) -> None:
        if self._over.is_set():
            assert self._error is not None
            raise self._error

    async def _wait(self) -> None:
        self._check()
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter
        self._check()

    def _may_send(self, stream: Stream, size: int) -> bool:
        quic = self._link.quic
        held = quic.unacknowledged_bytes
        if size <= SMALL_MESSAGE_BYTES:
            return held + size <= UNACKNOWLEDGED_MAX_BYTES
        for stream_id in list(self._large):
            if stream_id == stream.id:
                continue
            if quic.is_moving(stream_id):
                return False
            self._large.discard(stream_id)
        # A message that can never fit goes on alone, to be refused for its length: here it would wait for ever.
        return not held or held + size <= UNACKNOWLEDGED_MAX_BYTES - RESERVE_BYTES

    def _start(self, stream: Stream) -> None:
        task = asyncio.get_running_loop().create_task(self._handle(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, stream: Stream) -> None:
        assert self._handler is not None
        try:
            await self._handler(stream)
            stream.close()
        except PeerError as error:
            stream.reset()
            if self._error is None:
                self.close(error.code)
        except LabxchangeError:
            stream.reset()
        except BaseException:
            stream.reset()
            raise

    def _forget_if_over(self, stream: Stream) -> None:
        if stream.is_over and self._streams.pop(stream.id, None) is not None:
            self._large.discard(stream.id)
            if self._link.session is not None:
                self._link.session.forget(stream.id)
