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


def amount(count: int, noun: str) -> str:
    """``1 file``, ``12,000 files``."""
    many = f"{noun[:-1]}ies" if noun.endswith("try") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else many}"


def duration(seconds: int) -> str:
    """``2 h 3 min``, ``4 min 10 s``, ``12 s``: the two largest units."""
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(max(seconds, 0), length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def when(utc_ms: int) -> str:
    """UTC to the minute; ``-`` for none."""
    if not utc_ms:
        return "-"
    try:
        return f"{datetime.fromtimestamp(utc_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, OSError, ValueError):  # a peer may name any number
        return "a time that does not exist"


def shorten(content: str) -> str:
    """At most 80 characters of a name, for a line of a list; escaped."""
    return escape(content, limit=80)


def second(utc_ms: int) -> str:
    """UTC to the second of the day."""
    return f"{datetime.fromtimestamp(utc_ms / 1000, UTC):%H:%M:%S} UTC"


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
