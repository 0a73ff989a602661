"""One connection to one proven peer: sealed streams of messages, with back-pressure both ways.

``Channel`` only pumps: datagrams into QUIC, QUIC's streams into the session machine, and back. Rules kept here: a message that
nobody received yet stops its sender (windows of ``quic``); at most 4 MiB are handed to QUIC and not acknowledged; messages over
64 KiB of different streams go one after another, so that whole ones fit into the other side's window; a connection that was
silent for 15 s is over. Who may connect is ``endpoint``'s and the node's; what messages mean is the node's.

    channel = await endpoint.dial("data.example.org:4433", key)
    stream = await channel.open()
    await stream.send(request, end=True)
    while (message := await stream.receive()) is not None: ...
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import msgspec
from aioquic.quic import events
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from labxchange.errors import LabxchangeError, PeerError, RefusedError, UnavailableError
from labxchange.identity.card import Card
from labxchange.identity.statement import Signed
from labxchange.net.network import UdpAddress
from labxchange.wire.control import session as wire
from labxchange.wire.control.handshake import Peer, RekeyOffer

if TYPE_CHECKING:
    from labxchange.net.network import UdpPort
    from labxchange.net.quic import BoundedConnection

UNACKNOWLEDGED_MAX_BYTES = 4 << 20
SMALL_MESSAGE_BYTES = 1 << 16
RESERVE_BYTES = 1 << 18
"""Kept free for small messages when large ones fill the send buffer."""
PING_INTERVAL_S = 5.0
SILENCE_MAX_S = 15.0
REFUSAL_LINGER_S = 1.0
_CODE = re.compile(r"[a-z0-9-]{1,64}\Z")
"""What may stand as the reason of a peer; anything else is no reason."""


class Closed(msgspec.Struct, frozen=True):
    """How a channel ended: a code ("" = normally) and whose doing it was: "us", "peer" or "network"."""

    code: str
    whose: str


class Stats(msgspec.Struct):
    """Counters of a channel, for status and doctor."""

    datagrams_sent: int = 0
    datagrams_received: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    address_changes: int = 0


class Owner(Protocol):
    """What a link tells the endpoint that made it."""

    def link_session(self, link: Link) -> wire.Session:
        """TLS is done: make the session, or raise a LabxchangeError to drop the link."""
        ...

    def link_proven(self, link: Link, peer: Peer) -> None:
        """A dialler proved its identity: accept or refuse."""
        ...

    def link_ready(self, link: Link, channel: Channel) -> None:
        """Messages may flow."""
        ...

    def link_ended(self, link: Link) -> None:
        """It is decided how the link ends (``link.closed``, ``link.error``); it may linger to say so."""
        ...

    def link_over(self, link: Link) -> None:
        """Nothing is left of the link: forget it."""
        ...

    def link_id(self, link: Link, connection_id: bytes, *, valid: bool) -> None:
        """Datagrams with this connection id are the link's, or no longer are."""
        ...


