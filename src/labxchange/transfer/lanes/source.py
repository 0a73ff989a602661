"""Bytes of the line for a lane that sends, a MiB at a time: at once where the system has them in memory, else by a thread that
reads ahead of where the lane is.

A lane reads onward, and now and then a little of what it sent before; the first comes from those blocks, the second straight from
the file, where the system still has it. To hand a block from a thread to the loop costs more than to copy it from memory; where
that was tried in vain, the thread goes on for a block, then for two, and so on up to 64, before it is tried again. A file that is
not as it was listed is told as ``Gone`` with its place in the line, and why is kept in ``reasons``. Whether bytes may be sent is
judged by the node before they are asked for.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from labxchange.dataset.listing import Line, ListedFile
from labxchange.dataset.manifest import UNREADABLE
from labxchange.errors import IntegrityError, LabxchangeError
from labxchange.files.reading import SourceReader
from labxchange.files.scan import Sources
from labxchange.wire.data.asked import Gone

BLOCK_BYTES: Final = 1 << 20
_AGAIN_BYTES: Final = 1 << 16
_PATIENCE_MAX: Final = 64
_SEVERAL: Final = 4


class _Block:
    """Bytes [start, start + length) of the line; ``gone`` where a file in it could not be read."""

    __slots__ = ("buffer", "end", "gone", "start")

    def __init__(self, start: int, end: int, buffer: memoryview) -> None:
        self.start = start
        self.end = end
        self.buffer = buffer
        self.gone: Gone | None = None


class LaneSource:
    """``wire.data.asked.Read`` over the files of a listing."""

    def __init__(self, sources: Sources, files: list[ListedFile], line: Line, threads: ThreadPoolExecutor) -> None:
        self.reasons: dict[int, str] = {}
        self._files = files
        self._line = line
        self._reader = SourceReader(sources, files)
        self._threads = threads
        self._ahead: Future[_Block] | None = None
        self._ahead_start = -1
        self._block: _Block | None = None
        self._spare: list[memoryview] = []
        self._by_thread = self._patience = 1
        self._expected = -1
        self._again = memoryview(bytearray(_AGAIN_BYTES))

    def __call__(self, offset: int, length: int) -> memoryview:
        block = self._block
        if block is not None and block.start <= offset < block.end:
            if offset + length > block.end and self._ahead is None:  # a batch is full where it can be
                block = self._read_at_once(offset, length) or block
            return self._of(block, offset, length)
        if offset == self._ahead_start and self._ahead is not None:
            if not self._ahead.done():
                return memoryview(b"")
            block = self._take(self._ahead.result())
            self._ahead = None
            if self._by_thread or not self._goes_on(block.end):
                self._look_ahead(block.end)
            return self._of(block, offset, length)
        if block is None or offset in (block.end, self._expected):
            self._expected = -1
            block = self._read_at_once(offset, length)
            if block is not None:
                return self._of(block, offset, length)
            self._look_ahead(offset)
            return memoryview(b"")
        view = self._again[: min(length, len(self._again))]
        self._fill(offset, view)
        self._expected = offset + len(view)
        return view

    def close(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
        self._reader.close()

    def _of(self, block: _Block, offset: int, length: int) -> memoryview:
        gone = block.gone
        if gone is not None and offset + length > gone.start:
            if offset >= gone.start:
                if offset < gone.end:
                    raise gone
                # What lies behind a file that is gone was not read.
                self._look_ahead(offset)
                self._block = None
                return memoryview(b"")
            length = gone.start - offset
        return block.buffer[offset - block.start : min(offset + length, block.end) - block.start]

    def _read_at_once(self, offset: int, length: int) -> _Block | None:
        """As many times ``length`` as a block holds, which is what batches like this one need, unless that takes a thread or is
        no more than is there."""
        if self._by_thread:
            return None
        file = self._line.file_of(offset)
        begin, end = int(self._line.offset[file]), int(self._line.offset[file + 1])
        end = min(offset + max(BLOCK_BYTES // length, 1) * min(length, BLOCK_BYTES), end)
        if self._block is not None and self._block.start <= offset and end <= self._block.end:
            return None
        block = _Block(offset, end, self._buffer())
        if self._reader.read_at_once(file, offset - begin, block.buffer[: block.end - offset]):
            self._patience = 1
            return self._take(block)
        self._spare.append(block.buffer)
        self._by_thread = self._patience = min(2 * self._patience, _PATIENCE_MAX)
        return None

    def _goes_on(self, offset: int) -> bool:
        """Whether the file that was read up to there has several blocks more: one that begins has to be opened, by a thread."""
        if offset >= self._line.bytes:
            return False
        file = self._line.file_of(offset)
        return int(self._line.offset[file]) < offset <= int(self._line.offset[file + 1]) - _SEVERAL * BLOCK_BYTES

    def _look_ahead(self, start: int) -> None:
        self._ahead_start, self._ahead = start, None
        self._by_thread = max(self._by_thread - 1, 0)
        if start < self._line.bytes:
            block = _Block(start, min(start + BLOCK_BYTES, self._line.bytes), self._buffer())
            self._ahead = self._threads.submit(self._load, block)

    def _buffer(self) -> memoryview:
        """Memory that was used before costs half of what new memory does."""
        return self._spare.pop() if self._spare else memoryview(bytearray(BLOCK_BYTES))

    def _take(self, block: _Block) -> _Block:
        """The next block to be sent; of the one before nobody reads any more."""
        if self._block is not None:
            self._spare.append(self._block.buffer)
        self._block = block
        return block

    def _load(self, block: _Block) -> _Block:
        try:
            self._fill(block.start, block.buffer[: block.end - block.start])
        except Gone as gone:
            block.gone = gone
        return block

    def _fill(self, offset: int, view: memoryview) -> None:
        """Bytes of the line; raises Gone at the first file that is not as it was listed."""
        file = self._line.file_of(offset)
        while view:
            begin, end = int(self._line.offset[file]), int(self._line.offset[file + 1])
            if offset < end:
                count = min(len(view), end - offset)
                try:
                    self._reader.read_into(file, offset - begin, view[:count])
                except LabxchangeError as error:
                    self.reasons[file] = error.code if isinstance(error, IntegrityError) else UNREADABLE
                    raise Gone(begin, end) from None
                view, offset = view[count:], offset + count
            file += 1
