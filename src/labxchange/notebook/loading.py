"""A received table in memory: only from bytes that are, now, what was verified.

Rules:

- The bytes are held still, then hashed, then parsed: what pandas reads is what was hashed, and nothing else is parsed.
- What they are compared with is the digest over BLAKE3 chunks that the sender's manifest signs beside SHA-256: pandas reads a
  large CSV on all cores, and SHA-256 of it would take as long again.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from labxchange.dataset.manifest import chunks_digest
from labxchange.dataset.names import escape
from labxchange.errors import IntegrityError, UnavailableError
from labxchange.files.disk_errors import mapped
from labxchange.files.held import held
from labxchange.node.values import FileInfo

if TYPE_CHECKING:
    import pandas

_PART_CHUNKS: Final = 64
"""What a thread hashes at a time: handing over each chunk alone would cost a tenth of the hashing."""


def load(file: FileInfo) -> pandas.DataFrame:
    """Hash the file and parse exactly what was hashed.

    Raises:
        UnavailableError: ``file-missing``, ``disk-error``, ``out-of-descriptors``.
        IntegrityError: ``file-changed``.
        InputError: of ``content.tables.read``.
    """
    frame = _read(file, copied=False)
    if frame is None:  # somebody wants to write to it, who waits no longer
        frame = _read(file, copied=True)
    assert frame is not None, "nobody writes to a copy"
    frame.attrs["labxchange"] = {
        "share": file.share,
        "version": file.version,
        "path": file.path,
        "sha256": file.sha256,
        "transfer": file.transfer,
        "receipt": file.receipt,
    }
    return frame


def _read(file: FileInfo, *, copied: bool) -> pandas.DataFrame | None:
    """None when the bytes were not still until the end."""
    from labxchange.content.tables import read

    name = escape(file.path)
    try:
        with held(Path(file.place), copied=copied) as bytes_now:
            if digest(bytes_now.data, chunk_bytes=file.chunk_bytes) != file.chunks:
                raise IntegrityError(
                    "file-changed",
                    f"{name} is not what was verified: it was edited or damaged since.",
                    hint="`received.verify()` says which files; receive it again to have the original.",
                )
            bytes_now.leave_memory()
            frame = read(bytes_now.data, file.path, path=bytes_now.path)
            return frame if bytes_now.still else None
    except FileNotFoundError:
        raise UnavailableError("file-missing", f"{name} is not where it was received.", hint="Receive it again.") from None
    except OSError as error:
        raise mapped(error, file.place) from error


def digest(data: memoryview, *, chunk_bytes: int) -> str:
    """What a manifest says of a file beside SHA-256, in hexadecimal; taken on all cores, as pandas does with a CSV."""

    part_bytes = chunk_bytes * _PART_CHUNKS

    def part(begin: int) -> bytes:
        end = min(begin + part_bytes, len(data))
        return b"".join(blake3(data[at : min(at + chunk_bytes, end)]).digest() for at in range(begin, end, chunk_bytes))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return chunks_digest(b"".join(pool.map(part, range(0, len(data), part_bytes)))).hex()
