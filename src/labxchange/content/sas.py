"""Formats and dates of SAS: numbers since 1960 and the formats that make dates of them; and files in SAS' own format (sas7bdat).

Rules:

- A numeric column whose format shows a date becomes ``datetime64[s]``, one that shows a date and time ``datetime64[us]``. Times
  of day stay numbers (seconds), because a value over 24 hours is no time of day.
- A column that holds one date outside the years 1 to 9999, or a date with a fraction of a day, stays as the numbers it is: an
  error or a cut would hide what was sent. Its format says what they mean.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from labxchange.content.damage import check_cells, damaged
from labxchange.content.extras import library

if TYPE_CHECKING:
    from pandas import DataFrame

_DATES: Final = (
    "DATE", "DAY", "DDMMYY", "DOWNAME", "E8601DA", "IS8601DA", "B8601DA", "EURDFDD", "EURDFDE", "JULIAN", "JULDAY", "MINGUO",
    "MMDDYY", "MMYY", "MONNAME", "MONTH", "MONYY", "NENGO", "QTR", "QTRR", "WEEKDATE", "WEEKDATX", "WEEKDAY", "WORDDATE",
    "WORDDATX", "YEAR", "YYMM", "YYMMDD", "YYMON", "YYQ", "YYQR", "WEEKU", "WEEKV", "WEEKW",
)  # fmt: skip
_DATE_FORMATS: Final = frozenset(
    {*_DATES} | {base + mark for base in ("DDMMYY", "MMDDYY", "MMYY", "YYMM", "YYMMDD", "YYQ") for mark in "BCDNPS"}
)
_DATETIMES: Final = (
    "DATETIME", "DATEAMPM", "DTDATE", "DTMONYY", "DTWKDATX", "DTYEAR", "DTYYQC", "E8601DT", "IS8601DT", "B8601DT", "MDYAMPM",
    "EURDFDT", "E8601DN", "B8601DN",
)  # fmt: skip
_DATETIME_FORMATS: Final = frozenset(_DATETIMES)
EPOCH: Final = np.datetime64("1960-01-01", "D")
_FIRST_DAY: Final = int((np.datetime64("0001-01-01", "D") - EPOCH).astype(np.int64))
_LAST_DAY: Final = int((np.datetime64("9999-12-31", "D") - EPOCH).astype(np.int64))
DAY_S: Final = 86_400


def format_kind(text: str) -> str:
    """``date``, ``datetime`` or an empty string: what a SAS format such as ``DATE9.`` makes of a number."""
    name = text.strip().upper().partition(".")[0].rstrip("0123456789")
    return "date" if name in _DATE_FORMATS else "datetime" if name in _DATETIME_FORMATS else ""


def to_dates(numbers: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """``numbers`` (float64, NaN is missing) as datetimes, or unchanged where that would change a value."""
    missing = np.isnan(numbers)
    present = numbers[~missing]
    unit_s = DAY_S if kind == "date" else 1
    if present.size and (present.min() < _FIRST_DAY * (DAY_S // unit_s) or present.max() >= (_LAST_DAY + 1) * (DAY_S // unit_s)):
        return numbers
    if kind == "date":
        if (present != np.floor(present)).any():
            return numbers
        whole = np.where(missing, 0, numbers).astype(np.int64)
        out = (EPOCH + whole).astype("datetime64[s]")
    else:
        whole = np.round(np.where(missing, 0, numbers) * 1e6).astype(np.int64)
        out = EPOCH.astype("datetime64[us]") + whole
    out[missing] = np.datetime64("NaT")
    return out


def from_dates(dates: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """The numbers that SAS stores for ``dates`` (datetime64 of any unit); NaT is NaN."""
    missing = np.isnat(dates)
    since = dates.astype("datetime64[us]") - EPOCH.astype("datetime64[us]")
    numbers: np.ndarray[Any, Any] = since.astype(np.int64) / (1e6 * (DAY_S if kind == "date" else 1))
    numbers[missing] = np.nan
    return numbers


def read_sas7bdat(data: bytes | memoryview, name: str) -> DataFrame:
    """A file in SAS' own format.

    Raises:
        InputError: ``table-damaged``, ``table-too-large``.
    """
    pyreadstat = library("pyreadstat")
    try:
        _, about = pyreadstat.read_sas7bdat(io.BytesIO(data), metadataonly=True)
        check_cells(name, int(about.number_rows or 0), int(about.number_columns or 0), len(data))
        held, about = pyreadstat.read_sas7bdat(io.BytesIO(data), disable_datetime_conversion=True)
    except (pyreadstat.ReadstatError, pyreadstat.PyreadstatError, ValueError, OverflowError, MemoryError) as error:
        raise damaged(name, f"it is not an intact SAS dataset ({error})") from None
    formats = {column: text for column, text in about.original_variable_types.items() if text and text not in ("NULL", "$")}
    columns: dict[str, Any] = {}
    for column in held.columns:
        if about.readstat_variable_types.get(column) == "string":
            columns[column] = held[column].fillna("").astype("str")
            continue
        numbers = held[column].to_numpy(np.float64, na_value=np.nan)
        kind = format_kind(formats.get(column, ""))
        columns[column] = to_dates(numbers, kind) if kind else numbers
    return framed(
        columns,
        labels={column: label for column, label in about.column_names_to_labels.items() if label},
        formats=formats,
        table={"name": about.table_name or "", "label": about.file_label or ""},
    )


def sas7bdat_columns(stream: BinaryIO, name: str) -> dict[str, str]:
    """Name -> label of each column, from what stands before the rows.

    Raises:
        InputError: ``table-damaged``.
    """
    pyreadstat = library("pyreadstat")
    try:
        _, about = pyreadstat.read_sas7bdat(stream, metadataonly=True)
    except (pyreadstat.ReadstatError, pyreadstat.PyreadstatError, ValueError, OverflowError, MemoryError) as error:
        raise damaged(name, f"it is not an intact SAS dataset ({error})") from None
    return {column: about.column_names_to_labels.get(column) or "" for column in about.column_names}


def framed(columns: dict[str, Any], *, labels: dict[str, str], formats: dict[str, str], table: dict[str, str]) -> DataFrame:
    """Columns and what is known about them as one DataFrame; ``attrs`` holds ``labels``, ``formats`` and ``table`` where any."""
    frame: DataFrame = library("pandas").DataFrame(columns)
    frame.attrs["labels"] = labels
    frame.attrs["formats"] = formats
    if any(table.values()):
        frame.attrs["table"] = table
    return frame
