"""What differs between two tables: rows added and removed, cells, columns, labels and types.

Rules:

- Values are compared by their canonical text (`canonical`), so a change of format alone is no difference.
- Rows are matched by keys: those given, else the identifiers of CDISC when they make each row unique in both tables, else by
  place.
- Every difference is counted; of the changed cells and of the rows a bounded number is kept to be shown.
- What is shown is escaped: names and values come from somebody else's file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from labxchange.content import canonical
from labxchange.content.damage import shown
from labxchange.content.extras import library
from labxchange.dataset.names import escape
from labxchange.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame

KEPT_MAX: Final = 1000
_SHOWN_MAX: Final = 20
_WIDTH: Final = 30
_IDENTIFIERS: Final = ("STUDYID", "USUBJID")
_WITHIN: Final = ("PARAMCD", "AVISITN", "ATPTN", "VISITNUM")


class CellChange(msgspec.Struct, frozen=True, kw_only=True):
    """One cell that differs.

    Fields:
        key: the values of its row's keys, or the row's number from 1.
        column: the name of its column.
        before: its canonical text in the first table.
        after: in the second.

    Example:
        lx.compare(adsl, adsl.assign(AGE=99)).cells[0].after
    """

    key: tuple[str, ...]
    column: str
    before: str
    after: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A label or a type of a column that differs.

    Fields:
        column: the name of the column.
        before: in the first table.
        after: in the second.

    Example:
        lx.compare(adsl, adsl.assign(AGE=adsl["AGE"].astype(str))).types[0].after
    """

    column: str
    before: str
    after: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All that differs from the first table to the second; prints as a list of differences.

    Fields:
        keys: the columns by which rows were matched; empty: by place.
        rows_before: rows of the first table.
        rows_after: rows of the second.
        rows_added: rows that only the second has.
        rows_removed: rows that only the first has.
        cells_changed: cells that differ in the rows and columns that both have.
        added: the keys of the first thousand rows added.
        removed: the keys of the first thousand rows removed.
        cells: the first thousand cells that differ.
        columns_added: columns that only the second has.
        columns_removed: columns that only the first has.
        labels: columns whose label differs.
        types: columns whose type differs.

    Example:
        print(lx.compare(adsl, adsl.drop(index=0)))
    """

    keys: tuple[str, ...]
    rows_before: int
    rows_after: int
    rows_added: int
    rows_removed: int
    cells_changed: int
    added: tuple[tuple[str, ...], ...]
    removed: tuple[tuple[str, ...], ...]
    cells: tuple[CellChange, ...]
    columns_added: tuple[str, ...]
    columns_removed: tuple[str, ...]
    labels: tuple[Change, ...]
    types: tuple[Change, ...]

    @property
    def same_values(self) -> bool:
        """Whether both hold the same columns, rows and values; labels and types may differ.

        Example:
            lx.compare(adsl, adsl.copy()).same_values
        """
        return not (self.rows_added or self.rows_removed or self.cells_changed or self.columns_added or self.columns_removed)

    def to_frame(self) -> DataFrame:
        """One line for each difference that is kept: what, key, column, before, after; escaped.

        Example:
            lx.compare(adsl, adsl.drop(index=0)).to_frame()
        """
        head = ["what", "key", "column", "before", "after"]
        frame: DataFrame = library("pandas").DataFrame([[escape(cell) for cell in line] for line in self._lines()], columns=head)
        return frame

    def _lines(self) -> Iterator[tuple[str, str, str, str, str]]:
        yield from (("column added", "", name, "", "") for name in self.columns_added)
        yield from (("column removed", "", name, "", "") for name in self.columns_removed)
        yield from (("label", "", one.column, one.before, one.after) for one in self.labels)
        yield from (("type", "", one.column, one.before, one.after) for one in self.types)
        yield from (("row added", " ".join(key), "", "", "") for key in self.added)
        yield from (("row removed", " ".join(key), "", "", "") for key in self.removed)
        yield from (("cell", " ".join(one.key), one.column, one.before, one.after) for one in self.cells)

    def __repr__(self) -> str:
        by = " ".join(self.keys) or "place"
        head = [
            f"{self.rows_before:,} rows before, {self.rows_after:,} after, matched by {escape(by, limit=200)}",
            f"rows added {self.rows_added:,}, removed {self.rows_removed:,}; cells changed {self.cells_changed:,}; "
            f"columns added {len(self.columns_added):,}, removed {len(self.columns_removed):,}; "
            f"labels changed {len(self.labels):,}; types changed {len(self.types):,}",
        ]
        lines = [line for line, _ in zip(self._lines(), range(_SHOWN_MAX), strict=False)]
        if not lines:
            return "\n".join([*head, "no difference"])
        table = [("what", "key", "column", "before", "after"), *lines]
        cells = [[escape(cell, limit=_WIDTH) for cell in line] for line in table]
        widths = [max(len(line[index]) for line in cells) for index in range(5)]
        text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
        all_lines = sum(1 for _ in self._lines())
        more = [f"… and {all_lines - len(lines):,} more: to_frame()"] if all_lines > len(lines) else []
        return "\n".join([*head, "", *text, *more])


def compare(a: DataFrame, b: DataFrame, *, keys: Sequence[str] = ()) -> Comparison:
    """What changes from ``a`` to ``b``.

    Args:
        keys: columns that identify a row; empty: guessed (USUBJID with --SEQ, PARAMCD, AVISITN ...), else rows match by place.

    Raises:
        InputError: ``column-unknown`` and ``keys-not-unique`` for keys that were given; ``value-unknown``.
    """
    before, after = _Table(a), _Table(b)
    used = _given(keys, before, after) if keys else _guessed(before, after)
    old, new = _matched(before, after, used)
    common = [name for name in before.names if name in after.names]
    identity = [before.key(name) for name in used]
    changed = 0
    cells: list[CellChange] = []
    left, right = old.places[old.found], old.partners[old.found]
    pa, compute = library("pyarrow"), library("pyarrow.compute")
    for name in (name for name in common if name not in used):
        x, y = before.texts(name).take(pa.array(left)), after.texts(name).take(pa.array(right))
        differ = np.flatnonzero(compute.not_equal(x, y).to_numpy(zero_copy_only=False))
        changed += len(differ)
        for row in differ[: KEPT_MAX - len(cells)]:
            key = _key(identity, int(left[row]))
            cells.append(CellChange(key=key, column=name, before=x[int(row)].as_py(), after=y[int(row)].as_py()))
    gone, come = old.places[~old.found], new
    return Comparison(
        keys=tuple(used),
        rows_before=len(a),
        rows_after=len(b),
        rows_added=len(come),
        rows_removed=len(gone),
        cells_changed=changed,
        added=tuple(_key([after.key(name) for name in used], int(row)) for row in come[:KEPT_MAX]),
        removed=tuple(_key(identity, int(row)) for row in gone[:KEPT_MAX]),
        cells=tuple(cells),
        columns_added=tuple(name for name in after.names if name not in before.names),
        columns_removed=tuple(name for name in before.names if name not in after.names),
        labels=_labels(a, b, common=common),
        types=_types(a, b),
    )


class _Table:
    """A table's columns as canonical text, each made when it is asked for: those of a large table need not fit together."""

    def __init__(self, frame: DataFrame) -> None:
        self._frame = frame
        self.names: dict[str, int] = {str(name): index for index, name in enumerate(frame.columns)}
        self.rows = len(frame)
        self._keys: dict[str, Any] = {}
        if len(self.names) < len(frame.columns):
            raise InputError("column-unknown", "Two columns of a table have one name.", hint="Give each column its own name.")

    def texts(self, name: str) -> Any:
        return canonical.texts(self._frame.iloc[:, self.names[name]])

    def key(self, name: str) -> Any:
        """The same of a column that is asked for again and again."""
        if name not in self._keys:
            self._keys[name] = self.texts(name)
        return self._keys[name]


