"""Memory that is at hand while something is measured.

A machine that lends its free memory to a host, as many virtual ones do within seconds, takes 1 to 2 s of its processor's time for
each GiB to have it back, which would be measured in place of the transfer. So all that is free is held, and given back as others
use it: what they get was used a moment ago. The same is done for everybody who is measured. On a machine that lends nothing,
nothing is held.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.bench.rows import MIB

_BALLOON = Path("/sys/bus/virtio/drivers/virtio_balloon")
_FREE_BYTES, _LOOK_S = 256 * MIB, 0.01
_ZEROS = bytes(64 * MIB)


class Held:
    """All free memory but ``_FREE_BYTES``."""

    def __init__(self) -> None:
        self._lends = any(_BALLOON.glob("virtio*"))
        self._blocks: list[mmap.mmap] = []

    @contextlib.contextmanager
    def at_hand(self) -> Iterator[None]:
        """Hold what is free, and give it back while the body runs."""
        while self._lends and _free_bytes() > _FREE_BYTES + len(_ZEROS):
            block = mmap.mmap(-1, len(_ZEROS), flags=mmap.MAP_PRIVATE)
            block.madvise(mmap.MADV_HUGEPAGE)
            block.write(_ZEROS)
            self._blocks.append(block)
        over = threading.Event()
        thread = threading.Thread(target=self._give_back, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _give_back(self, over: threading.Event) -> None:
        while self._blocks and not over.wait(_LOOK_S):
            if _free_bytes() < _FREE_BYTES:
                self._blocks.pop().close()

    def release(self) -> None:
        """Nothing is held any more."""
        while self._blocks:
            self._blocks.pop().close()


def _free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE
