"""How a table that cannot be read is reported: one sentence with what is wrong and where. Names in it are escaped."""

from __future__ import annotations

from typing import Final

from labxchange.dataset.names import escape
from labxchange.errors import InputError

_AGAIN: Final = "Compare its digest with the manifest; when they agree, the file was already like this at the sender's."
CELLS_MIN: Final = 50_000_000
CELLS_PER_BYTE: Final = 200
"""A table of more cells than both allow is refused before memory is taken: a few bytes can claim any number of rows."""


def shown(name: str) -> str:
    """A file's or column's name for a message."""
    return f"“{escape(name, limit=200)}”"


def damaged(name: str, what: str) -> InputError:
    """The file ``name`` is no intact table; ``what`` ends the sentence, without its full stop."""
    return InputError("table-damaged", f"The table {shown(name)} cannot be read: {escape(what, limit=500)}.", hint=_AGAIN)


def check_cells(name: str, rows: int, columns: int, data_bytes: int) -> None:
    """Refuse what a file claims and its size makes absurd.

    Raises:
        InputError: ``table-too-large``.
    """
    if rows < 0 or rows * max(columns, 1) > max(CELLS_MIN, CELLS_PER_BYTE * data_bytes):
        raise InputError(
            "table-too-large",
            f"The table {shown(name)} claims {rows:,} rows of {columns:,} columns in {data_bytes:,} bytes: not plausible.",
            hint="Ask the sender for the table in another format.",
        )