class _Match(msgspec.Struct, frozen=True):
    places: Any
    """Row numbers of the first table."""
    partners: Any
    """The row of the second that each belongs to; undefined where none was found."""
    found: Any


def _matched(before: _Table, after: _Table, keys: Sequence[str]) -> tuple[_Match, Any]:
    """How the rows of the first table lie in the second, and the rows of the second that none belongs to."""
    a, b = before.rows, after.rows
    places = np.arange(a)
    if not keys:
        return _Match(places, places, places < b), np.arange(min(a, b), b)
    pandas = library("pandas")
    first, second = (pandas.MultiIndex.from_arrays([held.key(name).to_pandas() for name in keys]) for held in (before, after))
    partners = second.get_indexer(first)
    alone = np.ones(b, bool)
    alone[partners[partners >= 0]] = False
    return _Match(places, partners, partners >= 0), np.flatnonzero(alone)


def _key(identity: Sequence[Any], row: int) -> tuple[str, ...]:
    return tuple(column[row].as_py() for column in identity) or (str(row + 1),)


def _unique(held: _Table, keys: Sequence[str]) -> bool:
    pandas = library("pandas")
    return not pandas.DataFrame({name: held.key(name).to_pandas() for name in keys}).duplicated().any()


def _given(keys: Sequence[str], before: _Table, after: _Table) -> list[str]:
    for held in (before, after):
        missing = [name for name in keys if name not in held.names]
        if missing:
            raise InputError(
                "column-unknown", f"The table has no column {shown(missing[0])}.", hint="Look at the table's columns."
            )
        if not _unique(held, keys):
            raise InputError(
                "keys-not-unique",
                f"The keys {shown(' '.join(keys))} do not identify each row: two rows have the same.",
                hint="Add a column to the keys, or leave them out to match rows by place.",
            )
    return list(keys)


