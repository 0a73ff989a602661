"""Many files in a few threads: batches go out, results come back in order, and little is ahead of the consumer. The threads stand
back behind whatever a person waits for."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Final, TypeVar

from labxchange.dataset.listing import ListedFile
from labxchange.settings import BULK_NICE

BATCH_FILES: Final = 256
BATCH_BYTES: Final = 16 << 20

R = TypeVar("R")


def batches(files: Sequence[ListedFile], indices: Iterable[int]) -> Iterator[list[int]]:
    """Cut ``indices`` into runs of at most 256 files or, where there are several, 16 MiB."""
    batch: list[int] = []
    size = 0
    for index in indices:
        if batch and (len(batch) >= BATCH_FILES or size + files[index].size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(index)
        size += files[index].size
    if batch:
        yield batch


def in_order(
    work: Iterable[list[int]], run: Callable[[list[int]], list[R]], *, threads: int, abandon: Event
) -> Iterator[list[R]]:
    """``run`` over each batch in ``threads`` threads (0: by the cores), results in the order of the batches.

    At most two batches a thread are ahead. When the consumer stops early, or a batch raises, ``abandon`` is set, on which
    ``run`` should end soon.
    """
    threads = threads if threads > 0 else min(4, os.cpu_count() or 1)
    waiting: deque[Future[list[R]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="files", initializer=_stand_back)
    try:
        for batch in work:
            waiting.append(pool.submit(run, batch))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        abandon.set()
        pool.shutdown(cancel_futures=True)


def _stand_back() -> None:
    if sys.platform == "linux":  # elsewhere it would be all threads of this process
        os.nice(BULK_NICE)
