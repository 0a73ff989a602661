"""Choosing a part of one table file in a form: columns by name, with their labels, and rows by a condition.

Of the file only its header is read until there is a condition; then its rows are counted, beside the loop, once for each
condition and state of the file. What a condition may say, what it keeps and how the part is made is all of ``node.exposing``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from labxchange.errors import InputError, LabxchangeError
from labxchange.node.exposing import Look, look, rows_held
from labxchange.node.values import WithheldInfo
from labxchange.notebook import cards, html
from labxchange.notebook.text import amount, shorten

_WHICH = (("all", "all"), ("only those chosen below", "only"), ("all but those chosen below", "but"))
_ROWS_SHOWN = 8
SEVERAL = "Ctrl or ⌘ with a click chooses several, Shift a range."


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What is chosen, as ``lx.share`` takes it; None: all."""

    source: Path
    look: Look
    columns: tuple[str, ...] | None
    withheld: tuple[str, ...]
    rows: str | None


class TablePart:
    """The fields of a form for a part of a table; none where what is chosen is no single table file.

    Args:
        changed: called when something else is chosen, from any thread.
    """

    def __init__(
        self, w: Any, *, field: Callable[[], dict[str, Any]], hint: Callable[[str], Any], changed: Callable[[], None]
    ) -> None:
        self._source: Path | None = None
        self._look: Look | None = None
        self._counted: tuple[tuple[object, ...], tuple[int, int]] | None = None
        self._counting = asyncio.Lock()
        self._wanted: Part | None = None
        self._which = w.Dropdown(options=_WHICH, description="Columns", **field())
        self._columns = w.SelectMultiple(rows=_ROWS_SHOWN, description=" ", **field())
        self._columns_hint = hint(SEVERAL)
        example = 'all; or a condition, such as AGE >= 65 and SEX in ["F"]'
        self._rows = w.Text(description="Rows", placeholder=example, continuous_update=False, **field())
        self._refused = hint("")
        self.box = w.VBox([])
        self._which.observe(lambda _: self._arrange(), "value")
        for one in (self._which, self._columns, self._rows):
            one.observe(lambda _: changed(), "value")

    async def follow(self, paths: Sequence[Path]) -> None:
        """Offer a choice where ``paths`` are one table file; a choice that was made stays as long as it is the same one."""
        source = paths[0] if len(paths) == 1 else None
        if source == self._source:
            return
        self._source, self._look, self._refused.value = source, None, ""
        self._arrange()
        found = await asyncio.to_thread(_found, source) if source else None
        if source != self._source:  # another one was chosen meanwhile
            return
        self._look = found if isinstance(found, Look) else None
        columns = self._look.columns if self._look else {}
        self._which.value, self._rows.value = "all", ""
        self._columns.options = [(shorten(f"{name}: {label}" if label else name), name) for name, label in columns.items()]
        self._refused.value = html.hint(f"It is shared whole. {found}") if isinstance(found, str) else ""
        self._arrange()

    def _arrange(self) -> None:
        if self._look is None:
            self.box.children = (self._refused,) if self._refused.value else ()
        elif self._which.value == "all":
            self.box.children = (self._which, self._rows)
        else:
            self.box.children = (self._which, self._columns, self._columns_hint, self._rows)

    def every_widget(self) -> tuple[Any, ...]:
        """For closing: those not shown too."""
        return (self.box, self._which, self._columns, self._columns_hint, self._rows, self._refused)

    def chosen(self) -> Part | None:
        """The part; None where all of it is shared.

        Raises:
            InputError: ``column-unknown``, where no column is left.
        """
        if self._look is None or self._source is None:
            return None
        names, picked = list(self._look.columns), set(self._columns.value)
        without = {"all": set(), "only": set(names) - picked, "but": picked}[self._which.value]
        rows = self._rows.value.strip() or None
        if names and without == set(names):
            raise InputError("column-unknown", "No column is left to share.", hint="Choose the columns.")
        if not without and rows is None:
            return None
        return Part(
            source=self._source,
            look=self._look,
            columns=tuple(name for name in names if name not in without) if without else None,
            withheld=tuple(name for name in names if name in without),
            rows=rows,
        )

    async def counted(self, part: Part) -> tuple[int, int] | None:
        """How many rows the part has and how many the whole; None where no row is left out, or something else was chosen.

        Raises:
            InputError: of ``node.exposing.rows_held``.
        """
        if part.rows is None:
            return None
        self._wanted = part
        async with self._counting:  # one large table in memory at a time
            if part != self._wanted:  # and none for a choice that is no more
                return None
            state = await asyncio.to_thread(_state, part)
            if self._counted is None or self._counted[0] != state:
                self._counted = state, await asyncio.to_thread(rows_held, part.source, part.rows)
            return self._counted[1]


def _found(source: Path) -> Look | str | None:
    """What is known of a table file, or why it cannot be read; None for what is no table by its name."""
    try:
        return look(source) if source.is_file() else None
    except LabxchangeError as error:
        return None if error.code == "table-unknown" else error.message


def _state(part: Part) -> tuple[object, ...]:
    try:
        about = part.source.stat()
    except OSError:
        return (part.source, part.rows)
    return (part.source, part.rows, about.st_mtime_ns, about.st_size)


def explained(part: Part, counted: tuple[int, int] | None, *, folder: Path) -> tuple[str, list[str]]:
    """A part in a few words, and lines of markup on what that means: what is withheld, who is told, where it lies."""
    every = len(part.look.columns)
    kept = every - len(part.withheld)
    what = f"{kept:,} of {amount(every, 'column')}" if part.withheld else f"all {amount(every, 'column')}"
    what += f", {counted[0]:,} of {amount(counted[1], 'row')}" if counted else ", all rows"
    missing = counted[1] - counted[0] if counted else 0
    left = WithheldInfo(file=part.look.part_name, columns=part.withheld, rows=missing)
    lines = [cards.withheld([left])] if left.columns or left.rows else ["Nothing is withheld: every row fulfils the condition."]
    if counted and not counted[0]:
        lines.append(html.mark("No row fulfils the condition: the shared table has none.", "warn"))
    lines.append("Recipients see this before they receive: columns by name, rows by number, and not the condition.")
    lines.append("It stands in the share that you sign, and as an entry in your audit trail.")
    lines.append(f"The part becomes a file of its own in {html.code(folder)}. It stays there until you remove it.")
    return f"{part.look.part_name}, a part of it: {what}", lines
