"""Reading tables: CSV, SAS transport, sas7bdat, Parquet and CDISC Dataset-JSON, from the very bytes that were verified.

Rules:

- Only the bytes given are read. The name decides the format by its ending and serves messages. A path is taken only as the same
  bytes once more, held still by the caller: from a path pandas reads a large CSV on all cores.
- ``attrs`` of the result: ``labels`` and ``formats`` (column -> text, those that have one), ``table`` (``name`` and ``label`` of
  the dataset, where the format has them), ``encoding`` of formats that do not fix it.
- No value is changed to fit: a date that no datetime can hold stays what it was, a column of mixed kinds stays mixed, or text in
  CSV, which knows only text. In CSV a column of numbers with leading zeros is text.
- A file that claims more than its size can hold is refused before memory is taken.

Where a table came from (share, version, digest) is known to the caller, who adds it.
"""

from __future__ import annotations

import codecs
import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from labxchange.content import dataset_json, parquet, sas, transport
from labxchange.content.damage import damaged, shown
from labxchange.content.encodings import OR_WINDOWS, in_words
from labxchange.content.extras import library
from labxchange.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame

_BYTE_ORDER_MARKS: Final = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_HEAD_BYTES: Final = 1 << 18
_NAMES_MAX_BYTES: Final = 1 << 22
_LEADING_ZERO: Final = re.compile(rb'[,;\t\n"]0\d')


def read(data: bytes | memoryview, name: str, *, path: str = "") -> DataFrame:
    """The table in ``data``, whose file is called ``name``.

    Args:
        path: where exactly these bytes can be opened once more, and nobody can change them.

    Raises:
        InputError: ``table-unknown``, ``table-damaged``, ``table-too-large``, ``table-extra-missing``.
    """
    frame: DataFrame = _csv(data, name, path) if kind(name) in ("csv", "tsv") else _READERS[kind(name)](data, name)
    frame.attrs.setdefault("labels", {})
    frame.attrs.setdefault("formats", {})
    return frame


def columns(stream: BinaryIO, name: str) -> dict[str, str]:
    """Name -> label (empty where there is none) of each column of the table in ``stream``, as ``read`` would name them: from its
    header, footer or first line, without its rows.

    Raises:
        InputError: as ``read``; what is wrong with rows is not noticed.
    """
    return _COLUMNS[kind(name)](stream, name)


def kind(name: str) -> str:
    """The format of a file by its name: ``csv``, ``tsv``, ``xpt``, ``sas7bdat``, ``parquet``, ``json`` or ``ndjson``.

    Raises:
        InputError: ``table-unknown``.
    """
    ending = name.lower().rpartition(".")[2] if "." in name else ""
    ending = {"xport": "xpt", "pq": "parquet"}.get(ending, ending)
    if ending not in _READERS:
        raise InputError(
            "table-unknown",
            f"The file {shown(name)} is no table in a format that is read here.",
            hint="Known are .csv, .tsv, .xpt, .sas7bdat, .parquet, .json and .ndjson (Dataset-JSON).",
        )
    return ending


def _csv(data: bytes | memoryview, name: str, path: str = "") -> DataFrame:
    pandas = library("pandas")
    for encoding, errors in _encodings(data):
        options: dict[str, Any] = {"sep": _separator(data, name), "index_col": False}
        options |= {"encoding": encoding, "encoding_errors": errors}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pandas.errors.ParserWarning)
                warnings.simplefilter("ignore", pandas.errors.DtypeWarning)
                frame = _parsed(path or io.BytesIO(data), options, dtype=_padded(data, options))
        except UnicodeError:
            continue
        except pandas.errors.EmptyDataError:
            frame = pandas.DataFrame()
        except pandas.errors.ParserWarning:
            raise damaged(name, "its rows have more cells than its first line has names") from None
        except (pandas.errors.ParserError, ValueError, OverflowError, MemoryError) as error:
            raise damaged(name, f"it is no intact CSV ({str(error).strip()})") from None
        frame.attrs["encoding"] = encoding if errors == "strict" else in_words(data)
        return frame
    raise damaged(name, "its text is not in the encoding that its first bytes announce")


def _csv_columns(stream: BinaryIO, name: str) -> dict[str, str]:
    pandas = library("pandas")
    head = stream.read(_NAMES_MAX_BYTES)
    for encoding, errors in _encodings(head):
        try:
            # Within a file that goes on, the last character may be cut.
            text = codecs.getincrementaldecoder(encoding)(errors).decode(head, len(head) < _NAMES_MAX_BYTES)
            names = pandas.read_csv(io.StringIO(text), sep=_separator(head, name), index_col=False, nrows=0).columns
        except UnicodeError:
            continue
        except pandas.errors.EmptyDataError:
            return {}
        except (pandas.errors.ParserError, ValueError, OverflowError, MemoryError) as error:
            raise damaged(name, f"it is no intact CSV ({str(error).strip()})") from None
        return {str(column): "" for column in names}
    raise damaged(name, "its text is not in the encoding that its first bytes announce")


