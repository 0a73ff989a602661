"""The sending side: reads the chunks of a share version from where they lie and puts them on a stream.

Rules: a chunk goes out only when it is what the manifest says (its digest is checked as it is read), so a source that changed,
shrank or vanished is named and never sent as something else; whether the transfer may go on is asked again before each message.
Who may fetch what is left to the node.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from blake3 import blake3

from labxchange.dataset.listing import Line, ListedFile
from labxchange.errors import LabxchangeError, PeerError
from labxchange.files.scan import Sources, open_source
from labxchange.net.channel import Stream
from labxchange.transfer.intervals import Interval
from labxchange.transfer.pace import Pace
from labxchange.wire.control.messages import GONE_MAX, PIECE_BYTES, Fetched, Gone, Piece, Pieces, encode

_GROUP_BYTES = 1 << 20
_WHOLE_CHUNK_BYTES = 4 << 20
_DIGEST = 32


class SourceChanged(Exception):
    """Internal: a file is not what was listed; the text is the reason's code."""


class Source:
    """The bytes of one share version on this disk. Reading is for one thread at a time; ``gone`` (file -> reason) is shared by
    all sources of one transfer."""

    def __init__(
        self, sources: Sources, files: Sequence[ListedFile], line: Line, digests: bytes | memoryview, *, gone: dict[int, str]
    ) -> None:
        self.files = files
        self.line = line
        self.gone = gone
        self._sources = sources
        self._digests = memoryview(digests)
        self._open: tuple[int, int] = (-1, -1)

    def _descriptor(self, file: int) -> int:
        if self._open[0] != file:
            self.close()
            try:
                self._open = (file, open_source(self._sources, self.files[file].path))
            except LabxchangeError as error:
                raise SourceChanged("removed" if error.code == "file-missing" else "unreadable") from None
        return self._open[1]

    def close(self) -> None:
        if self._open[0] >= 0:
            os.close(self._open[1])
            self._open = (-1, -1)

    def pieces(self, chunk: int) -> Iterator[Piece]:
        """The chunk in pieces.

        Raises:
            SourceChanged: it is not what the manifest says; pieces of a chunk over 4 MiB may have been given before.
        """
        place = self.line.chunk_at(chunk)
        expected = bytes(self._digests[chunk * _DIGEST : (chunk + 1) * _DIGEST])
        descriptor = self._descriptor(place.file)
        whole = place.length <= _WHOLE_CHUNK_BYTES
        hasher, ready = blake3(), []
        for start in range(0, place.length, PIECE_BYTES):
            length = min(PIECE_BYTES, place.length - start)
            try:
                data = os.pread(descriptor, length, place.file_offset + start)
            except OSError:
                raise SourceChanged("unreadable") from None
            if len(data) != length:
                raise SourceChanged("shrunk")
            hasher.update(data)
            if whole:
                ready.append(Piece(chunk, start, data))
            else:
                yield Piece(chunk, start, data)
        if hasher.digest() != expected:
            raise SourceChanged("changed")
        yield from ready

    def groups(self, intervals: Iterable[Interval]) -> Iterator[list[Piece]]:
        """Pieces of all these chunks in messages of up to 256 KiB; chunks of changed files are left out (``gone``)."""
        group: list[Piece] = []
        size = 0
        for first, last in intervals:
            for chunk in range(first, last + 1):
                file = self.line.chunk_at(chunk).file
                if file in self.gone:
                    continue
                try:
                    for piece in self.pieces(chunk):
                        if group and (size + len(piece.data) > PIECE_BYTES or len(group) >= 4096):
                            yield group
                            group, size = [], 0
                        group.append(piece)
                        size += len(piece.data)
                except SourceChanged as changed:
                    self.gone[file] = str(changed)
        if group:
            yield group


def checked_intervals(asked: Sequence[Interval], line: Line, *, limit: int) -> int:
    """Bytes that a fetch asks for.

    Raises:
        PeerError: ``range-outside``, ``range-too-large``.
    """
    total, after = 0, -1
    for first, last in asked:
        if not after < first <= last < line.chunks:
            raise PeerError("range-outside", "The other node asked for a range that does not exist.")
        after = last
        end = line.chunk_at(last)
        total += end.offset + end.length - line.chunk_at(first).offset
        if total > limit and last > asked[0][0]:
            raise PeerError("range-too-large", "The other node asked for more at once than allowed.")
    return total


async def send_chunks(
    stream: Stream,
    source: Source,
    asked: Sequence[Interval],
    *,
    pace: Pace,
    permitted: Callable[[], None],
    sent: Callable[[int], None],
) -> None:
    """Answer a fetch.

    Args:
        pace: no faster than this.
        permitted: raises when the transfer may not go on; asked before each message.
        sent: told the bytes of each message.
    """
    groups = source.groups(asked)
    while (ready := await asyncio.to_thread(_next_megabyte, groups)) is not None:
        for group in ready:
            size = sum(len(piece.data) for piece in group)
            await pace.take(size)
            permitted()
            await stream.send(encode(Pieces(pieces=group)))
            sent(size)
    permitted()
    await stream.send(encode(Fetched(gone=_gone_of(source, asked))), end=True)


def _gone_of(source: Source, asked: Sequence[Interval]) -> list[Gone]:
    """What was asked for and cannot be sent; where it is more than fits, the rest is named at the next fetch."""
    lows = [source.line.chunk_at(first).file for first, _ in asked]
    highs = [source.line.chunk_at(last).file for _, last in asked]

    def is_asked(file: int) -> bool:
        span = bisect_right(lows, file) - 1
        return span >= 0 and file <= highs[span]

    found = (Gone(file, why) for file, why in sorted(source.gone.items()) if is_asked(file))
    return list(islice(found, GONE_MAX))


def _next_megabyte(groups: Iterator[list[Piece]]) -> list[list[Piece]] | None:
    out: list[list[Piece]] = []
    size = 0
    for group in groups:
        out.append(group)
        size += sum(len(piece.data) for piece in group)
        if size >= _GROUP_BYTES:
            break
    return out or None
