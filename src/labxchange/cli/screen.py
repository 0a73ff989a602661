"""What a command writes: values as text or as one JSON value on stdout, remarks on stderr.

Names, notes and messages come from other organisations. Everything printed here goes through ``escape`` and is plain text for
Rich, so no control character, direction mark or markup in it has an effect; JSON is pure ASCII for the same reason.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

T = TypeVar("T")

_STYLES = {
    **dict.fromkeys(["ok", "verified", "completed", "available", "accepted", "intact", "match", "VALID"], "green"),
    **dict.fromkeys(["warning", "waiting", "paused", "unverified", "hashing", "VALID-UNANCHORED", "INCOMPLETE"], "yellow"),
    **dict.fromkeys(["problem", "failed", "cut", "blocked", "revoked", "rejected", "not-intact", "DIVERGED", "INVALID"], "red"),
}
_PIPE_WIDTH = 1000


@cache
def console() -> Console:
    """The terminal, or a pipe: there no line is folded."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    return Console(markup=False, highlight=False, emoji=False, width=None if terminal else _PIPE_WIDTH)


def printable(text: str) -> str:
    """``text`` without anything that a terminal would act on."""
    from labxchange.dataset.names import escape

    return escape(text)


def _text(content: str) -> Text:
    from rich.text import Text

    return Text(printable(content), style=_STYLES.get(content, ""))


def line(content: str = "") -> None:
    """One line on stdout, never folded."""
    console().print(_text(content), soft_wrap=True)


def quoted(name: str, text: str) -> None:
    """A text of several lines under its name, each of them marked, so that none passes for a line of ours; nothing if empty."""
    if text:
        line(f"{name}:")
        for part in text.split("\n"):
            line(f"  | {part}")


def remark(content: str) -> None:
    """One line on stderr: what is not the result."""
    sys.stderr.write(printable(content) + "\n")


def fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, one pair a line; pairs without a value are left out."""
    shown = [(name, value) for name, value in pairs if value]
    if shown:
        _grid([[_text(name), _text(value)] for name, value in shown])


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """A table, or the sentence ``empty`` when there is no row."""
    if rows:
        _grid([[_text(cell) for cell in row] for row in rows], headings=headings)
    else:
        line(empty)


def _grid(rows: Sequence[Sequence[Text]], *, headings: Sequence[str] = ()) -> None:
    from rich.table import Table

    grid = Table(box=None, show_header=bool(headings), pad_edge=False, header_style="bold")
    for name in headings or [""] * len(rows[0]):
        grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    with console().capture() as captured:
        console().print(grid)
    sys.stdout.write("".join(f"{text.rstrip()}\n" for text in captured.get().splitlines()))


def plain(value: object) -> Any:
    """``value`` as JSON knows it; dataclasses and this project's values included."""
    import msgspec

    return msgspec.to_builtins(value)


def emit(value: object) -> None:
    """One JSON value on stdout."""
    sys.stdout.write(json.dumps(plain(value)) + "\n")


def show(value: T, draw: Callable[[T], None], *, as_json: bool) -> None:
    """The result of a command, in the form that was asked for."""
    if as_json:
        emit(value)
    else:
        draw(value)


def size(count: int) -> str:
    """``14.2 GB``, in powers of 1000 as disks and networks are sold."""
    if count < 1000:
        return f"{count} bytes" if count != 1 else "1 byte"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} PB"


def withheld(file: str, columns: Sequence[str], rows: int) -> str:
    """``adsl.xpt without 2 columns (ARM, TRT01P) and 86 rows``."""
    parts = [f"{number(len(columns), 'column')} ({', '.join(columns)})"] if columns else []
    parts += [number(rows, "row")] if rows else []
    return f"{file} without {' and '.join(parts)}"


def number(count: int, noun: str) -> str:
    """``1 file``, ``12,000 files``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
