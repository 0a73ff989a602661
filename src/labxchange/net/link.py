"""A QUIC connection joined to a session: the pump that carries a ``Channel`` once both identities are proven.

Datagrams go into QUIC, QUIC's streams into the session machine, and back. A connection that was silent for 15 s is over; one that
its peer seems to have lost is asked, and is over when it does not answer. Who may connect is ``endpoint``'s and the node's.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Protocol

from aioquic.quic import events

from labxchange.errors import LabxchangeError
from labxchange.net.network import Closed, Stats, UdpAddress
from labxchange.wire.control import session as wire
from labxchange.wire.control.handshake import Peer

if TYPE_CHECKING:
    from labxchange.net.network import UdpPort
    from labxchange.net.quic import BoundedConnection

from labxchange.net.channel import Channel

PING_INTERVAL_S = 5.0
SILENCE_MAX_S = 15.0
DOUBT_S = 2.0
"""How long a peer has to answer who seems to have lost this connection."""
REFUSAL_LINGER_S = 1.0
_CODE = re.compile(r"[a-z0-9-]{1,64}\Z")
"""What may stand as the reason of a peer; anything else is no reason."""


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
        self._doubted_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._soon: asyncio.Handle | None = None
        self._discarded = False

    # what comes in

    def receive(self, data: bytes, address: UdpAddress) -> None:
        """One datagram; ``pump`` after a batch."""
        if not self._discarded:
            self._heard_at, self._doubted_at = self.loop.time(), None
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
        self.quic.keep_window(now)
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
            times += [max(self._heard_at, self._pinged_at) + PING_INTERVAL_S, self._lost_at]
        at = min((time for time in times if time is not None), default=None)
        if self._timer is not None and (at is None or self._timer_at != at):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and at is not None:
            self._timer = self.loop.call_at(at, self._on_timer)
        self._timer_at = at

    @property
    def _lost_at(self) -> float:
        """The connection is lost when nothing is heard by then."""
        silent_at = self._heard_at + SILENCE_MAX_S
        return silent_at if self._doubted_at is None else min(silent_at, self._doubted_at + DOUBT_S)

    def doubt(self) -> None:
        """The peer may have lost this connection: ask, and do not wait long for the answer."""
        if not self._discarded and self.closed is None:
            self._doubted_at = self._pinged_at = self.loop.time()
            self.quic.send_ping(0)
            self.pump()

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
            if now >= self._lost_at:
                self._end(Closed("connection-lost", "network"))
                self.discard("connection-lost")
                return
            if now >= max(self._heard_at, self._pinged_at) + PING_INTERVAL_S:
                self._pinged_at = now
                self.quic.send_ping(0)
        self.pump()
