"""A received table in memory: only from bytes that are, now, what was verified."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from labxchange.dataset.names import escape
from labxchange.errors import IntegrityError, UnavailableError
from labxchange.node.values import FileInfo

if TYPE_CHECKING:
    import pandas


def load(file: FileInfo) -> pandas.DataFrame:
    """Read the file once, hash what was read, and parse exactly that.

    Raises:
        UnavailableError: ``file-missing``.
        IntegrityError: ``file-changed``.
        InputError: of ``content.tables.read``.
    """
    from labxchange.content.tables import read

    name = escape(file.path)
    try:
        data = Path(file.place).read_bytes()
    except OSError:
        raise UnavailableError("file-missing", f"{name} is not where it was received.", hint="Receive it again.") from None
    if sha256(data).hexdigest() != file.sha256:
        raise IntegrityError(
            "file-changed",
            f"{name} is not what was verified: it was edited or damaged since.",
            hint="`received.verify()` says which files; receive it again to have the original.",
        )
    frame = read(data, file.path)
    frame.attrs["labxchange"] = {
        "share": file.share,
        "version": file.version,
        "path": file.path,
        "sha256": file.sha256,
        "transfer": file.transfer,
        "receipt": file.receipt,
    }
    return frame
