"""Small secret files: sealed keys, credential files, the session's token.

Written whole or not at all (temporary file, fsync, rename, fsync of the folder), readable by their owner only. Read only when
that still holds: a regular file, not a link, ours, no permission for others. What is inside is left to the callers.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from labxchange.dataset.names import escape
from labxchange.errors import RefusedError
from labxchange.files.disk_errors import check_place, mapped, mapping

SECRET_MAX_BYTES: Final = 65_536

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_secret(path: Path, data: bytes) -> None:
    """Replace ``path`` by a file of mode 0600 with these bytes, durably; the folder must be there.

    Raises:
        InputError: ``not-permitted``.
        UnavailableError: ``file-missing`` (the folder), ``disk-full``, ``disk-error``.
    """
    if len(data) > SECRET_MAX_BYTES:
        raise ValueError("a secret file has at most 64 KiB")
    check_place(path)
    with mapping(str(path)):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            temporary = f".{path.name}.{secrets.token_hex(8)}"
            descriptor = os.open(temporary, _WRITE, 0o600, dir_fd=folder)
            try:
                try:
                    os.fchmod(descriptor, 0o600)
                    view = memoryview(data)
                    while view:
                        view = view[os.write(descriptor, view) :]
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(temporary, dir_fd=folder)
                raise
            os.fsync(folder)
        finally:
            os.close(folder)


def read_secret(path: Path) -> bytes:
    """The bytes of a secret file.

    Raises:
        RefusedError: ``key-file-permissions``, ``key-file-link``, ``key-file-owner``, ``key-file-too-large``.
        UnavailableError: ``file-missing``, ``disk-error``.
        InputError: ``not-permitted``.
    """
    check_place(path)
    name = escape(str(path), limit=300)
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _refused("key-file-link", f"The key file “{name}” is a link or no file.", "Name the file itself.") from None
        raise mapped(error, str(path)) from error
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise _refused("key-file-link", f"The key file “{name}” is a link or no file.", "Name the file itself.")
        if info.st_uid != os.geteuid():
            raise _refused("key-file-owner", f"The key file “{name}” belongs to someone else.", "Use a file of your own.")
        if info.st_mode & 0o077:
            raise _refused("key-file-permissions", f"Others may read the key file “{name}”.", f"Run: chmod 600 '{name}'")
        if info.st_size > SECRET_MAX_BYTES:
            raise _refused("key-file-too-large", f"The key file “{name}” is longer than 64 KiB.", "Check its name.")
        with mapping(str(path)):
            data = b""
            while more := os.read(descriptor, SECRET_MAX_BYTES + 1 - len(data)):
                data += more
        if len(data) > SECRET_MAX_BYTES:
            raise _refused("key-file-too-large", f"The key file “{name}” is longer than 64 KiB.", "Check its name.")
        return data
    finally:
        os.close(descriptor)


def _refused(code: str, message: str, hint: str) -> RefusedError:
    return RefusedError(code, message, hint=hint)