def _parsed(source: str | io.BytesIO, options: dict[str, Any], *, dtype: dict[str, str]) -> DataFrame:
    """pandas takes a large file in parts; where these disagree about a column's type, all of it is text."""
    pandas = library("pandas")
    frame: DataFrame = pandas.read_csv(source, **options, dtype=dtype or None)
    mixed = [name for name, kind in frame.dtypes.items() if isinstance(kind, np.dtype) and kind.kind == "O"]
    if not mixed:
        return frame
    if isinstance(source, io.BytesIO):
        source.seek(0)
    text: DataFrame = pandas.read_csv(source, **options, dtype=dtype | dict.fromkeys(mixed, "str"))
    return text


def _encodings(data: bytes | memoryview) -> tuple[tuple[str, str], ...]:
    """What is tried, in this order: a byte order mark decides, else UTF-8, else that with what Western Windows writes between."""
    known = next((encoding for mark, encoding in _BYTE_ORDER_MARKS if bytes(data[:3]).startswith(mark)), "")
    return ((known, "strict"),) if known else (("utf-8", "strict"), ("utf-8", OR_WINDOWS))


def _separator(data: bytes | memoryview, name: str) -> str:
    """A tab in .tsv; in .csv the first of comma, tab and semicolon that stands in its first line."""
    line = bytes(data[: 1 << 16]).partition(b"\n")[0]
    return "\t" if kind(name) == "tsv" else next((mark for mark in ",\t;" if mark.encode() in line), ",")


def cut_csv(data: bytes | memoryview, name: str, *, columns: Sequence[int], rows: np.ndarray[Any, Any]) -> bytes:
    """The columns and rows with these numbers, each cell with the text that it has; UTF-8."""
    pandas = library("pandas")
    encoding, errors = next(one for one in _encodings(data) if _decodes(data, *one))
    separator = _separator(data, name)
    if not len(bytes(data[: 1 << 16]).strip()):
        return b""
    whole = pandas.read_csv(
        io.BytesIO(data),
        sep=separator,
        encoding=encoding,
        encoding_errors=errors,
        dtype="str",
        keep_default_na=False,
        na_filter=False,
        index_col=False,
    )
    text = io.BytesIO()
    whole.iloc[rows, list(columns)].to_csv(text, sep=separator, index=False, lineterminator="\n", encoding="utf-8")
    return text.getvalue()


def _decodes(data: bytes | memoryview, encoding: str, errors: str) -> bool:
    try:
        str(data, encoding, errors)
    except UnicodeError:
        return False
    return True


def _padded(data: bytes | memoryview, options: dict[str, Any]) -> dict[str, str]:
    """Columns that would lose leading zeros as numbers, to be read as text: 0701 is a subject, and not 701.

    The first 256 KiB decide; to look at all of a file would cost as much as reading it.
    """
    head = bytes(data[:_HEAD_BYTES])
    if len(data) > _HEAD_BYTES:
        head = head[: head.rfind(b"\n") + 1]
    if not _LEADING_ZERO.search(head):
        return {}
    pandas = library("pandas")
    try:
        numbers = [name for name, kind in pandas.read_csv(io.BytesIO(head), **options).dtypes.items() if kind.kind in "iuf"]
        texts = pandas.read_csv(io.BytesIO(head), **options, dtype="str")[numbers]
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, ValueError):
        return {}
    return {name: "str" for name in numbers if texts[name].str.match(r"\s*0\d").any()}


_READERS: Final[dict[str, Callable[[bytes | memoryview, str], Any]]] = {
    "csv": _csv,
    "tsv": _csv,
    "xpt": transport.read,
    "sas7bdat": sas.read_sas7bdat,
    "parquet": parquet.read,
    "json": dataset_json.read,
    "ndjson": dataset_json.read_lines,
}
_COLUMNS: Final[dict[str, Callable[[BinaryIO, str], dict[str, str]]]] = {
    "csv": _csv_columns,
    "tsv": _csv_columns,
    "xpt": transport.columns,
    "sas7bdat": sas.sas7bdat_columns,
    "parquet": parquet.columns,
    "json": dataset_json.columns,
    "ndjson": dataset_json.line_columns,
}
