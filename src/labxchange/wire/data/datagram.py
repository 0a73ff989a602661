"""The datagrams of a lane: header, keys, and sealing and opening them many at a time.

A datagram is a header of 20 bytes, all of it authenticated, then the AEAD's ciphertext and its tag of 16 bytes. Header: worker
slot u8 (1 to 63 towards the listening side, 0 back), kind u8, lane id (6 bytes), packet number u32, offset u64 in the line of
all listed bytes; integers are big-endian. A lane id names one key for each side that writes; nonce = iv xor packet number. What
is done once a batch is done in numpy; once a datagram there is one call of the AEAD and nothing else.

Which numbers were used or seen is left to ``lane``; what the payloads mean to ``status``, ``sender`` and ``receiver``.
"""

from __future__ import annotations

import struct
from collections import deque
from enum import IntEnum
from typing import Final, Literal, Protocol

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from numpy.typing import NDArray

from labxchange.identity.keys import derive

HEADER_BYTES: Final = 20
TAG_BYTES: Final = 16
OVERHEAD_BYTES: Final = HEADER_BYTES + TAG_BYTES
LANE_ID_BYTES: Final = 6
SECRET_BYTES: Final = 44
NONCE_BYTES: Final = 12
CALL_DATAGRAMS: Final = 44
CALL_BYTES: Final = 65_000
"""Of one system call: an IPv4 datagram before it is cut holds at most 65,507."""
BATCH_CALLS: Final = 16
BATCH_DATAGRAMS: Final = BATCH_CALLS * CALL_DATAGRAMS
BATCH_BYTES: Final = BATCH_CALLS * CALL_BYTES
"""What is handled together where there is so much: what numpy costs a batch is then paid once for sixteen system calls."""
SIZES: Final = (1_200, 1_452, 1_472, 8_972)
"""Sizes of a datagram (UDP payload): what every path carries, and what full frames of 1,500 (IPv6, IPv4) and 9,000 bytes hold."""
SIZE_MAX: Final = SIZES[-1]

Cipher = Literal["aes-256-gcm", "chacha20-poly1305"]
Writer = Literal["I", "R"]

HEADER: Final = np.dtype([("slot", "u1"), ("kind", "u1"), ("lane", "u1", 6), ("number", ">u4"), ("offset", ">u8")])
_HEADER: Final = struct.Struct(">BB6sIQ")
_SIZES_KEPT: Final = 8
_PLACES_KEPT: Final = 4
_ROWS: Final = np.arange(BATCH_DATAGRAMS, dtype=np.int64)


class Kind(IntEnum):
    """What a datagram carries."""

    DATA = 0
    STATUS = 1
    CHALLENGE = 2
    RESPONSE = 3
    PROBE = 4


class _Aead(Protocol):
    def encrypt_into(self, nonce: bytes | memoryview, data: memoryview, associated_data: memoryview, buf: memoryview) -> int: ...

    def decrypt_into(self, nonce: bytes | memoryview, data: memoryview, associated_data: memoryview, buf: memoryview) -> int: ...


