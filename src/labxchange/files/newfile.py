"""Writing a new file whole or not at all: exports and backups that a person asked for.

The bytes go to a private temporary file beside the target, are flushed, and get the name only if nothing has it. What is written
is the caller's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from labxchange.dataset.names import escape
from labxchange.errors import InputError
from labxchange.files.disk_errors import mapping


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file (0600) that is at ``path``, durably, when the block ends, and nowhere when it raises. Its ``name`` is the path of
    the temporary file, for what can only write to a path.

    Raises:
        InputError: ``file-exists``, ``not-permitted``.
        UnavailableError: ``disk-full``, ``disk-error``, ``file-missing`` (the folder).
    """
    taken = InputError("file-exists", f"There is already a file “{escape(str(path))}”.", hint="Choose another name.")
    if path.exists():
        raise taken
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with mapping(str(path)):
        out = open(temporary, "xb", opener=_private)  # noqa: SIM115
        try:
            with out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise taken from None
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
