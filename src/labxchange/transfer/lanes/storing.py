"""What becomes of complete units of a transfer that is received over lanes: written to their parts, hashed, told.

The BLAKE3 of each chunk is taken as it is written; the SHA-256 of each file is carried along as its chunks come in order, and
behind them over those that came before their turn. A file of which another life of the transfer received a part has no such
digest: who asked reads it back. Flushing, comparing and releasing are the node's.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final, NamedTuple

from blake3 import blake3

from labxchange.dataset.listing import Line
from labxchange.files.quarantine import Quarantine
from labxchange.transfer.lanes.messages import Came
from labxchange.wire.data.assembly import UNIT_BYTES

_READ_BYTES: Final = 1 << 20
_OPEN_HASHES: Final = 64


class _Record:
    """The SHA-256 of a file as far as it goes, and the pieces that are written beyond: start -> end."""

    __slots__ = ("beyond", "hasher", "position")

    def __init__(self) -> None:
        self.hasher: Any = sha256()
        self.position = 0
        self.beyond: dict[int, int] = {}


class _Written(NamedTuple):
    """A chunk, or a piece of one, at ``offset`` of a file: the BLAKE3 of the chunk if it is whole, and the SHA-256 of the file if
    the chunk is all of it."""

    chunk: int
    file: int
    offset: int
    data: memoryview
    digest: bytes
    record: bytes


class Storing:
    """The parts of one transfer, and the digests that are not whole yet."""

    def __init__(self, quarantine: Quarantine, line: Line) -> None:
        self._quarantine = quarantine
        self._line = line
        self._records: dict[int, _Record] = {}
        self._pieces: dict[int, set[int]] = {}

    def store(self, start: int, chunks: tuple[int, int], data: memoryview) -> list[Came]:
        """Write a unit that begins at ``start`` of the line; returns what is told of those of its chunks that are whole now.

        Raises:
            LabxchangeError: the disk cannot be written.
        """
        came = [(piece, piece.record or self._follow(piece)) for piece in self._write(start, chunks, data)]
        return [Came(piece.chunk, piece.digest, record) for piece, record in came if piece.digest]

    def _write(self, start: int, chunks: tuple[int, int], data: memoryview) -> list[_Written]:
        first, last = chunks
        if first == last:
            return [self._write_piece(first, start, data)]
        out = []
        for chunk in range(first, last + 1):
            place = self._line.chunk_at(chunk)
            begin = place.offset - start
            out.append(self._write_piece(chunk, place.offset, data[begin : begin + place.length]))
        return out

    def _write_piece(self, chunk: int, start: int, data: memoryview) -> _Written:
        """A chunk, or a piece of one that is larger than a unit."""
        place = self._line.chunk_at(chunk)
        file_offset = place.file_offset + start - place.offset
        self._quarantine.write(place.file, file_offset, data)
        if len(data) == place.length:
            digest = blake3(data).digest()
            record: bytes = sha256(data).digest() if len(data) == int(self._line.size[place.file]) else b""
            return _Written(chunk, place.file, file_offset, data, digest, record)
        pieces = self._pieces.setdefault(chunk, set())
        pieces.add(start)
        digest = b""
        if len(pieces) == -(-place.length // UNIT_BYTES):
            del self._pieces[chunk]
            digest = self._read_back(place.file, place.file_offset, place.length)
        return _Written(chunk, place.file, file_offset, data, digest, b"")

    def _read_back(self, file: int, offset: int, length: int) -> bytes:
        digest, view = blake3(), memoryview(bytearray(UNIT_BYTES))
        for start in range(0, length, UNIT_BYTES):
            part = view[: min(UNIT_BYTES, length - start)]
            self._quarantine.read_into(file, offset + start, part)
            digest.update(part)
        return digest.digest()

    def _follow(self, piece: _Written) -> bytes:
        """Carry the SHA-256 of a file on; its digest when that was the end of it."""
        file, offset, data = piece.file, piece.offset, piece.data
        record = self._records.get(file)
        if record is None:
            if len(self._records) >= _OPEN_HASHES:
                del self._records[next(iter(self._records))]
            record = self._records[file] = _Record()
        if offset != record.position:
            if offset > record.position:
                record.beyond[offset] = offset + len(data)
            return b""
        record.hasher.update(data)
        record.position += len(data)
        while (end := record.beyond.pop(record.position, 0)) > record.position:
            view = memoryview(bytearray(min(_READ_BYTES, end - record.position)))
            while record.position < end:
                part = view[: min(len(view), end - record.position)]
                self._quarantine.read_into(file, record.position, part)
                record.hasher.update(part)
                record.position += len(part)
        if record.position < int(self._line.size[file]):
            return b""
        digest: bytes = record.hasher.digest()
        del self._records[file]
        return digest
