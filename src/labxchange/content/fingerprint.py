"""The value fingerprint of a table: equal for two tables exactly when they hold the same values under the same column names.

It does not depend on the format of the file, nor on how a format stores a number, a date or the end of a text.
docs/spec/fingerprint.md defines it; `canonical` makes the text of each cell.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from labxchange.content.canonical import BLOCK_ROWS, columns
from labxchange.encoding import frame as framed

if TYPE_CHECKING:
    from pandas import DataFrame

_COLUMN: Final = "labxchange column v0"
_TABLE: Final = "labxchange table v0"


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """What identifies the values of a table; ``str()`` gives the digest. Equal for two tables exactly when their values are.

    Fields:
        value: SHA-256, 64 hexadecimal digits.
        rows: rows of the table.
        columns: columns of the table.

    Example:
        lx.fingerprint(adsl) == lx.fingerprint(adsl.copy())
    """

    value: str
    rows: int
    columns: int

    def __str__(self) -> str:
        return self.value


def fingerprint(frame: DataFrame) -> Fingerprint:
    """The fingerprint of ``frame``'s values and column names; the index, labels and formats do not count.

    Raises:
        InputError: ``value-unknown`` when a cell holds what no table file can hold.
    """
    digests = [_digest(name, texts) for name, texts in columns(frame)]
    whole = hashlib.sha256(framed(_TABLE, len(frame), len(digests), *digests))
    return Fingerprint(value=whole.hexdigest(), rows=len(frame), columns=len(digests))


def _digest(name: str, texts: Any) -> bytes:
    """SHA-256 over blocks of rows: the lengths of their texts as u32 big-endian, then the texts."""
    out = hashlib.sha256(framed(_COLUMN, name))
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1] if len(texts) else ()
    held = texts.buffers()[2]
    data = memoryview(held) if held is not None else memoryview(b"")
    for begin in range(0, len(texts), BLOCK_ROWS):
        ends = offsets[begin : begin + BLOCK_ROWS + 1]
        out.update(np.diff(ends).astype(">u4").tobytes())
        out.update(data[ends[0] : ends[-1]])
    return out.digest()
