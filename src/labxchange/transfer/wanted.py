"""What a download still lacks: which chunks may be had by now, from this disk or from the sender, and whether more can come.

A chunk is lacking until it was written; it may be had once its digest is known. It is in one place at a time: open, in a request
that somebody works on, or written; so nothing is asked for twice. Chunks of a file that is given up are not wanted. How they are
had, and whether they are right, is left to ``receive``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from labxchange.dataset.listing import Line
from labxchange.settings import BATCH_FILES, LAST_BATCH_FILES
from labxchange.transfer.digests import ChunkDigests
from labxchange.transfer.intervals import Interval
from labxchange.transfer.plan import Plan
from labxchange.transfer.reuse import Reuse


class Wanted:
    """The chunks of one transfer.

    Args:
        written: a mask, True for chunks that are on the disk already; changed here as more come.
        reuse: earlier versions on this disk.
    """

    def __init__(self, line: Line, *, digests: ChunkDigests, written: NDArray[np.bool_], reuse: Reuse | None) -> None:
        self.settled = False
        """All digests are known, and are the manifest's."""
        self._line = line
        self._digests = digests
        self._reuse = reuse
        self._written = written
        self._planned = np.zeros(line.chunks, np.bool_)
        self._given_up = np.zeros(line.chunks, np.bool_)
        self.requests, self.copies = Plan(line), Plan(line)
        self._under_way = 0
        self._more = asyncio.Event()

    @property
    def all_asked(self) -> bool:
        """All that is lacking is in a request that somebody works on."""
        return self.settled and self.requests.empty and self.copies.empty

    @property
    def batch_files(self) -> int:
        """How many small files go together."""
        return LAST_BATCH_FILES if self.all_asked else BATCH_FILES

    def anew(self) -> None:
        """Nothing is under way: plan all that may be had."""
        self.requests.clear()
        self.copies.clear()
        self._planned[:] = False
        self._under_way = 0
        self.open(0, self._line.chunks if self.settled else self._digests.known_until(0))

    def open(self, first: int, stop: int) -> None:
        """These digests are known: plan what is lacking of their chunks. Until all is settled, zeros tell of a file left out."""
        wanted = ~(self._written[first:stop] | self._planned[first:stop] | self._given_up[first:stop])
        if not self.settled:
            wanted &= self._digests.present(first, stop)
        self._planned[first:stop] |= wanted
        if self._reuse is not None:
            here = wanted & self._reuse.may_hold(self._digests, first, stop)
            self.copies.add(first, here)
            wanted &= ~here
        self.requests.add(first, wanted)
        self._more.set()

    def give_up(self, chunks: range) -> None:
        """Their file is named in the findings."""
        self._given_up[chunks.start : chunks.stop] = True
        for plan in (self.requests, self.copies):
            plan.drop(chunks)
        self._more.set()

    def lost(self, chunks: Sequence[int]) -> None:
        """What was written is wrong."""
        self._written[chunks] = False
        self._planned[chunks] = False
        self.open(chunks[0], chunks[-1] + 1)

    async def next(self, plan: Plan) -> list[Interval]:
        """The next request of ``plan``, as soon as there is one; empty when none can come any more."""
        while True:
            if asked := plan.take():
                self._under_way += 1
                return asked
            if self.all_asked and not self._under_way:
                self._more.set()
                return []
            self._more.clear()
            await self._more.wait()

    def over(self, asked: Sequence[Interval]) -> None:
        """A request is over: what did not come with it must be fetched."""
        self._under_way -= 1
        for first, last in asked:
            lacking = ~(self._written[first : last + 1] | self._given_up[first : last + 1])
            self.requests.add(first, lacking)
        self._more.set()