class Link:
    """A QUIC connection joined to a session: the pump. It carries a ``Channel`` once the handshake is over."""

    def __init__(self, owner: Owner, quic: BoundedConnection, port: UdpPort, *, dialled: bool, deadline_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.quic = quic
        self.port = port
        self.dialled = dialled
        self.started_at = self.loop.time()
        self.address: UdpAddress = ("", 0)
        self.session: wire.Session | None = None
        self.channel: Channel | None = None
        self.error: LabxchangeError | None = None
        self.closed: Closed | None = None
        self.stats = Stats()
        self._owner = owner
        self._deadline: float | None = self.started_at + deadline_s
        self._heard_at = self.started_at
        self._pinged_at = self.started_at
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._soon: asyncio.Handle | None = None
        self._discarded = False

    # what comes in

    def receive(self, data: bytes, address: UdpAddress) -> None:
        """One datagram; ``pump`` after a batch."""
        if not self._discarded:
            self._heard_at = self.loop.time()
            self.stats.datagrams_received += 1
            self.quic.receive_datagram(data, address, now=self._heard_at)

    def pump(self) -> None:
        """Let QUIC and the session say what they have to, send it, and set the timer."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._discarded:
            return
        while (event := self.quic.next_event()) is not None:
            self._quic_event(event)
            if self._discarded:
                return
        self._session_events()
        if self._discarded:
            return
        self._transmit()
        if self.channel is not None:
            self.channel.wake_senders()

    def pump_soon(self) -> None:
        """``pump`` once, after what runs now."""
        if self._soon is None and not self._discarded:
            self._soon = self.loop.call_soon(self.pump)

    def close(self, code: str) -> None:
        """Say that it is over, with a code where the peer is proven."""
        if self._discarded:
            return
        if self.session is not None and self.session.phase is not wire.Phase.CLOSED:
            self.session.close(code)
        else:
            self._close_quic(Closed(code, "us"), reason="")
        self.pump()

    def discard(self, why: str) -> None:
        """Forget everything now, without a word."""
        if self._discarded:
            return
        self._discarded = True
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        self._timer = self._soon = None
        self._end(Closed(why, "network"))
        self._owner.link_over(self)
        self.quic.discard()
        self.session = None

    # inside

    def _quic_event(self, event: events.QuicEvent) -> None:
        session = self.session
        if isinstance(event, events.StreamDataReceived):
            if session is not None:
                self._stream_data(session, event)
        elif isinstance(event, events.HandshakeCompleted):
            try:
                self.session = self._owner.link_session(self)
            except LabxchangeError as error:
                self.error = error
                self.discard(error.code)
        elif isinstance(event, events.StreamReset):
            self.quic.consume_rest(event.stream_id)
            if session is not None and not session.is_forgotten(event.stream_id):
                session.receive_reset(event.stream_id, event.error_code)
        elif isinstance(event, events.StopSendingReceived):
            if self.channel is not None:
                self.channel.stopped(event.stream_id)
        elif isinstance(event, events.ConnectionIdIssued):
            self._owner.link_id(self, event.connection_id, valid=True)
        elif isinstance(event, events.ConnectionIdRetired):
            self._owner.link_id(self, event.connection_id, valid=False)
        elif isinstance(event, events.ConnectionTerminated):
            self._terminated(event)

    def _stream_data(self, session: wire.Session, event: events.StreamDataReceived) -> None:
        unwanted = self.channel is not None and self.channel.is_unwanted(event.stream_id)
        if event.stream_id == wire.SESSION_STREAM:
            self.quic.consume(event.stream_id, len(event.data))
        elif unwanted or session.is_forgotten(event.stream_id):
            self.quic.consume(event.stream_id, len(event.data))
            if event.end_stream:
                self.quic.consume_rest(event.stream_id)
            return
        session.receive(event.stream_id, event.data, end=event.end_stream)
        self._session_events()

    def _terminated(self, event: events.ConnectionTerminated) -> None:
        if self.closed is None and self.channel is None:
            self._end(Closed("gave-up", "peer"))
        elif self.closed is None:
            by_peer = event.frame_type is None
            code = event.reason_phrase if by_peer and _CODE.match(event.reason_phrase) else ""
            self._end(Closed(code if by_peer else "connection-lost", "peer" if by_peer else "network"))
        self.discard("over")

    def _session_events(self) -> None:
        while not self._discarded and self.session is not None and (event := self.session.next_event()) is not None:
            if isinstance(event, wire.PeerProven):
                self._owner.link_proven(self, event.peer)
            elif isinstance(event, wire.Ready):
                self._deadline = None
                self.quic.admit()
                self.channel = Channel(self, event.peer)
                self._owner.link_ready(self, self.channel)
            elif isinstance(event, wire.SessionClosed):
                self._session_closed(event)
            elif self.channel is not None:
                self.channel.session_event(event)

    def _session_closed(self, event: wire.SessionClosed) -> None:
        self.error = event.error
        self.write_streams()
        refused_by_us = event.whose == "us" and event.silent and not self.dialled
        if refused_by_us:
            self._end(Closed(event.code, "us"))
            self._deadline = self.loop.time() + REFUSAL_LINGER_S
        else:
            self._close_quic(Closed(event.code, event.whose), reason="" if event.silent else event.code)

    def _close_quic(self, closed: Closed, *, reason: str) -> None:
        self._end(closed)
        self.quic.close(error_code=0, reason_phrase=reason)

    def _end(self, closed: Closed) -> None:
        if self.closed is None:
            self.closed = closed
            self._deadline = None
            if self.channel is not None:
                self.channel.over(closed, self.error)
            self._owner.link_ended(self)

    def write_streams(self) -> None:
        """Hand the session's bytes to QUIC."""
        for output in self.session.take_output() if self.session is not None else ():
            self.quic.put(output.stream_id, output.data, end=output.end)

    def _transmit(self) -> None:
        self.write_streams()
        now = self.loop.time()
        self.quic.keep_window()
        datagrams = self.quic.datagrams_to_send(now=now)
        if datagrams:
            if self.closed is not None:
                datagrams = datagrams * 2
            if datagrams[0][1] != self.address:
                self.stats.address_changes += self.address != ("", 0)
                self.address = datagrams[0][1]
            self.stats.datagrams_sent += len(datagrams)
            self.port.send(datagrams)
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        self.quic.cap_probe_timeout()
        times = [self.quic.get_timer(), self._deadline]
        if self.session is not None:
            times.append(self.session.next_timer())
        if self.channel is not None and self.closed is None:
            times += [max(self._heard_at, self._pinged_at) + PING_INTERVAL_S, self._heard_at + SILENCE_MAX_S]
        at = min((time for time in times if time is not None), default=None)
        if self._timer is not None and (at is None or self._timer_at != at):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and at is not None:
            self._timer = self.loop.call_at(at, self._on_timer)
        self._timer_at = at

    def _on_timer(self) -> None:
        self._timer = None
        if self._discarded:
            return
        now = max(self.loop.time(), self._timer_at or 0.0)
        quic_at = self.quic.get_timer()
        if quic_at is not None and now >= quic_at:
            self.quic.handle_timer(now=now)
        if self._deadline is not None and now >= self._deadline:
            self.discard("handshake-timeout")
            return
        if self.session is not None:
            self.session.on_timer(now)
        if self.channel is not None and self.closed is None:
            if now >= self._heard_at + SILENCE_MAX_S:
                self._end(Closed("connection-lost", "network"))
                self.discard("connection-lost")
                return
            if now >= max(self._heard_at, self._pinged_at) + PING_INTERVAL_S:
                self._pinged_at = now
                self.quic.send_ping(0)
        self.pump()


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
        return held + size <= UNACKNOWLEDGED_MAX_BYTES - RESERVE_BYTES

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
