"""The status report: what a receiver tells its sender many times a second.

Its bit map names each packet of the last ones, not what is new, so a lost report costs nothing. Payload: u32 newest number, u32
microseconds since it came, u64 the receiver's clock in microseconds now, u64 bytes that arrived in all, u32 datagrams
that this machine dropped, u32 datagrams that did not open, u16 length of the bit map in bytes, bit map; bit i (of byte i // 8,
lowest first) says that number ``newest - i`` arrived. Integers are big-endian. When reports are sent is left to ``receiver``.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from labxchange.errors import PeerError

_HEAD: Final = struct.Struct(">IIQQIIH")
MAP_BYTES_MAX: Final = 1_200 - 36 - _HEAD.size
"""So that a report fits into the datagram that every path carries: 9,040 numbers."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One report; ``came[i]`` says whether number ``newest - len(came) + 1 + i`` arrived."""

    newest: int
    held_us: int
    clock_us: int
    bytes: int
    dropped: int
    forged: int
    came: NDArray[np.bool_]

    @property
    def first(self) -> int:
        """The number that ``came`` begins with."""
        return self.newest - len(self.came) + 1


def encode(
    *,
    newest: int,
    held_us: int,
    clock_us: int,
    total_bytes: int,
    dropped: int,
    forged: int,
    arrived: NDArray[np.bool_],
) -> bytes:
    """The payload; ``arrived[i]`` is about number ``newest - i``, at most 8 times ``MAP_BYTES_MAX`` of them."""
    bits = np.packbits(arrived, bitorder="little").tobytes()
    head = _HEAD.pack(
        newest,
        min(held_us, 0xFFFFFFFF),
        clock_us,
        total_bytes,
        min(dropped, 0xFFFFFFFF),
        min(forged, 0xFFFFFFFF),
        len(bits),
    )
    return head + bits


def decode(payload: memoryview) -> Status:
    """Raises PeerError ``malformed-status``."""
    if len(payload) < _HEAD.size:
        raise PeerError("malformed-status", "The other node sent a status report that is cut short.")
    newest, held_us, clock_us, total, dropped, forged, length = _HEAD.unpack_from(payload)
    if length > MAP_BYTES_MAX or len(payload) != _HEAD.size + length or not length or not payload[_HEAD.size] & 1:
        raise PeerError("malformed-status", "The other node sent a status report that does not parse.")
    bits = np.unpackbits(np.frombuffer(payload, np.uint8, offset=_HEAD.size), bitorder="little")
    if len(bits) > newest + 1 and np.count_nonzero(bits[newest + 1 :]):
        raise PeerError("malformed-status", "The other node reported packet numbers below zero.")
    return Status(
        newest=newest,
        held_us=held_us,
        clock_us=clock_us,
        bytes=total,
        dropped=dropped,
        forged=forged,
        came=bits[newest::-1].view(np.bool_),
    )
