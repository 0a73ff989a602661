"""One connection's conversation, without IO: handshake on stream 0, then sealed messages on any stream.

Strategy: bytes of streams go in (``receive``), bytes of streams come out (``take_output``), and what happened is read as events
(``next_event``). On stream 0 each handshake message travels as F(message); after m4 the same stream carries sealed session
messages (rekey). Every other stream is sealed from its first byte, each direction with its writer's key.

Rules kept here: before m4 nothing but the handshake is accepted or sent, within 10 s and 16 KiB a message; a responder that
sees anything wrong before m4 closes without a word; after it, whoever breaks the rules is closed with a code. Windows and
credits are left to ``net`` - each message says how many bytes carried it - and welcome to the caller (``accept`` / ``refuse``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from enum import StrEnum

import msgspec

from labxchange.encoding import frame, unframe
from labxchange.errors import LabxchangeError, PeerError, RefusedError
from labxchange.wire.control.handshake import MESSAGE_MAX_BYTES as HANDSHAKE_MAX_BYTES
from labxchange.wire.control.handshake import Initiator, Peer, RekeyOffer, Responder, State
from labxchange.wire.control.records import MESSAGE_MAX_BYTES, Opener, Sealer

HANDSHAKE_TIMEOUT_S = 10.0
SESSION_STREAM = 0
_SESSION_MESSAGE_MAX_BYTES = 4096


class Phase(StrEnum):
    """Where a session stands."""

    HANDSHAKE = "handshake"
    DECIDING = "deciding"
    OPEN = "open"
    CLOSED = "closed"


PHASES: Mapping[tuple[Phase, str], Phase] = {
    (Phase.HANDSHAKE, "m3 received"): Phase.DECIDING,
    (Phase.DECIDING, "accepted"): Phase.OPEN,
    (Phase.DECIDING, "refused"): Phase.CLOSED,
    (Phase.HANDSHAKE, "m4 received"): Phase.OPEN,
    (Phase.HANDSHAKE, "closed"): Phase.CLOSED,
    (Phase.DECIDING, "closed"): Phase.CLOSED,
    (Phase.OPEN, "closed"): Phase.CLOSED,
}
"""All that may happen to a session."""


class PeerProven(msgspec.Struct, frozen=True):
    """m3 is verified: answer with ``accept`` or ``refuse``."""

    peer: Peer


class Ready(msgspec.Struct, frozen=True):
    """m4 is there (sent or received): messages may flow."""

    peer: Peer


class StreamOpened(msgspec.Struct, frozen=True):
    """The peer opened a stream."""

    stream_id: int


class Message(msgspec.Struct, frozen=True):
    """A whole message, carried by ``wire_bytes`` of its stream."""

    stream_id: int
    data: bytes
    wire_bytes: int


class StreamEnded(msgspec.Struct, frozen=True):
    """The peer says nothing more on a stream; ``wire_bytes`` carried that."""

    stream_id: int
    wire_bytes: int


class StreamReset(msgspec.Struct, frozen=True):
    """The peer gave a stream up."""

    stream_id: int
    code: int


class LaneKeyChanged(msgspec.Struct, frozen=True):
    """K_lane was agreed anew; ``generation`` counts from 0, the handshake's own."""

    generation: int


class SessionClosed(msgspec.Struct, frozen=True):
    """The session is over: ``whose`` is "us" or "peer", the side that closed or broke a rule; ``silent``: say nothing."""

    code: str
    whose: str
    silent: bool
    error: LabxchangeError | None = None


Event = PeerProven | Ready | StreamOpened | Message | StreamEnded | StreamReset | LaneKeyChanged | SessionClosed


class Output(msgspec.Struct, frozen=True):
    """Bytes for a stream; ``end``: its last."""

    stream_id: int
    data: bytes
    end: bool


class _Lane:
    """One stream's two directions."""

    def __init__(self, sealer: Sealer, opener: Opener) -> None:
        self.sealer = sealer
        self.opener = opener


class _Ids:
    """Stream ids that are over, so that none is ever used again; compact where they are over in order."""

    def __init__(self) -> None:
        self._floors = [4, 1, 2, 3]  # stream 0 is the session's own
        self._above: set[int] = set()

    def add(self, stream_id: int) -> None:
        self._above.add(stream_id)
        kind = stream_id % 4
        while self._floors[kind] in self._above:
            self._above.remove(self._floors[kind])
            self._floors[kind] += 4

    def __contains__(self, stream_id: int) -> bool:
        over_in_order = SESSION_STREAM != stream_id < self._floors[stream_id % 4]
        return over_in_order or stream_id in self._above


