"""What is sent, and whether it arrived: files of random bytes from a fixed seed, and the comparison of every byte of them.

All of it lies on a tmpfs, so no disk is measured: sources are always in memory, destinations are always new and empty.
"""

from __future__ import annotations

import filecmp
import os
from pathlib import Path

import numpy as np

from tests.bench.rows import MIB, Row

SEED = 7
_IN_FOLDER = 100
_BLOCK_BYTES = 16 * MIB


def make(row: Row, folder: Path) -> int:
    """Write the row's files below ``folder``; gives the sum of their sizes. ``ten`` has a folder for each of its transfers."""
    random = np.random.Generator(np.random.SFC64(SEED))
    total = 0
    for number in range(row.files):
        size = int(random.integers(row.smallest_bytes, row.largest_bytes, endpoint=True))
        total += size
        place = folder / relative(row, number)
        if number % _IN_FOLDER == 0 or row.kind == "ten":
            place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as out:
            for start in range(0, size, _BLOCK_BYTES):
                out.write(random.bytes(min(_BLOCK_BYTES, size - start)))
    return total


def relative(row: Row, number: int) -> str:
    """The path of a file below the source folder."""
    if row.kind == "ten":
        return f"{number}/file.bin"
    return "file.bin" if row.files == 1 else f"tree/{number // _IN_FOLDER:05}/{number:07}.bin"


def shared(row: Row, folder: Path) -> list[Path]:
    """What is handed to a transfer, one after the other: a file, or a folder."""
    if row.kind == "ten":
        return [folder / str(number) / "file.bin" for number in range(row.files)]
    return [folder / ("file.bin" if row.files == 1 else "tree")]


def same(source: Path, destination: Path) -> bool:
    """True when every file of the source is in the destination with the same bytes, and nothing else is there."""
    if source.is_file():
        return destination.is_file() and filecmp.cmp(source, destination, shallow=False)
    here, there = _names(source), _names(destination)
    return here == there and all(filecmp.cmp(source / name, destination / name, shallow=False) for name in here)


def _names(folder: Path) -> set[str]:
    return {os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names}


def written_bytes(folder: Path) -> int:
    """Blocks that the file system holds for everything below ``folder``: progress also of files that are written sparsely."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(at, name)).st_blocks * 512
            except OSError:
                continue
    return total
