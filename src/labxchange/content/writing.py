"""Writing tables, and cutting a part out of one in its own format.

Rules:

- ``write`` keeps labels and formats where the format has a place for them: SAS transport and Parquet. CSV has none.
- ``subset`` leaves the cells that it keeps as they are in the source: the same text in CSV and Dataset-JSON, the same bytes in
  SAS transport. What was withheld is said: columns by name, rows by number.
- A sas7bdat becomes a SAS transport file, since nothing but SAS writes sas7bdat.

What may be withheld from whom, and that it is recorded, is for the callers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from labxchange.content import canonical, dataset_json, parquet, tables, transport_writing
from labxchange.content import rows as conditions
from labxchange.content.damage import shown
from labxchange.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame


class Subset(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a table: its bytes, and what is in it and what is not."""

    data: bytes
    kind: str
    """The format of ``data``: the ending of a file's name."""
    columns: tuple[str, ...]
    withheld_columns: tuple[str, ...]
    rows: int
    withheld_rows: int


def write(frame: DataFrame, kind: str) -> bytes:
    """``frame`` as ``csv``, ``xpt`` (version 5, or 8 where 5 cannot hold it) or ``parquet``; its index is left out.

    Raises:
        InputError: ``table-unknown``, ``table-unwritable``.
    """
    if kind == "csv":
        return _csv(frame)
    if kind == "xpt":
        return transport_writing.write(frame)
    if kind == "parquet":
        return parquet.write(frame)
    raise InputError("table-unknown", f"Tables are not written as {shown(kind)}.", hint="Known are csv, xpt and parquet.")


def subset(
    data: bytes | memoryview,
    name: str,
    *,
    columns: Sequence[str] | None = None,
    rows: str | Mapping[str, Any] | Callable[[DataFrame], Any] | None = None,
) -> Subset:
    """Chosen columns and rows of the table in ``data``, in its own format; a sas7bdat becomes SAS transport.

    Args:
        columns: names, in the order in which they shall stand; None: all.
        rows: a condition (`rows`), or column -> value or list of values, or a function from the DataFrame to a truth value for
            each row; None: all.

    Raises:
        InputError: what ``tables.read`` raises; ``column-unknown``, ``rows-refused``, ``table-unwritable``.
    """
    kind, frame = tables.kind(name), tables.read(data, name)
    names = [str(column) for column in frame.columns]
    kept = names if columns is None else list(columns)
    for column in kept:
        _check_column(column, names)
    if len(set(kept)) < len(kept):
        raise InputError("column-unknown", "A column is chosen twice.", hint="Name each column once.")
    numbers = np.flatnonzero(_mask(frame, rows))
    places = [names.index(column) for column in kept]
    if kind == "sas7bdat":
        part = frame.iloc[numbers, places]
        part.attrs = frame.attrs
        kind, cut = "xpt", transport_writing.write(part)
    else:
        cut = _cut(data, name, frame, places=places, numbers=numbers)
    return Subset(
        data=cut,
        kind=kind,
        columns=tuple(kept),
        withheld_columns=tuple(column for column in names if column not in set(kept)),
        rows=len(numbers),
        withheld_rows=len(frame) - len(numbers),
    )


def count(data: bytes | memoryview, name: str, *, rows: str) -> tuple[int, int]:
    """How many rows ``subset`` would keep for a condition, and how many there are.

    Raises:
        InputError: what ``tables.read`` raises; ``rows-refused``.
    """
    frame = tables.read(data, name)
    return int(_mask(frame, rows).sum()), len(frame)


def _cut(data: bytes | memoryview, name: str, frame: DataFrame, *, places: list[int], numbers: np.ndarray[Any, Any]) -> bytes:
    kind = tables.kind(name)
    if kind == "xpt":
        return transport_writing.cut(data, name, columns=places, rows=numbers)
    if kind == "parquet":
        part = frame.iloc[numbers, places]
        part.attrs = frame.attrs
        return parquet.write(part)
    if kind in ("csv", "tsv"):
        return tables.cut_csv(data, name, columns=places, rows=numbers)
    return dataset_json.cut(data, name, columns=[str(frame.columns[place]) for place in places], rows=numbers)


def _check_column(column: str, names: Sequence[str]) -> None:
    if column not in names:
        near = [name for name in names if name.upper() == column.upper()]
        hint = f"There is {shown(near[0])}." if near else "Look at the table's columns."
        raise InputError("column-unknown", f"The table has no column {shown(column)}.", hint=hint)


def _mask(frame: DataFrame, rows: str | Mapping[str, Any] | Callable[[DataFrame], Any] | None) -> np.ndarray[Any, Any]:
    if rows is None:
        return np.ones(len(frame), bool)
    if isinstance(rows, str):
        return conditions.chosen(frame, rows)
    if isinstance(rows, Mapping):
        out = np.ones(len(frame), bool)
        for column, wanted in rows.items():
            _check_column(column, [str(one) for one in frame.columns])
            values = list(wanted) if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
            out &= conditions.among(frame[column], values)
        return out
    told = np.asarray(rows(frame))
    if told.shape != (len(frame),) or told.dtype != np.bool_:
        raise InputError(
            "rows-refused",
            "The function for rows did not return true or false for each row.",
            hint='Return a comparison, as in: lambda table: table["AGE"] >= 65',
        )
    return told


def _csv(frame: DataFrame) -> bytes:
    """Dates in ISO 8601, numbers as the shortest decimal that reads back the same, missing as nothing."""
    out = frame.copy(deep=False)
    for index, dtype in enumerate(frame.dtypes):
        if dtype.kind in "mM":
            out.isetitem(index, canonical.texts(frame.iloc[:, index]).to_pandas())
    text = io.BytesIO()
    out.to_csv(text, index=False, lineterminator="\n", encoding="utf-8")
    return text.getvalue()
