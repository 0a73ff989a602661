"""The writer of a lane worker: a process that writes and hashes what the worker's loop has assembled,
``python -m labxchange.transfer.lanes.writer CONTROL NODE``.

A thread for each transfer reads which units are complete from a socket of its own, stores them one after the other and tells so.
It holds no key, and opens nothing but the quarantines of its transfers. It ends when the worker does, at once: what a new worker
writes must not meet what is left of the old one. NODE is the worker's socket to the node, which is only kept open, so that the
node sees the worker as ended when this process is, too.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from labxchange.dataset.listing import Line
from labxchange.errors import InputError, LabxchangeError, RefusedError
from labxchange.files.quarantine import Quarantine
from labxchange.transfer.lanes import messages
from labxchange.transfer.lanes.slots import Slots
from labxchange.transfer.lanes.storing import Storing

_READ_BYTES: Final = 1 << 16


class Job:
    """A transfer: its socket, and the memory of its units."""

    def __init__(self, sock: socket.socket, slots: Slots) -> None:
        self._socket = sock
        self._slots = slots

    def run(self) -> None:
        """Until the worker has put everything, or is gone."""
        said = self._said()
        with self._socket, contextlib.suppress(ConnectionError):
            contents = next(said, None)
            if isinstance(contents, messages.Contents):
                try:
                    self._store(contents, said)
                except LabxchangeError as error:
                    self._tell(_trouble(contents.job, error))
                    for _ in said:
                        pass  # nothing of it can be written, and nobody is to wait for that

    def _store(self, contents: messages.Contents, said: Iterator[messages.Contents | messages.Store]) -> None:
        line = Line.of_sizes(np.frombuffer(contents.sizes, np.int64))
        with Quarantine(Path(os.fsdecode(contents.destination)), contents.transfer) as quarantine:
            storing = Storing(quarantine, line)
            for unit in said:
                assert isinstance(unit, messages.Store)
                data = memoryview(unit.data) if unit.slot is None else self._slots.each[unit.slot][: unit.length]
                self._tell(messages.Stored(chunks=storing.store(unit.start, unit.chunks, data)))

    def _said(self) -> Iterator[messages.Contents | messages.Store]:
        inbox = messages.Inbox()
        while data := self._socket.recv(_READ_BYTES):
            yield from map(messages.decode_store, inbox.add(data))

    def _tell(self, message: messages.LaneMessage) -> None:
        self._socket.sendall(messages.encode(message))


def _trouble(job: int, error: LabxchangeError) -> messages.Trouble:
    kind = InputError if isinstance(error, RefusedError) else type(error)
    return messages.Trouble(job=job, kind=kind.__name__, code=error.code, sentence=error.message, hint=error.hint)


def main(arguments: list[str]) -> None:
    """Entry of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which says when we end
    gc.freeze()
    control = socket.socket(fileno=int(arguments[0]))
    while True:
        word, handed, _, _ = socket.recv_fds(control, 1, 2)
        if not word:
            os._exit(0)
        slots = Slots(handed[1] if len(handed) > 1 else None)
        slots.close()
        job = Job(socket.socket(fileno=handed[0]), slots)
        threading.Thread(target=job.run, name="write", daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
