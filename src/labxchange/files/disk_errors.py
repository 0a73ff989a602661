"""Foreign disk errors become ours, once: whose fault it is decides the class.

Full disks, broken disks and exhausted descriptors are ``UnavailableError`` (the same call may work later); what the person may
not read or write is ``InputError``. The text names the file in printable form and never its content.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labxchange.dataset.names import escape
from labxchange.errors import InputError, LabxchangeError, UnavailableError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENODEV})
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def mapped(error: OSError, what: str) -> LabxchangeError:
    """Our error for ``error``, which occurred with the file or folder ``what``."""
    name = escape(what, limit=300)
    if error.errno in _FULL:
        return UnavailableError("disk-full", f"There is no space left for “{name}”.", hint="Free some space, then resume.")
    if error.errno in _DENIED:
        return InputError("not-permitted", f"You may not access “{name}”.", hint="Check its owner and permissions.")
    if error.errno in _ABSENT:
        return UnavailableError("file-missing", f"“{name}” is not there.")
    if error.errno == errno.EEXIST:
        return InputError("name-taken", f"“{name}” is there already and is not a folder.", hint="Choose another name.")
    if error.errno == errno.ELOOP:
        return InputError("is-a-link", f"“{name}” is a link, which is not followed.")
    if error.errno in _EXHAUSTED:
        return UnavailableError("out-of-descriptors", f"The system has no file handle or memory left for “{name}”.")
    reason = os.strerror(error.errno) if error.errno else "unknown reason"
    return UnavailableError("disk-error", f"The disk failed with “{name}”: {reason}.", hint="Check the disk.")


def check_place(place: Path) -> None:
    """Accept a path that a person gave, if it can be one; raises InputError ``not-a-path``."""
    try:
        usable = b"\0" not in os.fsencode(place)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise InputError("not-a-path", f"“{escape(str(place), limit=300)}” cannot be a path.", hint="Check its characters.")


@contextmanager
def mapping(what: str) -> Iterator[None]:
    """Raise OSErrors of the block as ours."""
    try:
        yield
    except OSError as error:
        raise mapped(error, what) from error
