"""Sealed records: how messages travel on one direction of one stream after m3.

record = u32 length (at most 64 KiB) || AES-256-GCM, nonce = iv xor record number, AAD = the length. The first byte of the plain
text says what the record is: 0 a piece of a message, 1 the end of a message, 2 the end of a message and of the stream, 3 the
end of the stream alone. Rules kept here: a record's number is never used twice; nothing follows the stream's end; a stream cut
short, a record that does not open or a message over the limit is an error for good. Flow control is left to ``net``: each
message says how many bytes of the stream carried it.
"""

from __future__ import annotations

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from labxchange.errors import PeerError

RECORD_MAX_BYTES = 65_536
"""Sealed bytes of a record, tag included, its length field not."""
MESSAGE_MAX_BYTES = (1 << 20) + (1 << 16)

_TAG_BYTES = 16
_PIECE_MAX_BYTES = RECORD_MAX_BYTES - _TAG_BYTES - 1
_RECORDS_MAX = 1 << 48
_CONTINUES, _ENDS, _ENDS_STREAM, _STREAM_ENDED = range(4)


class Message(msgspec.Struct, frozen=True):
    """One whole message and the bytes of the stream that carried it; ``data`` is None for the end of the stream alone."""

    data: bytes | None
    wire_bytes: int
    last: bool


class _Cipher:
    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key[:32])
        self._iv = int.from_bytes(key[32:44], "big")
        self._number = 0

    def _nonce(self) -> bytes:
        if self._number >= _RECORDS_MAX:
            raise RuntimeError("a stream has used up its record numbers")
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return nonce


class Sealer(_Cipher):
    """Turns messages into sealed records; ``key`` is 32 bytes of key and 12 of iv."""

    def __init__(self, key: bytes, *, message_max_bytes: int = MESSAGE_MAX_BYTES) -> None:
        super().__init__(key)
        self._message_max_bytes = message_max_bytes
        self.ended = False

    def message(self, data: bytes, *, last: bool = False) -> bytes:
        """The records of one message; ``last`` ends the stream with it."""
        if len(data) > self._message_max_bytes:
            raise ValueError(f"a message is longer than {self._message_max_bytes} bytes")
        view = memoryview(data)
        records = []
        while len(view) > _PIECE_MAX_BYTES:
            records.append(self._record(_CONTINUES, view[:_PIECE_MAX_BYTES]))
            view = view[_PIECE_MAX_BYTES:]
        records.append(self._record(_ENDS_STREAM if last else _ENDS, view))
        return b"".join(records)

    def end(self) -> bytes:
        """The record that ends the stream without a message."""
        return self._record(_STREAM_ENDED, memoryview(b""))

    def _record(self, flag: int, piece: memoryview[int]) -> bytes:
        if self.ended:
            raise RuntimeError("the stream has ended")
        self.ended = flag >= _ENDS_STREAM
        length = (1 + len(piece) + _TAG_BYTES).to_bytes(4, "big")
        return length + self._aead.encrypt(self._nonce(), bytes((flag,)) + piece, length)


class Opener(_Cipher):
    """Turns a stream's bytes back into messages; ``key`` is 32 bytes of key and 12 of iv."""

    def __init__(self, key: bytes, *, message_max_bytes: int = MESSAGE_MAX_BYTES) -> None:
        super().__init__(key)
        self._message_max_bytes = message_max_bytes
        self._buffer = bytearray()
        self._pieces: list[bytes] = []
        self._size = self._wire_bytes = 0
        self._failed = False
        self.ended = False

    def receive(self, data: bytes) -> list[Message]:
        """Whole messages after ``data``; raises PeerError ``bad-record`` or ``message-too-long``."""
        if self._failed:
            raise PeerError("bad-record", "A stream that failed goes on.")
        try:
            return self._receive(data)
        except PeerError:
            self._failed = True
            self._buffer.clear()
            self._pieces.clear()
            raise

    def finish(self) -> None:
        """The transport says the stream is over; raises PeerError ``cut-short`` unless its last record said so too."""
        if not self.ended or self._buffer:
            self._failed = True
            raise PeerError("cut-short", "A stream from the other node was cut short.")

    def _receive(self, data: bytes) -> list[Message]:
        self._buffer += data
        messages: list[Message] = []
        position = 0
        while len(self._buffer) - position >= 4 or (self.ended and position < len(self._buffer)):
            length = int.from_bytes(self._buffer[position : position + 4], "big")
            if self.ended or not _TAG_BYTES < length <= RECORD_MAX_BYTES:
                raise PeerError("bad-record", "A record from the other node is malformed or comes after the end.")
            end = position + 4 + length
            if end > len(self._buffer):
                break
            with memoryview(self._buffer) as view:
                try:
                    plain = self._aead.decrypt(self._nonce(), view[position + 4 : end], view[position : position + 4])
                except InvalidTag:
                    raise PeerError("bad-record", "A record from the other node does not open.") from None
            self._wire_bytes += 4 + length
            position = end
            message = self._piece(plain)
            if message is not None:
                messages.append(message)
        del self._buffer[:position]
        return messages

    def _piece(self, plain: bytes) -> Message | None:
        flag = plain[0]
        if flag > _STREAM_ENDED or (flag == _CONTINUES and len(plain) == 1):
            raise PeerError("bad-record", "A record from the other node is of an unknown kind.")
        if flag == _STREAM_ENDED:
            if self._pieces or len(plain) > 1:
                raise PeerError("bad-record", "A stream from the other node ends within a message.")
            self.ended = True
            return self._message(None, last=True)
        self._size += len(plain) - 1
        if self._size > self._message_max_bytes:
            raise PeerError("message-too-long", "A message from the other node is longer than allowed.")
        self._pieces.append(plain[1:])
        if flag == _CONTINUES:
            return None
        self.ended = flag == _ENDS_STREAM
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        return self._message(data, last=self.ended)

    def _message(self, data: bytes | None, *, last: bool) -> Message:
        message = Message(data, self._wire_bytes, last)
        self._pieces.clear()
        self._size = self._wire_bytes = 0
        return message
