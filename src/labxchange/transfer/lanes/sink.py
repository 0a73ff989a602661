"""What becomes of complete units of a transfer that is received over lanes: written to their parts, hashed, told.

Two threads do it for one transfer, one after the other: the first writes and takes the BLAKE3 of each chunk, the second carries
the SHA-256 of each file along as its chunks come in order, and behind them over those that came before their turn. One thread for
both stood still for a third of its time, waiting for the loop's interpreter lock after each call. A file of which another life of
the transfer received a part has no such digest: who asked reads it back. Flushing, comparing and releasing are the node's.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from labxchange.dataset.listing import Line
from labxchange.errors import InputError, LabxchangeError, RefusedError
from labxchange.files.quarantine import Quarantine
from labxchange.transfer.lanes.messages import Came
from labxchange.wire.data.assembly import UNIT_BYTES, Unit

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


class LaneSink:
    """Writes and hashes in threads of its own.

    Args:
        written: called, from a thread, with a unit whose buffer is free again and what is told of its chunks.
        trouble: called, from a thread, when nothing can be written any more.
    """

    def __init__(
        self,
        quarantine: Quarantine,
        line: Line,
        *,
        written: Callable[[Unit, list[Came]], None],
        trouble: Callable[[LabxchangeError], None],
    ) -> None:
        self._quarantine = quarantine
        self._line = line
        self._written = written
        self._trouble = trouble
        self._records: dict[int, _Record] = {}
        self._pieces: dict[int, set[int]] = {}
        self._to_write, self._to_follow = SimpleQueue[Unit | None](), SimpleQueue[tuple[Unit, list[_Written]] | None]()
        self._threads = [
            threading.Thread(target=self._write, name="write", daemon=True),
            threading.Thread(target=self._tell, name="follow", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def put(self, unit: Unit) -> None:
        """A complete unit."""
        self._to_write.put(unit)

    @property
    def backlog(self) -> int:
        return self._to_write.qsize() + self._to_follow.qsize()

    def close(self) -> None:
        """Return when what was put is written."""
        self._to_write.put(None)
        for thread in self._threads:
            thread.join()
        self._quarantine.close()

    def _write(self) -> None:
        with self._troubled():
            while (unit := self._to_write.get()) is not None:
                self._to_follow.put((unit, self._store(unit)))
        self._to_follow.put(None)

    def _tell(self) -> None:
        with self._troubled():
            while (item := self._to_follow.get()) is not None:
                unit, pieces = item
                came = [(piece, piece.record or self._follow(piece)) for piece in pieces]
                self._written(unit, [Came(piece.chunk, piece.digest, record) for piece, record in came if piece.digest])

    @contextlib.contextmanager
    def _troubled(self) -> Iterator[None]:
        """What ends a thread is told."""
        try:
            yield
        except LabxchangeError as error:
            self._trouble(InputError(error.code, error.message, hint=error.hint) if isinstance(error, RefusedError) else error)

    def _store(self, unit: Unit) -> list[_Written]:
        assert unit.buffer is not None
        first, last = unit.chunks
        if first == last:
            return [self._store_piece(first, unit.start, unit.buffer[: unit.length])]
        out = []
        for chunk in range(first, last + 1):
            place = self._line.chunk_at(chunk)
            begin = place.offset - unit.start
            out.append(self._store_piece(chunk, place.offset, unit.buffer[begin : begin + place.length]))
        return out

    def _store_piece(self, chunk: int, start: int, data: memoryview) -> _Written:
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


def units_of(line: Line, chunks: tuple[int, int]) -> list[tuple[int, int, tuple[int, int]]]:
    """Chunks as units for ``Assembly.expect``: runs of whole chunks up to a MiB, and the MiBs of larger ones."""
    first, last = chunks
    numbers = np.arange(first, last + 1)
    files = line.first_chunk.searchsorted(numbers, "right") - 1
    in_file = (numbers - line.first_chunk[files]) * line.chunk_bytes[files]
    starts: NDArray[np.int64] = line.offset[files] + in_file
    lengths = np.minimum(line.chunk_bytes[files], line.size[files] - in_file)
    out: list[tuple[int, int, tuple[int, int]]] = []
    begin, size, run = 0, 0, first
    for number, start, length in zip(numbers.tolist(), starts.tolist(), lengths.tolist(), strict=True):
        if size and (size + length > UNIT_BYTES or start != begin + size):
            out.append((begin, size, (run, number - 1)))
            size = 0
        if length > UNIT_BYTES:
            out += [(start + part, min(UNIT_BYTES, length - part), (number, number)) for part in range(0, length, UNIT_BYTES)]
            continue
        if not size:
            begin, run = start, number
        size += length
    if size:
        out.append((begin, size, (run, last)))
    return out