def _guessed(before: _Table, after: _Table) -> list[str]:
    """The first combination of CDISC's identifiers that is unique in both; none: by place."""
    both = [name for name in before.names if name in after.names]
    subject: list[str] = [name for name in _IDENTIFIERS if name in both]
    if "USUBJID" not in subject:
        return []
    sequences = [name for name in both if len(name) in (4, 5) and name.endswith("SEQ")]
    within = [name for name in _WITHIN if name in both]
    tries: list[list[str]] = [subject, *([*subject, name] for name in sequences)]
    tries += [[*subject, *within[: count + 1]] for count in range(len(within))]
    return next((keys for keys in tries if _unique(before, keys) and _unique(after, keys)), [])


def _labels(a: DataFrame, b: DataFrame, *, common: Sequence[str]) -> tuple[Change, ...]:
    x, y = a.attrs.get("labels", {}), b.attrs.get("labels", {})
    pairs = ((name, x.get(name, ""), y.get(name, "")) for name in common)
    return tuple(Change(column=name, before=old, after=new) for name, old, new in pairs if old != new)


def _types(a: DataFrame, b: DataFrame) -> tuple[Change, ...]:
    x, y = ({str(name): _kind(frame.iloc[:, index]) for index, name in enumerate(frame.columns)} for frame in (a, b))
    return tuple(Change(column=name, before=x[name], after=y[name]) for name in x if name in y and x[name] != y[name])


def _kind(column: Any) -> str:
    """A word for what a column holds; integers and floats are both numbers."""
    types = library("pandas").api.types
    if types.is_bool_dtype(column.dtype):
        return "boolean"
    if types.is_numeric_dtype(column.dtype):
        return "number"
    if column.dtype.kind in "mM":
        return "date" if column.dtype.kind == "M" else "duration"
    return "text" if types.is_string_dtype(column) else "mixed"
