"""Chunks over the sealed QUIC streams of a connection, one request a stream: the way that is always there.

A request names chunks; pieces of them come in the order of the listing, are written to their parts and hashed as they come, and
each chunk that ended is told to the download. Rules: nothing that was not asked for is taken; a peer that stalls is given up;
what the sender leaves out it must name. Which chunks are asked for, and what becomes of them, is the download's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import NamedTuple, Protocol

from blake3 import blake3

from labxchange.dataset.listing import Line
from labxchange.errors import InputError, PeerError, RefusedError
from labxchange.files.quarantine import Quarantine
from labxchange.net.channel import Channel, Stream
from labxchange.settings import FETCH_BYTES, FETCH_PARALLEL
from labxchange.transfer.digests import ChunkDigests
from labxchange.transfer.intervals import Interval
from labxchange.transfer.pace import Pace
from labxchange.wire.control.messages import GONE_MAX, Fetch, Fetched, Gone, Piece, Pieces, Refused, decode_answer, encode

_STALL_S = 60.0
_STALL_BYTES = 4096


class Content(NamedTuple):
    """What is to be fetched, and where it goes; the digests of chunks that are asked for must be known."""

    line: Line
    digests: ChunkDigests
    quarantine: Quarantine


class Ended(NamedTuple):
    """A chunk whose bytes are all written: right, unless ``wrong`` holds the digest that they have instead (hex). ``record`` is
    the SHA-256 of a file that is this one chunk, where it was at hand."""

    chunk: int
    length: int
    wrong: str = ""
    record: bytes = b""


class Sink(Protocol):
    """Who asked: told of what came. What of a request was told neither way is asked for again."""

    def done(self, ended: Sequence[Ended]) -> None:
        """These chunks are written, not flushed."""

    def gone(self, files: Sequence[Gone]) -> None:
        """The sender cannot send these files as they were listed."""


class Fetching(Protocol):
    """A way in which chunks come."""

    parallel: int
    """How many requests at a time make it quick."""

    request_bytes: int
    """How many bytes a request is for."""

    async def fetch(self, asked: list[Interval], sink: Sink) -> None:
        """Get these chunks; returns when each was told to ``sink``, or its file was. Cancelled to stop.

        Raises:
            RefusedError: the sender ended the transfer.
            UnavailableError: the connection is lost, or the disk here is full.
            PeerError: the sender broke the rules or stalled.
        """

    def close(self) -> None:
        """No more is asked for."""


class Streams:
    """``Fetching`` over one connection.

    Args:
        digests: those of chunks that are asked for must be known.
        refused: turns a Refused message into the error to raise.
        pace: no faster than this is received.
    """

    def __init__(
        self,
        transfer: str,
        channel: Channel,
        *,
        line: Line,
        digests: ChunkDigests,
        quarantine: Quarantine,
        refused: Callable[[bytes, Channel], RefusedError],
        pace: Pace,
    ) -> None:
        self.parallel = FETCH_PARALLEL
        self.request_bytes = FETCH_BYTES
        self.pace = pace
        self._transfer = transfer
        self._channel = channel
        self._line = line
        self._digests = digests
        self._quarantine = quarantine
        self._refused = refused
        # One thread: several would only pass the interpreter's lock to and fro.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="receive")

    async def fetch(self, asked: list[Interval], sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        coming = _Coming(asked)
        async with await self._channel.open() as stream:
            await stream.send(encode(Fetch(transfer=self._transfer, chunks=asked)), end=True)
            watch = _Watch()
            while True:
                answer = decode_answer(await watch.receive(stream))
                if isinstance(answer, Refused):
                    raise self._refused(answer.statement, self._channel)
                if isinstance(answer, Fetched):
                    self._check_gone(answer, {self._line.chunk_at(chunk).file for chunk in (*coming.left_out, *coming.expected)})
                    sink.gone(answer.gone)
                    return
                if not isinstance(answer, Pieces):
                    raise PeerError("out-of-order", "The other node sent something else where data was due.")
                size = sum(len(piece.data) for piece in answer.pieces)
                watch.count(size)
                await self.pace.take(size)  # what is not received holds its sender back
                sink.done(await loop.run_in_executor(self._writer, self._take, answer.pieces, coming))

    def close(self) -> None:
        self._writer.shutdown(wait=False)

    def _take(self, pieces: list[Piece], coming: _Coming) -> list[Ended]:
        """Write and hash pieces (in a thread); returns chunks that ended.

        A chunk that the sender skips, or stops in the middle of, is ``left_out``; ``Fetched`` must name its file.
        """
        done: list[Ended] = []
        for piece in pieces:
            if piece.offset == 0:
                coming.skip_to(piece.chunk)
            if not coming.is_next(piece):
                raise PeerError("unasked-for", "The other node sent data that was not asked for.")
            place = self._line.chunk_at(piece.chunk)
            if piece.offset + len(piece.data) > place.length:
                raise PeerError("unasked-for", "The other node sent more data than a chunk has.")
            write_part(self._quarantine, place.file, place.file_offset + piece.offset, piece.data)
            coming.add(piece.data)
            if coming.position == place.length:
                got = coming.end()
                wrong = "" if got == self._digests.of(piece.chunk) else got.hex()
                is_whole = not wrong and len(piece.data) == int(self._line.size[place.file])
                done.append(Ended(piece.chunk, place.length, wrong, sha256(piece.data).digest() if is_whole else b""))
        return done

    def _check_gone(self, answer: Fetched, missing: set[int]) -> None:
        """The end of a fetch: each file that chunks are ``missing`` of is named, or as many as fit."""
        named = {gone.file for gone in answer.gone}
        if not named <= missing or (missing - named and len(named) < GONE_MAX):
            raise PeerError("left-out", "The other node left out data without a word, or named a file that it was not asked for.")


class _Coming:
    """What one request still waits for, and the chunk in the middle of which it is."""

    def __init__(self, asked: list[Interval]) -> None:
        self.expected = deque(chunk for first, last in asked for chunk in range(first, last + 1))
        self.left_out: list[int] = []
        self.position = 0
        self._hasher = blake3()

    def skip_to(self, chunk: int) -> None:
        """The sender begins with this chunk: those before it are left out, and what came of the first of them is void."""
        if self.expected and self.expected[0] != chunk:
            self._hasher, self.position = blake3(), 0
            while self.expected and self.expected[0] != chunk:
                self.left_out.append(self.expected.popleft())

    def is_next(self, piece: Piece) -> bool:
        is_due = bool(self.expected) and piece.chunk == self.expected[0]
        return is_due and piece.offset == self.position and bool(piece.data)

    def add(self, data: bytes) -> None:
        self._hasher.update(data)
        self.position += len(data)

    def end(self) -> bytes:
        """The chunk is whole: its digest."""
        got = self._hasher.digest()
        self.expected.popleft()
        self._hasher, self.position = blake3(), 0
        return got


class _Watch:
    """Gives up on a peer that sends nothing, or next to nothing, for a minute."""

    def __init__(self) -> None:
        self._since = asyncio.get_running_loop().time()
        self._bytes = 0

    def count(self, size: int) -> None:
        self._bytes += size
        now = asyncio.get_running_loop().time()
        if now - self._since > _STALL_S:
            if self._bytes < _STALL_BYTES:
                raise PeerError("peer-too-slow", "The other node sends next to nothing.", hint="It is tried again later.")
            self._since, self._bytes = now, 0

    async def receive(self, stream: Stream) -> bytes | None:
        try:
            async with asyncio.timeout(_STALL_S):
                return await stream.receive()
        except TimeoutError:
            raise PeerError("peer-stalled", "The other node stopped sending.", hint="It is tried again later.") from None


def write_part(quarantine: Quarantine, file: int, offset: int, data: bytes | memoryview) -> None:
    """Put bytes into a part; a rule of this machine that forbids it is not the sender's word."""
    try:
        quarantine.write(file, offset, data)
    except RefusedError as error:
        raise InputError(error.code, error.message, hint=error.hint) from error
