"""SAS transport files, version 5 (SAS TS-140) and 8: headers, labels and formats, and all rows at once with numpy.

Why not a library: pandas knows no labels and no version 8 and reads zero as 5.4e-79; pyreadstat is slower than pandas. What is
read here is bounded by the bytes that are there, whatever a header claims.

Rules:

- Text is UTF-8, and Windows-1252 where it is not (`encodings`). SAS pads with spaces; they are removed. A blank text is the empty
  text.
- The 28 missing values of SAS (., ._, .A to .Z) are missing.
- The cells of a row stand in the order of their descriptions. The place that a description gives is where SAS had the value in
  its memory; in files of version 8 it differs.
- A file with more than one table is refused, not read in part; so is a file that ends within a row.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

import numpy as np

from labxchange.content.damage import check_cells, damaged, shown
from labxchange.content.encodings import MIXED, OR_WINDOWS, WINDOWS, in_words
from labxchange.content.extras import library
from labxchange.content.sas import format_kind, framed, to_dates
from labxchange.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame

_RECORD: Final = 80
_MARK: Final = b"HEADER RECORD*******"
_BLOCK_BYTES: Final = 1 << 20
"""Rows are taken apart in blocks that stay in the processor's cache while each column is copied out of them."""
VARIABLES_MAX: Final = 32_767
_HEADER_MAX_BYTES: Final = 16 << 20
"""More than the longest header takes: every variable that there may be, with a long name, label and format."""
# IBM's base 16: value = mantissa of 56 bits * 16 ** (exponent - 64 - 14); the first byte is sign and exponent.
_SCALE: Final = np.array([(1.0 if first < 128 else -1.0) * 16.0 ** ((first & 127) - 78) for first in range(256)])
_MANTISSA: Final = np.uint64((1 << 56) - 1)


class Variable(NamedTuple):
    name: str
    label: str
    format: str
    is_number: bool
    position: int
    length: int
    raw: bytes
    """The description as it stands in the file."""


class Header(NamedTuple):
    table: dict[str, str]
    variables: list[Variable]
    data_at: int
    rows: int
    """What the file says; -1 where it says nothing."""
    row_bytes: int
    version: int


def read(data: bytes | memoryview, name: str) -> DataFrame:
    """The one table of a transport file.

    Raises:
        InputError: ``table-damaged``, ``table-unknown``, ``table-too-large``.
    """
    header = parse(data, name)
    columns, encodings = _columns(data, header)
    frame = framed(
        columns,
        labels={one.name: one.label for one in header.variables if one.label},
        formats={one.name: one.format for one in header.variables if one.format},
        table=header.table,
    )
    frame.attrs["encoding"] = (
        "utf-8" if encodings <= {"ascii", "utf-8"} else WINDOWS if encodings <= {"ascii", WINDOWS} else MIXED
    )
    return frame


def columns(stream: BinaryIO, name: str) -> dict[str, str]:
    """Name -> label of each column, from the header alone.

    Raises:
        InputError: ``table-damaged``.
    """
    return {one.name: one.label for one in _header(stream.read(_HEADER_MAX_BYTES), name).variables}


# --- header -----------------------------------------------------------------------------------------------------------
def parse(data: bytes | memoryview, name: str) -> Header:
    """The header of a file, and how many rows follow it.

    Raises:
        InputError: ``table-damaged``, ``table-unknown``, ``table-too-large``.
    """
    said = _header(data, name)
    return said._replace(rows=_rows(data, name, at=said.data_at, width=said.row_bytes, claim=said.rows))


