"""Memory that a worker and its writer both see: what one assembles the other writes and hashes, and nobody copies it.

It is in no file system and has no name; a slot takes memory when it is first used, all of it is given back with the transfer.
Where the system has no such memory there are no slots, and units go to the writer through its socket. Who uses which slot is left
to ``wire.data.assembly``.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

from labxchange.settings import LANE_CREDIT_BYTES
from labxchange.wire.data.assembly import UNIT_BYTES

SLOTS: Final = LANE_CREDIT_BYTES // UNIT_BYTES
"""As many as a node asks for and has not written."""


class Slots:
    """``each`` is a slot of ``UNIT_BYTES``.

    Args:
        descriptor: memory from ``make_slots``, of this process or another; None: there are no slots.
    """

    def __init__(self, descriptor: int | None) -> None:
        self.descriptor = descriptor
        self.each: list[memoryview] = []
        if descriptor is not None:
            view = memoryview(mmap.mmap(descriptor, SLOTS * UNIT_BYTES))
            self.each = [view[start : start + UNIT_BYTES] for start in range(0, len(view), UNIT_BYTES)]

    def close(self) -> None:
        """The descriptor; the memory lives as long as somebody looks at it."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def make_slots() -> Slots:
    """New ones, of which none takes memory yet; none where the system has no such memory."""
    if not hasattr(os, "memfd_create"):
        return Slots(None)
    descriptor = os.memfd_create("labxchange-units")
    os.ftruncate(descriptor, SLOTS * UNIT_BYTES)
    return Slots(descriptor)
