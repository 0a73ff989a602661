"""What a node and its lane workers say to each other, and a worker and its writer, over pairs of sockets that nobody else has.

Each message is a u32 length and msgpack; both sides are the same software, so a message that does not parse is a defect and
raises. Keys go this way and no other. Ranges are bytes [start, end) of the line of a listing.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

import msgspec

from labxchange.wire.data.datagram import Cipher

_LENGTH: Final = struct.Struct(">I")


class LaneMessage(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """Common form."""


# --- node to worker ---------------------------------------------------------------------------------------------------
class Prepare(LaneMessage, frozen=True, kw_only=True, tag=10):
    """Something may be received soon: start the writer, which takes a fifth of a second."""


class SendJob(LaneMessage, frozen=True, kw_only=True, tag=1):
    """A share version to send from: ``sources`` is an encoded ``files.scan.Sources``, ``listing`` the body of the listing."""

    job: int
    sources: bytes
    listing: bytes


class ReceiveJob(LaneMessage, frozen=True, kw_only=True, tag=2):
    """A transfer to receive; lanes may be opened for it before it is known what."""

    job: int


class Contents(LaneMessage, frozen=True, kw_only=True, tag=9):
    """What a job receives, and where to; ``sizes`` are int64, one a file, in the machine's byte order."""

    job: int
    transfer: str
    destination: bytes
    sizes: bytes


class OpenLane(LaneMessage, frozen=True, kw_only=True, tag=3):
    """Open a lane of a job. ``remote`` is where the other side listens, or empty: it will call at this worker's own socket, from
    ``host`` as a rule, which has answered there over QUIC."""

    job: int
    lane: bytes
    write: bytes
    read: bytes
    cipher: Cipher
    slot: int
    remote: tuple[str, int] | None
    host: str
    cap_bytes_s: float


class Ask(LaneMessage, frozen=True, kw_only=True, tag=4):
    """Send (or expect) these chunks: (first chunk, last chunk) and the bytes of the line that they are."""

    lane: bytes
    request: int
    ranges: list[tuple[int, int]]


class Skip(LaneMessage, frozen=True, kw_only=True, tag=8):
    """These chunks, which a lane was to receive, do not come: what else is in their units need not wait for them."""

    lane: bytes
    chunks: list[tuple[int, int]]


class Cap(LaneMessage, frozen=True, kw_only=True, tag=5):
    """At most so much from now on; 0 is no limit."""

    lane: bytes
    cap_bytes_s: float


class CloseLane(LaneMessage, frozen=True, kw_only=True, tag=6):
    """The lane is over."""

    lane: bytes


class CloseJob(LaneMessage, frozen=True, kw_only=True, tag=7):
    """The job and its lanes are over; answered by ``JobClosed`` when nothing is written any more."""

    job: int


Order = Prepare | SendJob | ReceiveJob | Contents | OpenLane | Ask | Skip | Cap | CloseLane | CloseJob


# --- worker to node ---------------------------------------------------------------------------------------------------
class LaneUp(LaneMessage, frozen=True, kw_only=True, tag=11):
    """The other side was heard."""

    lane: bytes


class LaneOver(LaneMessage, frozen=True, kw_only=True, tag=12):
    """The lane failed: nothing more comes of it."""

    lane: bytes
    code: str
    sentence: str


class LaneWorn(LaneMessage, frozen=True, kw_only=True, tag=13):
    """A new lane is due."""

    lane: bytes
    why: str


class LaneMoved(LaneMessage, frozen=True, kw_only=True, tag=14):
    """The other side answers from another address than before."""

    lane: bytes
    before: str
    address: str


class Sent(LaneMessage, frozen=True, kw_only=True, tag=15):
    """All of a request was sent once, but for files that are not as they were listed: (file, reason)."""

    lane: bytes
    request: int
    gone: list[tuple[int, str]]


class Came(msgspec.Struct, frozen=True, array_like=True):
    """A chunk that is written: its BLAKE3, and the SHA-256 of its file when that is complete and was at hand."""

    chunk: int
    digest: bytes
    record: bytes


class Chunks(LaneMessage, frozen=True, kw_only=True, tag=16):
    """What came since the last such message."""

    job: int
    chunks: list[Came]


class Trouble(LaneMessage, frozen=True, kw_only=True, tag=17):
    """This machine cannot write (or read) on: a disk that is full, a folder that is not ours."""

    job: int
    kind: str
    code: str
    sentence: str
    hint: str


class JobClosed(LaneMessage, frozen=True, kw_only=True, tag=18):
    """Nothing is written any more."""

    job: int


class LaneStats(LaneMessage, frozen=True, kw_only=True, tag=19):
    """How a lane is doing; bytes are whole UDP payloads. ``rate_bytes_s`` is of the last second; ``packets`` were sent, or are
    due as far as the receiver knows, and ``lost_packets`` of them did not arrive; ``limit`` is what holds the lane back:
    network, disk, cpu, peer, cap, or nothing that is known."""

    lane: bytes
    sending: bool
    rate_bytes_s: float
    rtt_s: float
    sent_bytes: int
    received_bytes: int
    resent_bytes: int
    lost_packets: int
    packets: int
    forged: int
    dropped_here: int
    datagram_bytes: int
    datagrams_per_call: float
    limit: str


# --- worker to its writer, and back -----------------------------------------------------------------------------------
class Store(LaneMessage, frozen=True, kw_only=True, tag=21):
    """Write the unit from ``start`` of the line on, which lies in a slot, or, when that is None, in ``data``."""

    start: int
    length: int
    chunks: tuple[int, int]
    slot: int | None
    data: bytes


class Stored(LaneMessage, frozen=True, kw_only=True, tag=22):
    """The next unit is written, and with it these chunks are whole."""

    chunks: list[Came]


News = LaneUp | LaneOver | LaneWorn | LaneMoved | Sent | Chunks | Trouble | JobClosed | LaneStats

_orders = msgspec.msgpack.Decoder(Order)
_news = msgspec.msgpack.Decoder(News)
_store = msgspec.msgpack.Decoder(Contents | Store)
_stored = msgspec.msgpack.Decoder(Stored | Trouble)


def encode(message: LaneMessage) -> bytes:
    """Length and msgpack."""
    data = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(data)) + data


class Inbox:
    """Whole messages out of a stream of bytes."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, data: bytes | memoryview) -> list[bytes]:
        """The messages that ``data`` completes."""
        self._data += data
        out, position = [], 0
        while position + _LENGTH.size <= len(self._data):
            (length,) = _LENGTH.unpack_from(self._data, position)
            end = position + _LENGTH.size + length
            if end > len(self._data):
                break
            out.append(bytes(self._data[position + _LENGTH.size : end]))
            position = end
        del self._data[:position]
        return out


class Outbox:
    """Messages for a socket that does not block, as many of them as it takes now; who is no longer there gets nothing."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._data = bytearray()

    def say(self, message: LaneMessage) -> None:
        self._data += encode(message)
        self.flush()

    def flush(self) -> bool:
        """Whether nothing waits any more."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._data:
                count = self._socket.send(self._data)
                del self._data[:count]
        return not self._data


def decode_order(data: bytes) -> Order:
    order: Order = _orders.decode(data)
    return order


def decode_news(data: bytes) -> News:
    news: News = _news.decode(data)
    return news


def decode_store(data: bytes) -> Contents | Store:
    message: Contents | Store = _store.decode(data)
    return message


def decode_stored(data: bytes) -> Stored | Trouble:
    message: Stored | Trouble = _stored.decode(data)
    return message
