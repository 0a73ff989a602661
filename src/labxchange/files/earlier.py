"""Reading what an earlier transfer left on this disk: files under their names, or parts in its private folder.

Rules: only what lies below the destination is opened, no link is followed; what is missing, unreadable or not a regular file is
simply not there. Whether the bytes are what somebody hopes is left to the caller, who must check their digest.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from labxchange.dataset.names import OWN_PREFIX
from labxchange.files.confined import Folders

_ROOT_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class EarlierFiles:
    """The files of one transfer by their index. For one thread at a time; opens nothing before something is read."""

    def __init__(self, destination: Path, transfer_id: str) -> None:
        self._destination = destination
        self._parts = f"{OWN_PREFIX}-{transfer_id}"
        self._root = -1
        self._folders: Folders | None = None
        self._file: tuple[int, int] = (-1, -1)
        self._absent: set[int] = set()

    def read(self, index: int, path: str, offset: int, view: memoryview) -> bool:
        """Fill ``view`` from a file; False when it does not have these bytes, or is not there."""
        descriptor = self._descriptor(index, path)
        while descriptor >= 0 and view:
            try:
                count = os.preadv(descriptor, [view], offset)
            except OSError:
                return False
            if count == 0:
                return False
            view, offset = view[count:], offset + count
        return descriptor >= 0

    def _descriptor(self, index: int, path: str) -> int:
        if self._file[0] == index:
            return self._file[1]
        if index in self._absent:
            return -1
        self._close_file()
        for name in (path, f"{self._parts}/{index}.part"):
            try:
                descriptor = self._opened().open_file(name)
            except OSError:
                continue
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                self._file = (index, descriptor)
                return descriptor
            os.close(descriptor)
        self._absent.add(index)
        return -1

    def _opened(self) -> Folders:
        if self._folders is None:
            self._root = os.open(self._destination, _ROOT_FLAGS)
            self._folders = Folders(self._root)
        return self._folders

    def _close_file(self) -> None:
        if self._file[1] >= 0:
            os.close(self._file[1])
        self._file = (-1, -1)

    def close(self) -> None:
        self._close_file()
        if self._folders is not None:
            self._folders.close()
            os.close(self._root)
            self._folders = None
