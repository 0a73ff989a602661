"""Text that is UTF-8 in part: whatever is no UTF-8 in it is Windows-1252, and Latin-1 where that has one of its five holes.

Files that were joined from several sources hold both. Bytes of Windows-1252 that happen to be UTF-8 (Ã followed by ©) are read as
that, which no text of a table means otherwise.
"""

from __future__ import annotations

import codecs
from typing import Final

OR_WINDOWS: Final = "labxchange-or-windows-1252"
"""For ``errors`` of any decoder of UTF-8."""
WINDOWS: Final = "windows-1252"
MIXED: Final = f"utf-8 and {WINDOWS}"
_BLOCK_BYTES: Final = 1 << 20


def _windows(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    raw = error.object[error.start : error.end]
    try:
        return raw.decode("cp1252"), error.end
    except UnicodeDecodeError:
        return raw.decode("latin-1"), error.end


codecs.register_error(OR_WINDOWS, _windows)


def in_words(data: bytes | memoryview) -> str:
    """The encoding of bytes that are not UTF-8 throughout: Windows-1252, or both."""
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    blocks = (bytes(data[at : at + _BLOCK_BYTES]) for at in range(0, len(data), _BLOCK_BYTES))
    return WINDOWS if all(decoder.decode(block).isascii() for block in blocks) else MIXED
