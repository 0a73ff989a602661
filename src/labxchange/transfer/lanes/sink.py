"""Where complete units of a transfer that is received over lanes go: to the writer, a process of its own.

A worker has one writer, which the first such transfer starts unless it runs; each transfer has a socket to it and memory that
both see. Units are written in the order in which they are put, and told of in that order. The loop of a worker shares its
interpreter with no thread that writes or hashes: each would take it from the loop a thousand times a second, and wait until the
loop gives it back. A writer lives no longer than its worker, a worker no longer than its writer.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import subprocess
import sys
from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from labxchange.dataset.listing import Line
from labxchange.transfer.lanes import messages
from labxchange.transfer.lanes.slots import Slots
from labxchange.wire.data.assembly import UNIT_BYTES, Unit

_READ_BYTES: Final = 1 << 16


class Writer:
    """The writer of a worker, seen from there.

    Args:
        node: the worker's socket to the node, which the writer keeps open and does not use.
        selector: says, with None, that the writer ended.
    """

    def __init__(self, node: socket.socket, selector: selectors.BaseSelector) -> None:
        self._node = node
        self._selector = selector
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def warm(self) -> None:
        """Start the process unless it runs."""
        if self._process is not None:
            return
        self._control, theirs = socket.socketpair()
        handed = (theirs.fileno(), self._node.fileno())
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "labxchange.transfer.lanes.writer", *map(str, handed)],
                stdin=subprocess.DEVNULL,
                cwd="/",
                pass_fds=handed,
            )
        self._selector.register(self._control, selectors.EVENT_READ)

    def hand_over(self, job: socket.socket, slots: Slots) -> None:
        """The writer's end of the socket of a transfer, and the memory of its units."""
        self.warm()
        assert self._control is not None
        memory = [slots.descriptor] if slots.descriptor is not None else []
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is gone, and the selector says so
            socket.send_fds(self._control, [b"j"], [job.fileno(), *memory])

    def kill(self) -> None:
        """Whatever it does."""
        if self._process is not None:
            self._process.kill()


class LaneSink:
    """One transfer's way to the writer; ``selector`` says when there is something to ``take``, or room for what waits.

    Args:
        contents: what is received, and where to.
        slots: where units lie that are put with a slot.
        data: what the selector is given with the socket.
    """

    def __init__(
        self, writer: Writer, contents: messages.Contents, slots: Slots, *, selector: selectors.BaseSelector, data: object
    ) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            writer.hand_over(theirs, slots)
        self._socket.setblocking(False)
        self._selector = selector
        self._key = selector.register(self._socket, selectors.EVENT_READ, data)
        self._outbox = messages.Outbox(self._socket)
        self._inbox = messages.Inbox()
        self._waiting: deque[Unit] = deque()
        self._ending = False
        self.is_over = False
        """The writer does nothing more for it: as asked, or since it ended."""
        self._say(contents)

    def put(self, unit: Unit) -> None:
        """A complete unit; what it is in must stay as it is until ``take`` returns it."""
        assert unit.buffer is not None
        data = bytes(unit.buffer[: unit.length]) if unit.slot is None else b""
        self._waiting.append(unit)
        self._say(messages.Store(start=unit.start, length=unit.length, chunks=unit.chunks, slot=unit.slot, data=data))

    @property
    def backlog(self) -> int:
        """Units that are not written."""
        return len(self._waiting)

    def take(self) -> list[tuple[Unit, list[messages.Came]] | messages.Trouble]:
        """The units that were written since the last call, with what is told of their chunks; or that nothing can be written."""
        self._flush()
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.is_over = True
        news = map(messages.decode_stored, self._inbox.add(data))
        return [item if isinstance(item, messages.Trouble) else (self._waiting.popleft(), item.chunks) for item in news]

    def end(self) -> None:
        """Nothing more is put; ``is_over`` when all of it is written."""
        self._ending = True
        self._flush()

    def close(self) -> None:
        """When it is over."""
        self._selector.unregister(self._socket)
        self._socket.close()

    def _say(self, message: messages.LaneMessage) -> None:
        self._outbox.say(message)
        self._flush()

    def _flush(self) -> None:
        done = self._outbox.flush()
        if done and self._ending:
            self._socket.shutdown(socket.SHUT_WR)
            self._ending = False
        events = selectors.EVENT_READ | (0 if done else selectors.EVENT_WRITE)
        if events != self._key.events:
            self._key = self._selector.modify(self._socket, events, self._key.data)


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
