"""How the threads of a worker wake its loop: only when it sleeps, so that what comes while it works costs no system call."""

from __future__ import annotations

import contextlib
import os


class Wake:
    """``sleeping`` is set by the loop before it looks for work a last time, and then waits; threads add work, then ``wake``."""

    def __init__(self) -> None:
        self.sleeping = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        """For ``select``."""
        return self._read

    def wake(self) -> None:
        """From any thread."""
        if self.sleeping:
            with contextlib.suppress(BlockingIOError):
                os.write(self._write, b"x")

    def drain(self) -> None:
        """The loop is awake, and looks for work."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass
