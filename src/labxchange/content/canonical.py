"""The canonical text of each cell: what two tables must have in common to hold the same values, whatever file they came from.

docs/spec/fingerprint.md defines it. Whole columns are turned at once with pyarrow; only columns of mixed Python objects are
walked cell by cell.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from labxchange.content.damage import shown
from labxchange.content.extras import library
from labxchange.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

EXACT: Final = 2**53
BLOCK_ROWS: Final = 1 << 16


def columns(frame: DataFrame) -> Iterator[tuple[str, Any]]:
    """(name, canonical texts as a ``large_string`` array without nulls) of each column."""
    for index, name in enumerate(frame.columns):
        yield str(name), texts(frame.iloc[:, index])


def texts(column: Series) -> Any:
    """The canonical texts of one column.

    Raises:
        InputError: ``value-unknown`` when a cell holds something that is no value of a table.
    """
    pa = library("pyarrow")
    try:
        array = pa.array(column, from_pandas=True)
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        plain = _texts(array)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        plain = None
    if plain is None:
        plain = pa.array([_text(cell, str(column.name)) for cell in column.astype(object)], pa.large_string())
        plain = _normal(plain)
    return plain.fill_null("")


def _texts(array: Any) -> Any:
    """None for a type that needs a look at each cell."""
    pa, types, compute = library("pyarrow"), library("pyarrow.types"), library("pyarrow.compute")
    if types.is_dictionary(array.type):
        words = _texts(array.dictionary)
        return None if words is None else words.take(array.indices)
    if types.is_null(array.type):
        return pa.nulls(len(array), pa.large_string())
    if types.is_string(array.type) or types.is_large_string(array.type):
        return _normal(array.cast(pa.large_string()))
    if types.is_boolean(array.type):
        return array.cast(pa.large_string())
    if types.is_integer(array.type):
        return _integers(array)
    if types.is_floating(array.type):
        return _floats(array.cast(pa.float64()))
    if types.is_timestamp(array.type) and array.type.tz is None:
        return _datetimes(array)
    if types.is_date32(array.type):
        return _datetimes(array.cast(pa.timestamp("s")))
    if types.is_duration(array.type):
        micros = array.cast(pa.duration("us"), safe=True).cast(pa.int64())
        return _floats(compute.divide(micros.cast(pa.float64()), 1e6))
    return None


def _normal(array: Any) -> Any:
    """Unicode form NFC, without the spaces that SAS pads with."""
    compute = library("pyarrow.compute")
    if not compute.all(compute.string_is_ascii(array)).as_py():
        array = compute.utf8_normalize(array, form="NFC")
    if compute.any(compute.ends_with(array, " ")).as_py():
        array = compute.utf8_rtrim(array, characters=" ")
    return array


def _floats(array: Any) -> Any:
    """Whole numbers up to 2^53 as their digits, others as the shortest decimal that gives the same float64; NaN is missing."""
    pa, compute = library("pyarrow"), library("pyarrow.compute")
    nothing = pa.scalar(None, pa.float64())
    valued = compute.if_else(compute.is_nan(array), nothing, array)
    is_whole = compute.and_(compute.equal(compute.trunc(valued), valued), compute.less_equal(compute.abs(valued), float(EXACT)))
    digits = compute.if_else(is_whole, valued, nothing).cast(pa.int64()).cast(pa.large_string())
    if compute.all(is_whole).as_py() is not False:
        return digits
    return compute.coalesce(digits, valued.cast(pa.large_string()))


def _integers(array: Any) -> Any:
    """Digits; beyond 2^53 as the float64 of the same value, where there is one."""
    pa, compute = library("pyarrow"), library("pyarrow.compute")
    extremes = compute.min_max(array).as_py()
    if extremes["max"] is None or (extremes["max"] <= EXACT and extremes["min"] >= -EXACT):
        return array.cast(pa.large_string())
    return pa.array([None if cell is None else _integer(cell) for cell in array.to_pylist()], pa.large_string())


def _datetimes(array: Any) -> Any:
    """ISO 8601: the date alone at midnight, else date, T and time, with as many digits of the second as it needs."""
    pa, compute = library("pyarrow"), library("pyarrow.compute")
    nanos = array.type.unit == "ns" and compute.any(compute.not_equal(compute.nanosecond(array), 0)).as_py()
    if not nanos:
        array = array.cast(pa.timestamp("us") if array.type.unit != "s" else array.type)
    values = array.to_numpy(zero_copy_only=False)
    present = ~np.isnat(values)
    years = values[present].astype("datetime64[Y]").astype(np.int64) + 1970
    if years.size and (years.min() < 1 or years.max() > 9999):
        return pa.array([None if np.isnat(value) else _trimmed(str(value)) for value in values], pa.large_string())
    days = values.astype("datetime64[D]")
    if (values[present] == days[present]).all():
        distinct = pa.array(days).dictionary_encode()
        words = pa.array([None if day is None else day.isoformat() for day in distinct.dictionary.to_pylist()], pa.large_string())
        return words.take(distinct.indices)
    full = compute.strftime(array, format="%Y-%m-%dT%H:%M:%S").cast(pa.large_string())
    for surplus, kept in ((r"(\.\d*?)0+$", r"\1"), (r"\.$", ""), (r"T00:00:00$", "")):
        full = compute.replace_substring_regex(full, surplus, kept)
    return full


def _trimmed(text: str) -> str:
    date, _, time = text.partition("T")
    time = time.rstrip("0").rstrip(".") if "." in time else time
    return date if time in ("", "00:00:00") else f"{date}T{time}"


# --- cell by cell -----------------------------------------------------------------------------------------------------
def _text(cell: Any, column: str) -> str | None:
    pandas = library("pandas")
    if cell is None or cell is pandas.NA or cell is pandas.NaT:
        return None
    if isinstance(cell, str):
        return _encodable(cell, column)
    if isinstance(cell, bool | np.bool_):
        return "true" if cell else "false"
    if isinstance(cell, int | np.integer):
        return _integer(int(cell))
    if isinstance(cell, float | np.floating | decimal.Decimal):
        return number(float(cell))
    if isinstance(cell, datetime.datetime):
        at = cell if cell.tzinfo is None else cell.astimezone(datetime.UTC).replace(tzinfo=None)
        return _trimmed(at.isoformat()) + ("" if cell.tzinfo is None else "Z")
    if isinstance(cell, datetime.date):
        return cell.isoformat()
    if isinstance(cell, datetime.time):
        return cell.isoformat()
    if isinstance(cell, datetime.timedelta):
        return number(cell.total_seconds())
    raise InputError(
        "value-unknown",
        f"The column {shown(column)} holds a value of the kind {type(cell).__name__}, which no table file holds.",
        hint="Turn it into text, a number or a date first.",
    )


def _encodable(cell: str, column: str) -> str:
    try:
        cell.encode()
    except UnicodeEncodeError:
        raise InputError(
            "value-unknown",
            f"The column {shown(column)} holds text that is not Unicode.",
            hint="Correct the text at its source.",
        ) from None
    return cell


def number(value: float) -> str | None:
    """The canonical text of one float64; None when it is missing."""
    if value != value:  # NaN
        return None
    return str(_floats(library("pyarrow").array([value])).to_pylist()[0])


def _integer(value: int) -> str:
    if abs(value) > EXACT and abs(value) < 2**1000 and int(float(value)) == value:
        return str(number(float(value)))
    return str(value)