def batch_rows(size: int) -> int:
    """How many datagrams of a size a batch holds: as many as fill its system calls."""
    return BATCH_CALLS * min(CALL_DATAGRAMS, CALL_BYTES // size)


def lane_secret(k_lane: bytes, lane: bytes, writer: Writer) -> bytes:
    """Key (32 bytes) and iv (12) of one direction of one lane."""
    return derive(k_lane, SECRET_BYTES, "labxchange lane v1", writer, lane)


class LaneKey:
    """What one direction of one lane is sealed with. Has no printable form."""

    def __init__(self, secret: bytes, lane: bytes, cipher: Cipher) -> None:
        self.lane = lane
        self.aead: _Aead = AESGCM(secret[:32]) if cipher == "aes-256-gcm" else ChaCha20Poly1305(secret[:32])
        self.iv = secret[32:]


Offsets = int | NDArray[np.int64]
"""Where in the line datagrams begin: one after the other from there on, or each at a place of its own."""


def offsets_of(offset: Offsets, count: int, room: int) -> NDArray[np.int64]:
    """The place of each."""
    return offset if isinstance(offset, np.ndarray) else _ROWS[:count] * room + offset


class _Nonces:
    """Nonces of a batch, in place: ``each`` of 12 bytes."""

    def __init__(self, iv: bytes) -> None:
        self._array = np.frombuffer(bytearray(iv * BATCH_DATAGRAMS), ">u4").reshape(BATCH_DATAGRAMS, 3)
        self._tail = int.from_bytes(iv[8:], "big")
        self._head = iv[:8]
        view = self._array.data.cast("B")
        self.each = [view[row * NONCE_BYTES : (row + 1) * NONCE_BYTES] for row in range(BATCH_DATAGRAMS)]

    def put(self, numbers: NDArray[np.int64]) -> None:
        """The nonces of these numbers, in their order."""
        self._array[: len(numbers), 2] = numbers ^ self._tail

    def one(self, number: int) -> bytes:
        """The nonce of this number."""
        return self._head + (number ^ self._tail).to_bytes(4, "big")


class Cuts:
    """Memory in which datagrams of a size lie one after the other from the start, cut into headers and bodies: for each of
    ``SIZES`` once, as that costs a fifth of opening them; others a peer chooses as it likes."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._known: dict[int, tuple[list[memoryview], list[memoryview]]] = {}

    def of(self, size: int, count: int) -> tuple[list[memoryview], list[memoryview]]:
        """Headers and bodies of ``count`` datagrams, or of more."""
        if size not in SIZES:
            return self._cut(size, count)
        known = self._known.get(size)
        if known is None:
            known = self._known[size] = self._cut(size, batch_rows(size))
        return known

    def _cut(self, size: int, count: int) -> tuple[list[memoryview], list[memoryview]]:
        begins, memory = range(0, count * size, size), self._memory
        heads = [memory[begin : begin + HEADER_BYTES] for begin in begins]
        return heads, [memory[begin + HEADER_BYTES : begin + size] for begin in begins]


class Sealer:
    """Seals batches of one lane and direction, into a buffer of its own. The caller never gives a packet number twice."""

    def __init__(self, key: LaneKey, *, slot: int) -> None:
        self._aead = key.aead
        self._nonces = _Nonces(key.iv)
        self._slot, self._lane = slot, key.lane
        headers = np.zeros(BATCH_DATAGRAMS, HEADER)
        headers["slot"] = slot
        headers["lane"] = np.frombuffer(key.lane, np.uint8)
        self._kind, self._number, self._offset = headers["kind"], headers["number"], headers["offset"]
        self._bytes = headers.view(np.uint8).reshape(BATCH_DATAGRAMS, HEADER_BYTES)
        self._out = memoryview(bytearray(BATCH_BYTES + SIZE_MAX))
        self._array = np.frombuffer(self._out, np.uint8)
        self._cuts = Cuts(self._out)
        self._parts: dict[tuple[int, int], list[memoryview]] = {}

    def seal(self, payload: memoryview, *, kind: Kind, number: int, offset: Offsets, size: int) -> memoryview:
        """Cut ``payload``, which begins at ``offset`` of the line, into datagrams of at most ``size`` bytes, at most
        ``BATCH_DATAGRAMS`` and together at most ``BATCH_BYTES``, with the packet numbers from ``number`` on.
        They lie one after the other in what is returned, which is good until the next call."""
        length, room = len(payload), size - OVERHEAD_BYTES
        count = max(1, -(-length // room))
        numbers = _ROWS[:count] + number
        self._kind[:count] = kind
        self._number[:count] = numbers
        self._offset[:count] = offsets_of(offset, count, room)
        self._nonces.put(numbers)
        nonces, encrypt = self._nonces.each, self._aead.encrypt_into
        whole = count if length == count * room else count - 1
        self._array[: whole * size].reshape(whole, size)[:, :HEADER_BYTES] = self._bytes[:whole]
        heads, bodies = self._cuts.of(size, whole)
        deque(map(encrypt, nonces, self._parts_of(payload, whole, room), heads, bodies), maxlen=0)
        end = whole * size
        if whole < count:
            self._array[end : end + HEADER_BYTES] = self._bytes[whole]
            rest, body_at = payload[whole * room :], end + HEADER_BYTES
            begin, end = end, body_at + len(rest) + TAG_BYTES
            encrypt(nonces[whole], rest, self._out[begin:body_at], self._out[body_at:end])
        return self._out[:end]

    def seal_one(self, payload: memoryview, *, kind: Kind, number: int) -> memoryview:
        """A datagram that carries no bytes of the line; good until the next call."""
        end = len(payload) + OVERHEAD_BYTES
        _HEADER.pack_into(self._out, 0, self._slot, kind, self._lane, number, 0)
        self._aead.encrypt_into(self._nonces.one(number), payload, self._out[:HEADER_BYTES], self._out[HEADER_BYTES:end])
        return self._out[:end]

    def _parts_of(self, payload: memoryview, count: int, room: int) -> list[memoryview]:
        """The first ``count`` pieces of ``room`` bytes. Large payloads begin at the same places of memory again and again, and to
        cut them costs a tenth of sealing them."""
        if 2 * count < batch_rows(room + OVERHEAD_BYTES):
            return _cut(payload, count, room)
        place = np.frombuffer(payload, np.uint8).__array_interface__["data"][0], room
        known = self._parts.get(place, [])
        if len(known) < count:
            if len(self._parts) >= _PLACES_KEPT:
                self._parts.clear()
            known = self._parts[place] = _cut(payload, count, room)
        return known[:count]


def _cut(memory: memoryview, count: int, size: int) -> list[memoryview]:
    return [memory[begin : begin + size] for begin in range(0, count * size, size)]


class Opener:
    """Opens datagrams of one lane and direction, into a buffer of its own. Which numbers may be opened is judged before."""

    def __init__(self, key: LaneKey) -> None:
        self._aead = key.aead
        self._nonces = _Nonces(key.iv)
        self._out = memoryview(bytearray(BATCH_BYTES))
        self._outs: dict[int, list[memoryview]] = {}

    def unseal(
        self,
        batch: memoryview,
        *,
        size: int,
        rows: NDArray[np.int64],
        numbers: NDArray[np.int64],
        cuts: Cuts | None = None,
    ) -> tuple[NDArray[np.int64], memoryview]:
        """Open the datagrams ``rows`` with ``numbers`` of a batch of datagrams of ``size`` bytes (the last may be shorter), which
        is not larger than ``batch_rows`` of that size; ``cuts`` are of the memory that begins with it. Returns those of ``rows``
        that are authentic, and a buffer, good until the next call, in which the payload of row r begins at ``r * (size - 36)``;
        where a row is not authentic, what is in its place is worthless."""
        self._nonces.put(numbers)
        nonces, decrypt, outs = self._nonces.each, self._aead.decrypt_into, self._outs_of(size, -(-len(batch) // size))
        opened: list[int] = []
        whole = len(batch) // size
        if cuts is not None and len(rows) >= whole and int(rows[whole - 1]) == whole - 1:  # all of them, one after the other
            heads, bodies = cuts.of(size, whole)
            try:
                opened.extend(map(decrypt, nonces, bodies[:whole], heads, outs))
            except InvalidTag:
                pass  # it is tried again below, and what follows is opened
        forged: list[int] = []
        room = size - OVERHEAD_BYTES
        for nonce, row in zip(nonces[len(opened) :], rows[len(opened) :].tolist(), strict=False):
            begin, end = row * size, min((row + 1) * size, len(batch))
            body = begin + HEADER_BYTES
            out = outs[row] if end - begin == size else self._out[row * room : row * room + end - begin - OVERHEAD_BYTES]
            try:
                decrypt(nonce, batch[body:end], batch[begin:body], out)
            except InvalidTag:
                forged.append(row)
        return (rows[~np.isin(rows, forged)] if forged else rows), self._out

    def unseal_one(self, datagram: memoryview, *, number: int) -> memoryview | None:
        """The payload of one datagram, good until the next call; None when it is not authentic."""
        out = self._out[: len(datagram) - OVERHEAD_BYTES]
        try:
            self._aead.decrypt_into(self._nonces.one(number), datagram[HEADER_BYTES:], datagram[:HEADER_BYTES], out)
        except InvalidTag:
            return None
        return out

    def _outs_of(self, size: int, count: int) -> list[memoryview]:
        """Where the payload of each datagram lies in what is returned."""
        if size not in self._outs and len(self._outs) >= _SIZES_KEPT:  # a peer chooses sizes as it likes
            self._outs.clear()
        known, room = self._outs.setdefault(size, []), size - OVERHEAD_BYTES
        for row in range(len(known), count):
            known.append(self._out[row * room : (row + 1) * room])
        return known


def headers_of(batch: memoryview, size: int) -> NDArray[np.void]:
    """The headers of a batch of datagrams of ``size`` bytes, of which the last may be shorter, where they lie; a cut off rest
    that is no datagram is left out."""
    length = len(batch)
    count = length // size + (length % size >= OVERHEAD_BYTES) if size >= OVERHEAD_BYTES else 0
    return np.ndarray(count, HEADER, batch, strides=(size,)) if count else np.zeros(0, HEADER)


def number_of(datagram: memoryview) -> int:
    """The packet number of one."""
    return int.from_bytes(datagram[8:12], "big")


def by_lane(batch: memoryview, size: int) -> list[tuple[bytes, memoryview]]:
    """A batch as one for each lane id in it: nearly always it is of one, and not copied. What anybody sends from the address of
    a lane is joined with what is of the lane, so the first datagram says nothing of the others."""
    if len(batch) <= size:
        return [(lane_of(batch), batch)]
    headers = headers_of(batch, size)
    words = np.ndarray(len(headers), np.uint64, batch, strides=(size,))  # slot, kind and lane id of each
    if not len(words) or not np.count_nonzero(words != words[0]):
        return [(lane_of(batch), batch)]
    ids, out = headers["lane"], []
    for lane in np.unique(ids, axis=0):
        rows = np.flatnonzero((ids == lane).all(axis=1)).tolist()
        out.append((lane.tobytes(), memoryview(b"".join(batch[row * size : (row + 1) * size] for row in rows))))
    return out


def lane_of(batch: memoryview) -> bytes:
    """The lane id of the first datagram of a batch; empty when it is none."""
    return bytes(batch[2:8]) if len(batch) >= OVERHEAD_BYTES else b""
