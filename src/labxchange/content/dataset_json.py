"""CDISC Dataset-JSON: version 1.0 and 1.1, and 1.1 as lines (NDJSON).

Rules:

- A file that says how many records it has must have them; a row that is longer or shorter than the columns is damage.
- ``integer``, ``float``, ``double`` are numbers; ``decimal``, which is written as text, too where all of it is numbers. Dates and
  datetimes become such only when the file says ``targetDataType: integer`` (they were numbers at the sender's) and every one is
  complete; partial dates, as SDTM allows them, stay the text they are.
- A value of another type than its column says leaves the column as it is written (mixed).
- ``ITEMGROUPDATASEQ`` of version 1.0 numbers the records of the file and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec
import numpy as np

from labxchange.content.damage import damaged
from labxchange.content.extras import library
from labxchange.content.sas import framed
from labxchange.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame

_SEQUENCE: Final = "ITEMGROUPDATASEQ"
_NUMBERS: Final = ("integer", "float", "double", "decimal")
_ABOUT_MAX_BYTES: Final = 16 << 20
_ROWS_BEGIN: Final = re.compile(rb'"(rows|itemData)"\s*:\s*\[')
"""A quotation mark within a text is escaped, so this is a key and no text."""
_Cell = str | int | float | bool | None
_Rows = list[list[_Cell]]


class _Column(msgspec.Struct, frozen=True):
    name: str
    label: str | None = ""
    dataType: str | None = ""  # noqa: N815 - the standard's names
    type: str | None = ""
    targetDataType: str | None = ""  # noqa: N815
    displayFormat: str | None = ""  # noqa: N815


class _Group(msgspec.Struct, frozen=True):
    items: list[_Column]
    itemData: _Rows = []  # noqa: N815
    records: int | None = None
    name: str | None = ""
    label: str | None = ""


class _Groups(msgspec.Struct, frozen=True):
    itemGroupData: dict[str, _Group]  # noqa: N815


class _File(msgspec.Struct, frozen=True):
    datasetJSONVersion: str | None = None  # noqa: N815
    columns: list[_Column] | None = None
    rows: _Rows = []
    records: int | None = None
    name: str | None = ""
    label: str | None = ""
    clinicalData: _Groups | None = None  # noqa: N815
    referenceData: _Groups | None = None  # noqa: N815


def read(data: bytes | memoryview, name: str) -> DataFrame:
    """The dataset of a ``.json`` file.

    Raises:
        InputError: ``table-damaged``.
    """
    return _frame(_group(_decoded(data, _File, name), name), name)


def read_lines(data: bytes | memoryview, name: str) -> DataFrame:
    """The dataset of an ``.ndjson`` file: a line about it, then a line for each row.

    Raises:
        InputError: ``table-damaged``.
    """
    first, _, rest = bytes(data).partition(b"\n")
    about = _first_line(first, name)
    try:
        rows = msgspec.json.Decoder(list[_Cell]).decode_lines(rest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise damaged(name, f"one of its lines is no row of a Dataset-JSON ({error})") from None
    return _frame(msgspec.structs.replace(about, itemData=rows), name)


def columns(stream: BinaryIO, name: str) -> dict[str, str]:
    """Name -> label of each column of a ``.json`` file: from what stands before its rows, or of all of it where they come first.

    Raises:
        InputError: ``table-damaged``.
    """
    head = stream.read(_ABOUT_MAX_BYTES)
    begin = _ROWS_BEGIN.search(head)
    about = head[: begin.end()] if begin else b""
    for end in (b"]}", b"]}}}}"):
        try:
            return _labels(_group(msgspec.json.decode(about + end, type=_File), name))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InputError):
            continue
    return _labels(_group(_decoded(head + stream.read(), _File, name), name))


def line_columns(stream: BinaryIO, name: str) -> dict[str, str]:
    """The same of an ``.ndjson`` file, from its first line.

    Raises:
        InputError: ``table-damaged``.
    """
    return _labels(_first_line(stream.readline(_ABOUT_MAX_BYTES), name))


def cut(data: bytes | memoryview, name: str, *, columns: Sequence[str], rows: np.ndarray[Any, Any]) -> bytes:
    """The columns with these names and the rows with these numbers of a file that was read, in the same form; all else as it is.

    Raises:
        InputError: ``table-damaged``; parts that ``read`` passes over are judged here.
    """
    try:
        return _cut_lines(bytes(data), columns, rows) if name.lower().endswith(".ndjson") else _cut_file(data, columns, rows)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise damaged(name, f"it is no Dataset-JSON ({error})") from None


def _cut_file(data: bytes | memoryview, columns: Sequence[str], rows: np.ndarray[Any, Any]) -> bytes:
    file = msgspec.json.decode(data)
    group, about_key, rows_key = file, "columns", "rows"
    if file.get("columns") is None:
        parts = [file.get(key) for key in ("clinicalData", "referenceData")]
        (group,) = [group for part in parts if part for group in part["itemGroupData"].values()]
        about_key, rows_key = "items", "itemData"
    held = group.get(rows_key, [])
    group[about_key], places = _kept(group[about_key], columns)
    group[rows_key] = [[held[row][place] for place in places] for row in rows]
    group["records"] = len(rows)
    return msgspec.json.encode(file)


def _cut_lines(data: bytes, columns: Sequence[str], rows: np.ndarray[Any, Any]) -> bytes:
    first, _, rest = data.partition(b"\n")
    about = msgspec.json.decode(first)
    held = msgspec.json.Decoder(list[msgspec.Raw]).decode_lines(rest)
    kept, places = _kept(about["columns"], columns)
    lines = [about | {"columns": kept, "records": len(rows)}, *([held[row][place] for place in places] for row in rows)]
    return msgspec.json.Encoder().encode_lines(lines)


def _kept(items: list[dict[str, Any]], columns: Sequence[str]) -> tuple[list[dict[str, Any]], list[int]]:
    names = [item["name"] for item in items]
    places = [names.index(column) for column in ([_SEQUENCE] if _SEQUENCE in names else []) + list(columns)]
    return [items[place] for place in places], places


def _decoded(data: bytes | memoryview, kind: type[_File], name: str) -> _File:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise damaged(name, f"it is no Dataset-JSON ({error})") from None


def _group(file: _File, name: str) -> _Group:
    """The one dataset of a file."""
    if file.columns is not None:
        return _Group(file.columns, file.rows, file.records, file.name, file.label)
    groups = [group for part in (file.clinicalData, file.referenceData) if part for group in part.itemGroupData.values()]
    if len(groups) != 1:
        raise damaged(name, "it is no Dataset-JSON" if not groups else "it holds more than one dataset")
    return groups[0]


def _first_line(line: bytes, name: str) -> _Group:
    file = _decoded(line, _File, name)
    if file.columns is None:
        raise damaged(name, "its first line is not that of a Dataset-JSON")
    return _group(file, name)


def _labels(group: _Group) -> dict[str, str]:
    return {item.name: item.label or "" for item in group.items if item.name != _SEQUENCE}


def _frame(group: _Group, name: str) -> DataFrame:
    items, rows = group.items, group.itemData
    if group.records is not None and group.records != len(rows):
        raise damaged(name, f"it says that it has {group.records:,} records and has {len(rows):,}")
    wrong = next((index for index, row in enumerate(rows) if len(row) != len(items)), None)
    if wrong is not None:
        raise damaged(name, f"row {wrong + 1:,} has {len(rows[wrong]):,} values for {len(items):,} columns")
    names = [item.name for item in items]
    if len(set(names)) < len(names):
        raise damaged(name, "two of its columns have one name")
    cells: list[tuple[_Cell, ...]] = list(zip(*rows, strict=True)) if rows else [() for _ in items]
    kept = [(item, column) for item, column in zip(items, cells, strict=True) if item.name != _SEQUENCE]
    frame = framed(
        {item.name: _column(item, column) for item, column in kept},
        labels={item.name: item.label for item, _ in kept if item.label},
        formats={item.name: item.displayFormat for item, _ in kept if item.displayFormat},
        table={"name": group.name or "", "label": group.label or ""},
    )
    if not kept:
        return frame.reindex(range(len(rows)))
    return frame


def _column(item: _Column, cells: tuple[_Cell, ...]) -> Any:
    pandas = library("pandas")
    said = (item.dataType or item.type or "").lower()
    kinds = {type(cell) for cell in cells} - {type(None)}
    if said in _NUMBERS and (numbers := _numbers(cells, kinds)) is not None:
        return numbers
    if kinds <= {str} and said not in ("boolean", *_NUMBERS):
        if said in ("date", "datetime") and item.targetDataType and (dates := _dates(cells, said)) is not None:
            return dates
        return pandas.Series(cells, dtype="str")
    if kinds == {bool}:
        return pandas.Series(cells, dtype="boolean" if None in cells else "bool")
    return pandas.Series(cells, dtype="object")


def _numbers(cells: tuple[_Cell, ...], kinds: set[type]) -> np.ndarray[Any, Any] | None:
    """The cells as int64 or float64; None when one is no number."""
    try:
        if kinds == {int} and None not in cells:
            return np.array(cells, np.int64)
        if kinds <= {int, float} or kinds == {str}:
            return np.array([np.nan if cell is None else float(cell) for cell in cells], np.float64)
    except (ValueError, OverflowError):
        return None
    return None


def _dates(cells: tuple[_Cell, ...], said: str) -> np.ndarray[Any, Any] | None:
    """Complete dates as datetime64; None when one is partial, of a time zone, or no date."""
    lengths = {len(cell) for cell in cells if isinstance(cell, str)}
    if not lengths <= ({10} if said == "date" else {19}):
        return None
    try:
        return np.array([cell or "NaT" for cell in cells], "datetime64[s]")
    except ValueError:
        return None