def _header(data: bytes | memoryview, name: str) -> Header:
    def record(at: int, *kinds: bytes) -> bytes:
        held = bytes(data[at : at + _RECORD])
        if not held.startswith(tuple(_MARK + kind for kind in kinds)):
            raise damaged(name, f"at byte {at:,} a header of a SAS transport file is missing")
        return held

    def number(text: bytes, what: str) -> int:
        if not text.strip().isdigit():
            raise damaged(name, f"its header holds no {what}")
        return int(text)

    version = 8 if record(0, b"LIBRARY ", b"LIBV8   ")[20:28] == b"LIBV8   " else 5
    member = record(240, b"MEMBER  ", b"MEMBV8  ")
    size = number(member[74:78], "length of a variable's description")
    if size not in (136, 140):
        raise damaged(name, "its header gives the descriptions of variables an unknown length")
    record(320, b"DSCRPTR ", b"DSCPTV8 ")
    about = bytes(data[400:560])
    table = {"name": _text(about[8 : 40 if version == 8 else 16]), "label": _text(about[112:152])}
    counted = record(560, b"NAMESTR ", b"NAMSTV8 ")
    count = number(counted[54:58] if version == 5 else counted[52:58], "number of variables")
    at = 640
    if at + count * size > len(data) or count > VARIABLES_MAX:
        raise damaged(name, "it ends within the descriptions of its variables")
    variables, width = [], 0
    for begin in range(at, at + count * size, size):
        variables.append(_variable(bytes(data[begin : begin + size]), version, name)._replace(position=width))
        width += variables[-1].length
    at += -(-count * size // _RECORD) * _RECORD
    if bytes(data[at : at + 28]).startswith((_MARK + b"LABELV8", _MARK + b"LABELV9")):
        variables, at = _long_labels(data, name, at, variables)
    observed = record(at, b"OBS     ", b"OBSV8   ")
    claimed = observed[48:63].strip()
    claim = number(claimed, "number of rows") if version == 8 and claimed else -1
    if len({one.name for one in variables}) < count:
        raise damaged(name, "two of its columns have one name")
    return Header(table, variables, at + _RECORD, claim, width, version)


def _variable(raw: bytes, version: int, name: str) -> Variable:
    kind, _, length, _ = struct.unpack_from(">4h", raw)
    short, label, form = raw[8:16], raw[16:56], raw[56:64]
    width, decimals = struct.unpack_from(">2h", raw, 64)
    long = _text(raw[88:120].rstrip(b"\0")) if version == 8 else ""
    if kind not in (1, 2) or length < 1 or (kind == 1 and not 2 <= length <= 8):
        raise damaged(name, f"the description of its variable {_text(short)} holds an impossible type or length")
    return Variable(long or _text(short), _text(label), _format(_text(form), width, decimals), kind == 1, 0, length, raw)


def _format(name: str, width: int, decimals: int) -> str:
    if not name and width <= 0:
        return ""
    return f"{name}{width if width > 0 else ''}.{decimals if decimals > 0 else ''}"


def _long_labels(data: bytes | memoryview, name: str, at: int, variables: list[Variable]) -> tuple[list[Variable], int]:
    """Labels over 40 characters and formats over 8 stand in a section of their own."""
    head = bytes(data[at : at + _RECORD])
    parts = 5 if head[20:27] == b"LABELV9" else 3
    count = int(head[48:80]) if head[48:80].strip().isdigit() else -1
    position, out = at + _RECORD, list(variables)
    for _ in range(count):
        fixed = bytes(data[position : position + 2 * parts])
        lengths = struct.unpack(f">{parts}H", fixed) if len(fixed) == 2 * parts else (0,)
        position += 2 * parts
        number, texts = lengths[0], []
        for length in lengths[1:]:
            texts.append(_text(bytes(data[position : position + length])))
            position += length
        if not 1 <= number <= len(out) or position > len(data):
            raise damaged(name, "it ends within its long labels")
        held = out[number - 1]
        out[number - 1] = held._replace(label=texts[1] or held.label, format=(texts[2] if parts == 5 else "") or held.format)
    if count < 0:
        raise damaged(name, "the number of its long labels is missing")
    size = position - at
    return out, at + -(-size // _RECORD) * _RECORD


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0 ").decode(errors=OR_WINDOWS).strip(" ")


# --- rows -------------------------------------------------------------------------------------------------------------
def _rows(data: bytes | memoryview, name: str, *, at: int, width: int, claim: int) -> int:
    """How many rows there are. Version 5 counts none: the rest is rows, then blanks up to a multiple of 80 bytes."""
    if width == 0:
        return 0
    held = max(len(data) - at, 0)
    if claim >= 0:
        check_cells(name, claim, 1, len(data))
        if claim * width > held:
            raise damaged(name, f"it says that it has {claim:,} rows and ends after {held // width:,}")
        return claim
    if _another(data, at):
        raise InputError(
            "table-unknown",
            f"The file {shown(name)} holds more than one table, and only files with one are read.",
            hint="Ask the sender for one file for each table.",
        )
    rows, rest = divmod(held, width)
    if bytes(data[len(data) - rest :] if rest else b"").strip(b" "):
        raise damaged(name, f"it ends within row {rows + 1:,}")
    while rows and rest + width < _RECORD and not bytes(data[at + (rows - 1) * width :][:width]).strip(b" "):
        rows, rest = rows - 1, rest + width
    return rows


def _another(data: bytes | memoryview, begin: int) -> bool:
    """Whether a second table's header stands among the rows; it begins a record."""
    held = data if isinstance(data, bytes) else None
    if held is None:
        records = np.frombuffer(data, np.uint8)[begin:]
        records = records[: len(records) // _RECORD * _RECORD].reshape(-1, _RECORD)
        mark = np.frombuffer(_MARK + b"MEM", np.uint8)
        likely = np.flatnonzero(records[:, 0] == mark[0])
        return bool((records[likely, : len(mark)] == mark).all(axis=1).any())
    at = held.find(_MARK + b"MEM", begin)
    while at >= 0:
        if (at - begin) % _RECORD == 0:
            return True
        at = held.find(_MARK + b"MEM", at + 1)
    return False


def _columns(data: bytes | memoryview, header: Header) -> tuple[dict[str, Any], set[str]]:
    kinds = [f"V{one.length}" if one.is_number else f"S{one.length}" for one in header.variables]
    out: dict[str, Any] = {}
    encodings: set[str] = set()
    rows, width = header.rows, header.row_bytes
    if not header.variables:
        return out, encodings
    fields = [f"f{index}" for index in range(len(kinds))]
    shape: Any = {"names": fields, "formats": kinds, "offsets": [one.position for one in header.variables], "itemsize": width}
    table = np.frombuffer(data, np.dtype(shape), count=rows, offset=header.data_at if rows else 0)
    held = [np.empty(rows, kind) for kind in kinds]
    step = max(1, _BLOCK_BYTES // width)
    for begin in range(0, rows, step):
        block = table[begin : begin + step]
        for column, field in zip(held, fields, strict=True):
            column[begin : begin + step] = block[field]
    for index, one in enumerate(header.variables):
        if one.is_number:
            numbers = _numbers(held[index], one.length)
            kind = format_kind(one.format)
            out[one.name] = to_dates(numbers, kind) if kind else numbers
        else:
            out[one.name], encoding = texts(held[index])
            encodings.add(encoding)
        held[index] = np.empty(0)
    return out, encodings


def _numbers(raw: np.ndarray[Any, Any], length: int) -> np.ndarray[Any, Any]:
    """Big-endian IBM floats, cut to ``length`` bytes, as float64; missing values are NaN."""
    padded = np.zeros((len(raw), 8), np.uint8)
    padded[:, :length] = raw.view(np.uint8).reshape(len(raw), length)
    mantissa = padded.view(">u8").ravel().astype(np.uint64) & _MANTISSA
    first = padded[:, 0]
    out: np.ndarray[Any, Any] = mantissa.astype(np.float64) * _SCALE[first]
    out[(mantissa == 0) & (first == 0x80)] = 0.0
    out[(mantissa == 0) & (first != 0) & (first != 0x80)] = np.nan
    return out


def texts(raw: np.ndarray[Any, Any]) -> tuple[Any, str]:
    """Padded bytes as a column of text, and the encoding that they turned out to have."""
    pa, compute = library("pyarrow"), library("pyarrow.compute")
    binary = pa.array(raw, type=pa.large_binary())
    try:
        column = binary.cast(pa.large_string())
        encoding = "ascii" if compute.all(compute.string_is_ascii(column)).as_py() is not False else "utf-8"
    except pa.ArrowInvalid:
        distinct = binary.dictionary_encode()
        words = distinct.dictionary.to_pylist()
        decoded = pa.array([word.decode(errors=OR_WINDOWS) for word in words], pa.large_string())
        column = pa.DictionaryArray.from_arrays(distinct.indices, decoded).cast(pa.large_string())
        encoding = in_words(b"\n".join(words))
    trimmed = compute.utf8_rtrim(column, characters=" ") if compute.any(compute.ends_with(column, " ")).as_py() else column
    return library("pandas").Series(trimmed.to_pandas(), copy=False), encoding