class Session:
    """See the module; ``machine`` decides which side this is.

    Args:
        now: seconds of the clock that all later ``now`` come from.
        make_rekey_answer: K_lane, offer -> new K_lane, answer, with fresh keys (``handshake.answer_rekey``).
    """

    def __init__(
        self,
        machine: Initiator | Responder,
        *,
        now: float,
        make_rekey_answer: Callable[[bytes, bytes], tuple[bytes, bytes]],
        message_max_bytes: int = MESSAGE_MAX_BYTES,
    ) -> None:
        self._machine = machine
        self._make_rekey_answer = make_rekey_answer
        self._message_max_bytes = message_max_bytes
        self._writer, self._reader = ("I", "R") if isinstance(machine, Initiator) else ("R", "I")
        self._deadline: float | None = now + HANDSHAKE_TIMEOUT_S
        self._handshake_buffer = bytearray()
        self._streams: dict[int, _Lane] = {}
        self._forgotten = _Ids()
        self._events: deque[Event] = deque()
        self._output: list[Output] = []
        self._rekey: RekeyOffer | None = None
        self.phase = Phase.HANDSHAKE
        self.k_lane = b""
        self.generation = 0
        if isinstance(machine, Initiator):
            self._say(machine.first())

    # what comes in

    def receive(self, stream_id: int, data: bytes, *, end: bool) -> None:
        """Bytes that the transport delivers in order; ``end``: the transport says the stream is over."""
        if self.phase is Phase.CLOSED:
            return
        try:
            if stream_id == SESSION_STREAM:
                self._receive_session(data, end=end)
            else:
                self._receive_stream(stream_id, data, end=end)
        except RefusedError as error:
            self._close(error.code, whose="peer", silent=True, error=error)
        except LabxchangeError as error:
            self._close(error.code, whose="peer", silent=self._unproven, error=error)

    def receive_reset(self, stream_id: int, code: int) -> None:
        """The transport says that the peer gave a stream up."""
        if self.phase is not Phase.OPEN or stream_id == SESSION_STREAM:
            self._close("malformed-message", whose="peer", silent=self._unproven)
            return
        known = self._streams.get(stream_id)
        if known is None and (not self._is_theirs(stream_id) or stream_id in self._forgotten):
            return
        if known is None:
            self._events.append(StreamOpened(stream_id))
            self._add(stream_id)
        self._events.append(StreamReset(stream_id, code))

    def next_timer(self) -> float | None:
        """When ``on_timer`` wants to be called; None: never."""
        return self._deadline

    def on_timer(self, now: float) -> None:
        """The handshake ends at its deadline, whatever it waits for."""
        if self._deadline is not None and now >= self._deadline:
            self._close("handshake-timeout", whose="peer", silent=self._unproven)

    # what the caller decides

    def accept(self) -> None:
        """Answer ``PeerProven`` with m4: ready."""
        assert isinstance(self._machine, Responder)
        self._advance("accepted")
        self._open()
        self._say_sealed(self._machine.accept())

    def refuse(self, code: str) -> None:
        """Answer ``PeerProven`` with m4: a refusal code, and end."""
        assert isinstance(self._machine, Responder)
        self._advance("refused")
        lane = self._add(SESSION_STREAM)
        self._output.append(Output(SESSION_STREAM, lane.sealer.message(self._machine.refuse(code), last=True), True))
        self._deadline = None
        self._events.append(SessionClosed(code, "us", True))

    def close(self, code: str) -> None:
        """End the session from this side."""
        self._close(code, whose="us", silent=self.phase is not Phase.OPEN)

    def open_stream(self, stream_id: int) -> None:
        """This side opens a stream with an id of its own parity."""
        used = stream_id in self._streams or stream_id in self._forgotten
        if self.phase is not Phase.OPEN or self._is_theirs(stream_id) or used:
            raise RuntimeError("a stream is opened once, by its own side, in an open session")
        self._add(stream_id)

    def send(self, stream_id: int, data: bytes | None, *, last: bool = False) -> None:
        """Seal one message; None with ``last`` ends the stream alone."""
        sealer = self._streams[stream_id].sealer
        sealed = sealer.end() if data is None else sealer.message(data, last=last)
        self._output.append(Output(stream_id, sealed, last or data is None))

    def forget(self, stream_id: int) -> None:
        """Both directions of a stream are over: its keys and buffers go, its id is never used again."""
        if self._streams.pop(stream_id, None) is not None:
            self._forgotten.add(stream_id)

    def is_forgotten(self, stream_id: int) -> bool:
        """True for a stream that was forgotten; what still comes on it is ignored."""
        return stream_id in self._forgotten

    def rekey(self, offer: RekeyOffer) -> None:
        """Agree on a new K_lane; only the side that dialled asks, one at a time."""
        if self._writer != "I" or self._rekey is not None or self.phase is not Phase.OPEN:
            raise RuntimeError("the dialling side asks for one rekey at a time")
        self._rekey = offer
        self._say_sealed(frame("rekey", self.generation + 1, offer.message()))

    # what goes out

    def next_event(self) -> Event | None:
        """What happened, oldest first; None: nothing more."""
        return self._events.popleft() if self._events else None

    def take_output(self) -> list[Output]:
        """What is to be written to the streams, in order."""
        output, self._output = self._output, []
        return output

    # inside

    @property
    def _unproven(self) -> bool:
        return self._writer == "R" and self.phase in (Phase.HANDSHAKE, Phase.DECIDING)

    def _advance(self, step: str) -> None:
        following = PHASES.get((self.phase, step))
        if following is None:
            raise PeerError("out-of-order", "A message from the other node came out of order.")
        self.phase = following

    def _is_theirs(self, stream_id: int) -> bool:
        return stream_id % 2 == (1 if self._writer == "I" else 0)

    def _add(self, stream_id: int) -> _Lane:
        keys = self._machine.keys
        limit = _SESSION_MESSAGE_MAX_BYTES if stream_id == SESSION_STREAM else self._message_max_bytes
        lane = _Lane(
            Sealer(keys.control(self._writer, stream_id), message_max_bytes=limit),
            Opener(keys.control(self._reader, stream_id), message_max_bytes=limit),
        )
        self._streams[stream_id] = lane
        return lane

    def _say(self, message: bytes) -> None:
        self._output.append(Output(SESSION_STREAM, frame(message), False))

    def _say_sealed(self, message: bytes) -> None:
        self.send(SESSION_STREAM, message)

    def _open(self) -> None:
        self._deadline = None
        if SESSION_STREAM not in self._streams:
            self._add(SESSION_STREAM)
        self.k_lane = self._machine.keys.lane
        self._events.append(Ready(self._machine.peer))

    def _close(self, code: str, *, whose: str, silent: bool, error: LabxchangeError | None = None) -> None:
        if self.phase is Phase.CLOSED:
            return
        self._advance("closed")
        self._deadline = None
        self._streams.clear()
        self._handshake_buffer.clear()
        self._output.clear()
        self._events.append(SessionClosed(code, whose, silent, error))

    def _receive_stream(self, stream_id: int, data: bytes, *, end: bool) -> None:
        if self.phase is not Phase.OPEN:
            raise PeerError("out-of-order", "The other node sent data before the handshake ended.")
        lane = self._streams.get(stream_id)
        if lane is None:
            if not self._is_theirs(stream_id) or stream_id in self._forgotten:
                return
            lane = self._add(stream_id)
            self._events.append(StreamOpened(stream_id))
        for message in lane.opener.receive(data):
            if message.data is None:
                self._events.append(StreamEnded(stream_id, message.wire_bytes))
                continue
            self._events.append(Message(stream_id, message.data, message.wire_bytes))
            if message.last:
                self._events.append(StreamEnded(stream_id, 0))
        if end:
            lane.opener.finish()

    def _receive_session(self, data: bytes, *, end: bool) -> None:
        if SESSION_STREAM in self._streams:
            self._receive_sealed(data)
        else:
            self._receive_handshake(data)
        if end and self.phase is not Phase.CLOSED:
            raise PeerError("cut-short", "The other node ended the session's own stream.")

    def _receive_handshake(self, data: bytes) -> None:
        buffer = self._handshake_buffer
        buffer += data
        while len(buffer) >= 4 and SESSION_STREAM not in self._streams:
            length = int.from_bytes(buffer[:4], "big")
            if length > HANDSHAKE_MAX_BYTES or self.phase is Phase.DECIDING:
                raise PeerError("handshake-failed", "The handshake with the other node failed: a message is not expected.")
            if len(buffer) < 4 + length:
                return
            message = bytes(buffer[4 : 4 + length])
            del buffer[: 4 + length]
            self._receive_handshake_message(message)
        if buffer and SESSION_STREAM in self._streams:
            rest = bytes(buffer)
            buffer.clear()
            self._receive_sealed(rest)
        elif buffer and self.phase is Phase.DECIDING:
            raise PeerError("handshake-failed", "The handshake with the other node failed: a message is not expected.")

    def _receive_handshake_message(self, message: bytes) -> None:
        machine = self._machine
        if isinstance(machine, Initiator):
            self._say(machine.receive_m2(message))
            self._add(SESSION_STREAM)
        elif machine.state is State.AWAIT_M1:
            self._say(machine.receive_m1(message))
        else:
            peer = machine.receive_m3(message)
            self._advance("m3 received")
            self._events.append(PeerProven(peer))

    def _receive_sealed(self, data: bytes) -> None:
        lane = self._streams[SESSION_STREAM]
        for message in lane.opener.receive(data):
            if message.data is None:
                raise PeerError("out-of-order", "The other node ended the session's own stream.")
            if self.phase is Phase.HANDSHAKE:
                assert isinstance(self._machine, Initiator)
                self._machine.receive_answer(message.data)
                self._advance("m4 received")
                self._open()
            else:
                self._receive_session_message(message.data)

    def _receive_session_message(self, message: bytes) -> None:
        word, generation, value = unframe(message, 3, max_part=_SESSION_MESSAGE_MAX_BYTES)
        expected = generation == (self.generation + 1).to_bytes(8, "big")
        if word == b"rekey" and self._writer == "R" and expected:
            self.k_lane, answer = self._make_rekey_answer(self.k_lane, value)
            self._say_sealed(frame("rekeyed", self.generation + 1, answer))
        elif word == b"rekeyed" and self._rekey is not None and expected:
            self.k_lane = self._rekey.finish(self.k_lane, value)
            self._rekey = None
        else:
            raise PeerError("malformed-message", "A session message from the other node is malformed or not expected.")
        self.generation += 1
        self._events.append(LaneKeyChanged(self.generation))
