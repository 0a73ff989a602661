"""Making folders that stay: each is on the disk, with its name, before the next one or anything in it is made."""

from __future__ import annotations

import os
from pathlib import Path


def make_folders(place: Path, *, mode: int = 0o777) -> None:
    """Make a folder and those above it that are missing; ``mode`` less the umask is for the last one.

    Raises:
        OSError: as the system says it.
    """
    missing: list[Path] = []
    place = above = place.absolute()
    while not above.is_dir():
        missing.append(above)
        above = above.parent
    for folder in reversed(missing):
        folder.mkdir(mode if folder == place else 0o777, exist_ok=True)
        parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
