"""What two nodes say to each other once both identities are proven: msgpack values, one request a stream.

The side that opens a stream sends one request; the other answers as the request's docstring says, and the stream ends. Every
list and text is bounded here, before anything looks at it. What a request may see is left to ``sharing.policy``.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec

from labxchange.encoding import pack, unpack
from labxchange.errors import PeerError
from labxchange.wire.data.datagram import Cipher

MESSAGE_MAX_BYTES = (1 << 20) + (1 << 16)
PAGE_BYTES = 1 << 20
FIRST_DIGESTS_BYTES = 1 << 13
PIECE_BYTES = 1 << 18
MAX_STATEMENTS = 64
GONE_MAX = 4096
LANES_MAX = 16

Envelope = Annotated[bytes, msgspec.Meta(max_length=131_072)]
Id = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}\\Z")]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Note = Annotated[str, msgspec.Meta(max_length=8000)]
Lane = Annotated[bytes, msgspec.Meta(min_length=6, max_length=6)]
MaybeLane = Annotated[bytes, msgspec.Meta(max_length=6)]
Slot = Annotated[int, msgspec.Meta(ge=0, le=63)]
Priority = Literal["low", "normal", "high"]


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, array_like=True):
    """Common form: a tagged msgpack array."""


class Deliver(Message, frozen=True, kw_only=True, tag="deliver"):
    """Here are statements. Answer: Taken."""

    statements: Annotated[list[Envelope], msgspec.Meta(max_length=MAX_STATEMENTS)]


class Waiting(Message, frozen=True, kw_only=True, tag="waiting"):
    """Something waits for you once we have verified each other: the number of offers, no more. Answer: Taken."""

    offers: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class GetPage(Message, frozen=True, kw_only=True, tag="get-page"):
    """Page ``number`` (1 MiB each) of a detached body of a share version. Answer: PageOf or Refused."""

    body: Literal["listing", "manifest", "digests"]
    share: Id
    version: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    number: Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]


class GetDigests(Message, frozen=True, kw_only=True, tag="get-digests"):
    """The digests of the chunks from ``first_chunk`` on, as far as they are known by now: from chunk 0 on at most 256, which come
    in one round trip, later a page. Answer: Announced, at the latest after some 20 s, or Refused."""

    share: Id
    version: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    first_chunk: Number


class Begin(Message, frozen=True, kw_only=True, tag="begin"):
    """I want to start or resume a transfer. Answer: Nonce or Refused; then comes Accepting, answered by Started or Refused."""

    transfer: Id


class Fetch(Message, frozen=True, kw_only=True, tag="fetch"):
    """Send the chunks of these inclusive intervals (at most 32 MiB), here or over the lane that is named. Answer: without a lane
    Pieces ...; then, once all was sent, Fetched, or Refused."""

    transfer: Id
    chunks: Annotated[list[tuple[Number, Number]], msgspec.Meta(min_length=1, max_length=4096)]
    lane: MaybeLane = b""


class OpenLanes(Message, frozen=True, kw_only=True, tag="open-lanes"):
    """Open these lanes for a transfer; ids are never used twice. ``slots`` and ``offsets`` say where the asking side's workers
    listen, when it is the one that was dialled: the slot, and what its port is above that of QUIC. Answer: LanesOpen or Refused.
    ``generation`` is that of K_lane. The stream stays open as long as the lanes: who asked ends it. ``rate_bytes_s`` and
    ``priority`` as in LaneRate."""

    transfer: Id
    lanes: Annotated[list[Lane], msgspec.Meta(min_length=1, max_length=LANES_MAX)]
    slots: Annotated[list[Slot], msgspec.Meta(max_length=LANES_MAX)] = []
    offsets: Annotated[list[Slot], msgspec.Meta(max_length=LANES_MAX)] = []
    cipher: Cipher
    generation: Number
    rate_bytes_s: Number = 0
    priority: Priority = "normal"


class LaneRate(Message, frozen=True, kw_only=True, tag="lane-rate"):
    """On the stream of OpenLanes, when the asking side likes: send no faster than this over all lanes of the transfer; 0
    is no limit. ``priority`` counts among what goes to the asking side, where the sender has not chosen one."""

    rate_bytes_s: Number
    priority: Priority


class LanesDone(Message, frozen=True, kw_only=True, tag="lanes-done"):
    """On the stream of OpenLanes: these of its lanes are over, the others stay."""

    lanes: Annotated[list[Lane], msgspec.Meta(min_length=1, max_length=LANES_MAX)]


LaneWord = LaneRate | LanesDone


class Witness(Message, frozen=True, kw_only=True, tag="witness"):
    """The head of my trail: please cosign. Answer: AskProof; then comes Consistency, answered by Cosigned or Refused."""

    note: Note


Request = Deliver | Waiting | GetPage | GetDigests | Begin | Fetch | OpenLanes | Witness


class Taken(Message, frozen=True, kw_only=True, tag="taken"):
    """The statements were read; in return come these (acknowledgements, refusals)."""

    statements: Annotated[list[Envelope], msgspec.Meta(max_length=MAX_STATEMENTS)] = []


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """No: a signed refusal or cut says why."""

    statement: Envelope


class PageOf(Message, frozen=True, kw_only=True, tag="page"):
    """The bytes of a page, perhaps deflated (``pages``); ``last`` when none follows."""

    data: Annotated[bytes, msgspec.Meta(max_length=PAGE_BYTES)]
    last: bool
    deflated: bool = False


class Announced(Message, frozen=True, kw_only=True, tag="announced"):
    """32 bytes for each chunk from the one asked for on; none when there is nothing new yet: ask again. ``manifest``: its
    envelope, once hashing ended."""

    data: Annotated[bytes, msgspec.Meta(max_length=PAGE_BYTES)]
    manifest: Envelope = b""


class Nonce(Message, frozen=True, kw_only=True, tag="nonce"):
    """Prove who you are over these fresh bytes."""

    nonce: Hash


class Accepting(Message, frozen=True, kw_only=True, tag="accepting"):
    """The signed accept."""

    statement: Envelope


class Started(Message, frozen=True, kw_only=True, tag="started"):
    """The transfer runs; ``manifest`` is the envelope of the share version's manifest, empty while the sender still hashes."""

    manifest: Envelope


