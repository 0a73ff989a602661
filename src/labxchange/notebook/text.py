"""Numbers and times as people read them, and tables of plain text; everything from a peer is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from labxchange.dataset.names import escape


def size(count: int) -> str:
    """Bytes with a decimal unit: ``1.5 MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def when(utc_ms: int) -> str:
    """UTC to the minute; ``-`` for none."""
    return f"{datetime.fromtimestamp(utc_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC" if utc_ms else "-"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> str:
    """Columns aligned with spaces; ``empty`` when there is no row."""
    if not rows:
        return empty
    cells = [[escape(str(cell)) for cell in row] for row in rows]
    widths = [max(len(head), *(len(row[column]) for row in cells)) for column, head in enumerate(heads)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in [list(heads), *cells]
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
