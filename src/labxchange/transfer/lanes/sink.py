"""What becomes of complete units of a transfer that is received over lanes: written to their parts, hashed, told.

One thread does it for one transfer. Each chunk gets its BLAKE3; each file that came whole its SHA-256, carried along as its
chunks come in order, and behind them over those that came before their turn. A file of which another life of the transfer
received a part has no such digest: who asked reads it back. Flushing, comparing and releasing are the node's.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

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


class LaneSink:
    """Writes in a thread of its own.

    Args:
        written: called, from the thread, with a unit whose buffer is free again and what is told of its chunks.
        trouble: called, from the thread, when nothing can be written any more.
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
        self._work: deque[Unit | None] = deque()
        self._ready = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name="sink", daemon=True)
        self._thread.start()

    def put(self, unit: Unit) -> None:
        """A complete unit."""
        self._work.append(unit)
        self._ready.release()

    @property
    def backlog(self) -> int:
        return len(self._work)

    def close(self) -> None:
        """Return when what was put is written."""
        self._work.append(None)
        self._ready.release()
        self._thread.join()
        self._quarantine.close()

    def _run(self) -> None:
        while True:
            self._ready.acquire()
            unit = self._work.popleft()
            if unit is None:
                return
            try:
                came = self._store(unit)
            except LabxchangeError as error:
                self._trouble(
                    InputError(error.code, error.message, hint=error.hint) if isinstance(error, RefusedError) else error
                )
                return
            self._written(unit, came)

    def _store(self, unit: Unit) -> list[Came]:
        assert unit.buffer is not None
        first, last = unit.chunks
        if first == last:
            return self._store_piece(first, unit.start, unit.buffer[: unit.length])
        out = []
        for chunk in range(first, last + 1):
            place = self._line.chunk_at(chunk)
            begin = place.offset - unit.start
            out += self._store_piece(chunk, place.offset, unit.buffer[begin : begin + place.length])
        return out

    def _store_piece(self, chunk: int, start: int, data: memoryview) -> list[Came]:
        """A chunk, or a piece of one that is larger than a unit."""
        place = self._line.chunk_at(chunk)
        file_offset = place.file_offset + start - place.offset
        self._quarantine.write(place.file, file_offset, data)
        size = int(self._line.size[place.file])
        if len(data) == size:
            return [Came(chunk, blake3(data).digest(), sha256(data).digest())]
        record = self._follow(place.file, file_offset, data)
        if len(data) == place.length:
            return [Came(chunk, blake3(data).digest(), record)]
        pieces = self._pieces.setdefault(chunk, set())
        pieces.add(start)
        if len(pieces) < -(-place.length // UNIT_BYTES):
            return []
        del self._pieces[chunk]
        return [Came(chunk, self._read_back(place.file, place.file_offset, place.length), record)]

    def _read_back(self, file: int, offset: int, length: int) -> bytes:
        digest, view = blake3(), memoryview(bytearray(UNIT_BYTES))
        for start in range(0, length, UNIT_BYTES):
            part = view[: min(UNIT_BYTES, length - start)]
            self._quarantine.read_into(file, offset + start, part)
            digest.update(part)
        return digest.digest()

    def _follow(self, file: int, offset: int, data: memoryview) -> bytes:
        """Carry the SHA-256 of a file on; its digest when that was the end of it."""
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
