"""Opening files below a folder without ever leaving it.

Every step of a path is opened by itself, relative to the descriptor of the folder before it and with ``O_NOFOLLOW``; so no
link, planted before or during the call, leads out. Callers pass paths that ``names.check_path`` accepted, or names that the
folder itself listed. OSErrors pass through: the callers know what a failure means.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from types import TracebackType
from typing import Final, Self

FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO put in a file's place must not hold the opener; it has no effect on regular files.
READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KEPT_FOLDERS: Final = 32


class Folders:
    """Descriptors of folders below a root, the last few kept open. For one thread; the root descriptor stays the caller's.

    Args:
        root: descriptor of the root folder.
        create: make folders that are missing (mode 0777 less the umask).
    """

    def __init__(self, root: int, *, create: bool = False) -> None:
        self._root = root
        self._create = create
        self._open: OrderedDict[str, int] = OrderedDict()

    def descriptor(self, folder: str) -> int:
        """The descriptor of ``folder`` ("" is the root), valid until the next call."""
        if not folder:
            return self._root
        if (known := self._open.get(folder)) is not None:
            self._open.move_to_end(folder)
            return known
        above, _, name = folder.rpartition("/")
        parent = self.descriptor(above)
        try:
            opened = os.open(name, FOLDER_FLAGS, dir_fd=parent)
        except FileNotFoundError:
            if not self._create:
                raise
            try:
                os.mkdir(name, 0o777, dir_fd=parent)
            except FileExistsError:
                pass
            opened = os.open(name, FOLDER_FLAGS, dir_fd=parent)
        if len(self._open) >= _KEPT_FOLDERS:
            os.close(self._open.popitem(last=False)[1])
        self._open[folder] = opened
        return opened

    def open_file(self, path: str) -> int:
        """Open a file for reading; it may turn out to be anything but a link."""
        folder, _, name = path.rpartition("/")
        return os.open(name, READ_FLAGS, dir_fd=self.descriptor(folder))

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