class Piece(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Bytes of one chunk from ``offset`` on."""

    chunk: Number
    offset: Number
    data: bytes


class Pieces(Message, frozen=True, kw_only=True, tag="pieces"):
    """Bytes of one or more chunks."""

    pieces: Annotated[list[Piece], msgspec.Meta(max_length=4096)]


class Gone(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A file that cannot be sent as it was listed, and why."""

    file: Number
    reason: Annotated[str, msgspec.Meta(pattern="^[a-z0-9-]{1,64}\\Z")]


class Fetched(Message, frozen=True, kw_only=True, tag="fetched"):
    """All that was asked for was sent, but for the chunks of these files; a full list may leave out more of them."""

    gone: Annotated[list[Gone], msgspec.Meta(max_length=GONE_MAX)]


class LanesOpen(Message, frozen=True, kw_only=True, tag="lanes-open"):
    """The lanes wait; ``slots`` and ``offsets`` as in OpenLanes."""

    slots: Annotated[list[Slot], msgspec.Meta(max_length=LANES_MAX)] = []
    offsets: Annotated[list[Slot], msgspec.Meta(max_length=LANES_MAX)] = []


class AskProof(Message, frozen=True, kw_only=True, tag="ask-proof"):
    """Prove growth from the first of these sizes of your trail that it still holds: those I saw, newest first; none at first
    sight. ``epoch`` is that of the newest."""

    epoch: Number
    sizes: Annotated[list[Number], msgspec.Meta(max_length=256)]


class Consistency(Message, frozen=True, kw_only=True, tag="consistency"):
    """The RFC 6962 proof from ``old`` to the note's size; in a new epoch also its first leaf and that leaf's inclusion proof."""

    old: Number
    proof: Annotated[list[Hash], msgspec.Meta(max_length=64)]
    first_leaf: Annotated[bytes, msgspec.Meta(max_length=65_535)] = b""
    first_proof: Annotated[list[Hash], msgspec.Meta(max_length=64)] = []


class Cosigned(Message, frozen=True, kw_only=True, tag="cosigned"):
    """The cosignature line."""

    line: Annotated[str, msgspec.Meta(max_length=1000)]


Answer = Taken | Refused | PageOf | Announced | Nonce | Started | Pieces | Fetched | LanesOpen | AskProof | Cosigned
M = TypeVar("M")


def encode(message: Message) -> bytes:
    """msgpack."""
    return pack(message)


def decode_request(data: bytes) -> Request:
    """Raises PeerError ``malformed-message``."""
    return unpack(data, Request, max_bytes=MESSAGE_MAX_BYTES)  # type: ignore[arg-type]


def decode_answer(data: bytes | None) -> Answer:
    """Raises PeerError ``malformed-message``, or ``stream-ended`` where an answer was due and the stream ended."""
    if data is None:
        raise PeerError("stream-ended", "The other node ended the conversation where an answer was due.")
    return unpack(data, Answer, max_bytes=MESSAGE_MAX_BYTES)  # type: ignore[arg-type]


def decode_lane_word(data: bytes) -> LaneWord:
    """What follows OpenLanes on its stream. Raises PeerError ``malformed-message``."""
    return unpack(data, LaneWord, max_bytes=MESSAGE_MAX_BYTES)  # type: ignore[arg-type]


def decode(data: bytes | None, kind: type[M]) -> M:
    """One message of exactly ``kind``; errors as in ``decode_answer``."""
    if data is None:
        raise PeerError("stream-ended", "The other node ended the conversation where an answer was due.")
    return unpack(data, kind, max_bytes=MESSAGE_MAX_BYTES)
