"""SAS transport files, written: a DataFrame as version 5 (SAS TS-140) or, where that cannot hold it, 8; and a part of a file as
the version it has.

Rules:

- Version 5 as long as it holds the table, since more programs read it and regulators ask for it. Version 8 for names that are not
  1 to 8 letters, digits and underscores, labels over 40 bytes, text over 200 bytes, names of formats over 8.
- What neither can hold is refused and named, never cut: names over 32 bytes, labels over 256, text over 32,767, numbers outside
  of 5.4e-79 to 7.2e75, whole numbers over 2^53, true and false. Only the label of the whole table is cut, to 40 bytes.
- The same table gives the same bytes: the header's times are fixed, so that an unchanged table is an unchanged file.
- A part of a file keeps the bytes of its cells: special missing values, lengths, labels and formats stay as they were.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from labxchange.content.canonical import EXACT
from labxchange.content.damage import shown
from labxchange.content.extras import library
from labxchange.content.sas import format_kind, from_dates
from labxchange.content.transport import VARIABLES_MAX, Header, Variable, parse
from labxchange.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

_RECORD: Final = 80
_TIME: Final = b"01JAN60:00:00:00"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,7}")
_FORMAT: Final = re.compile(r"(\$?[A-Za-z_0-9]*[A-Za-z_])?(\d*)\.?(\d*)")
_NAME_BYTES: Final = 8
_VARIABLES_5: Final = 9_999
_LABEL_BYTES: Final = 40
_TEXT_BYTES: Final = 200
_FORMAT_BYTES: Final = 8
_LONG_NAME_BYTES: Final = 32
_LONG_LABEL_BYTES: Final = 256
_LONG_TEXT_BYTES: Final = 32_767
_SMALLEST: Final = 16.0**-65
_LARGEST: Final = 16.0**63


def write(frame: DataFrame) -> bytes:
    """``frame`` as a transport file of version 5, or 8 where it must be; its index is left out.

    Raises:
        InputError: ``table-unwritable``.
    """
    if len(frame.columns) > VARIABLES_MAX:
        raise InputError(
            "table-unwritable",
            f"The table has {len(frame.columns):,} columns, and SAS transport holds {VARIABLES_MAX:,}.",
            hint="Write Parquet, or fewer columns.",
        )
    variables, fields = _fields(frame)
    table = frame.attrs.get("table", {})
    known = {
        "name": _cut_text(str(table.get("name") or "DATA"), _LONG_NAME_BYTES),
        "label": _cut_text(str(table.get("label") or ""), _LABEL_BYTES),
    }
    fits_5 = len(known["name"].encode()) <= _NAME_BYTES and len(variables) <= _VARIABLES_5 and all(map(_fits_5, variables))
    version = 5 if fits_5 else 8
    variables = [one._replace(raw=_described(one, version)) for one in variables]
    rows = np.empty(
        len(frame),
        {"names": [f"f{i}" for i in range(len(fields))], "formats": [field.dtype for field in fields]} if fields else "V0",
    )
    for index, field in enumerate(fields):
        rows[f"f{index}"] = field
    cells = rows.tobytes()
    # numpy pads text with NUL, SAS with spaces; numbers hold NULs of their own.
    if any(not one.is_number for one in variables) and len(frame):
        cells = _spaced(cells, variables, rows.dtype.itemsize)
    return _file(Header(known, variables, 0, len(frame), rows.dtype.itemsize, version), cells)


def cut(data: bytes | memoryview, name: str, *, columns: Sequence[int], rows: np.ndarray[Any, Any]) -> bytes:
    """The columns and rows with these numbers, as a file of the same version.

    Raises:
        InputError: ``table-damaged``, ``table-unknown``, ``table-too-large``.
    """
    header = parse(data, name)
    size = header.rows * header.row_bytes
    table = np.frombuffer(data, np.uint8, count=size, offset=header.data_at if size else 0)
    chosen = table.reshape(header.rows, header.row_bytes)[rows] if size else table.reshape(0, header.row_bytes)
    kept, parts, position = [], [], 0
    for index in columns:
        one = header.variables[index]
        parts.append(chosen[:, one.position : one.position + one.length])
        kept.append(one._replace(position=position))
        position += one.length
    cells = np.concatenate(parts, axis=1).tobytes() if parts else b""
    return _file(header._replace(variables=kept, rows=len(chosen), row_bytes=position), cells)


# --- columns ----------------------------------------------------------------------------------------------------------
def _fields(frame: DataFrame) -> tuple[list[Variable], list[np.ndarray[Any, Any]]]:
    """The columns, not yet described, and their bytes."""
    labels, formats = frame.attrs.get("labels", {}), frame.attrs.get("formats", {})
    variables: list[Variable] = []
    fields: list[np.ndarray[Any, Any]] = []
    position, taken = 0, set[str]()
    for index, name in enumerate(map(str, frame.columns)):
        if not _is_name(name) or name.upper() in taken:
            raise _unwritable(name, f"its name is not one of 1 to {_LONG_NAME_BYTES} bytes to print, or is there twice")
        field, form = _field(frame.iloc[:, index], name, formats.get(name, ""))
        label = labels.get(name, "")
        if len(_bytes(label, name)) > _LONG_LABEL_BYTES:
            raise _unwritable(name, f"its label is longer than {_LONG_LABEL_BYTES} bytes")
        variables.append(Variable(name, label, form, field.dtype.kind == "V", position, field.dtype.itemsize, b""))
        fields.append(field)
        position += field.dtype.itemsize
        taken.add(name.upper())
    return variables, fields


# --- cells ------------------------------------------------------------------------------------------------------------
def _field(column: Series, name: str, form: str) -> tuple[np.ndarray[Any, Any], str]:
    """A column as its bytes (``V8`` numbers, ``S`` text), and its format: dates get one where they have none."""
    pandas = library("pandas")
    kind = column.dtype.kind
    if kind == "M":
        if getattr(column.dtype, "tz", None) is not None:
            raise _unwritable(name, "it has a time zone")
        values = column.to_numpy()
        shown_as = format_kind(form)
        if not shown_as:
            present = values[~np.isnat(values)]
            shown_as = "date" if (present == present.astype("datetime64[D]")).all() else "datetime"
            form = "DATE9." if shown_as == "date" else "DATETIME20."
        return _ibm(from_dates(values, shown_as), name), form
    if kind == "m":
        return _ibm(column.dt.total_seconds().to_numpy(np.float64), name), form or "TIME8."
    if pandas.api.types.is_bool_dtype(column.dtype):
        raise _unwritable(name, "it holds true and false")
    if pandas.api.types.is_numeric_dtype(column.dtype):
        if kind in "iu" and len(column) and (int(column.max()) > EXACT or int(column.min()) < -EXACT):
            raise _unwritable(name, "it holds whole numbers over 2^53")
        return _ibm(column.to_numpy(np.float64, na_value=np.nan), name), form
    words = ["" if missing else word for word, missing in zip(column.astype(object), column.isna(), strict=True)]
    if not all(isinstance(word, str) for word in words):
        raise _unwritable(name, "it holds values of several kinds")
    raw = np.array([_bytes(word, name) for word in words] or [b""], "S")[: len(words)]
    if raw.dtype.itemsize > _LONG_TEXT_BYTES:
        raise _unwritable(name, f"it holds text of more than {_LONG_TEXT_BYTES:,} bytes")
    return raw.astype(f"S{max(raw.dtype.itemsize, 1)}"), form


def _ibm(numbers: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """IBM's floating point of base 16, big-endian; exact for every float64 in its range. NaN becomes the missing value ``.``"""
    missing = np.isnan(numbers)
    values = np.where(missing, 0.0, numbers)
    sizes = np.abs(values[values != 0])
    if sizes.size and (sizes.min() < _SMALLEST or sizes.max() >= _LARGEST):
        raise _unwritable(name, "it holds a number outside of 5.4e-79 to 7.2e75")
    part, exponent = np.frexp(np.abs(values))
    base16 = -(-exponent // 4)
    mantissa = np.ldexp(part, exponent - 4 * base16 + 56).astype(np.uint64)
    first = (base16 + 64).astype(np.uint64) | (np.signbit(values).astype(np.uint64) << np.uint64(7))
    out = np.where(values == 0, np.uint64(0), (first << np.uint64(56)) | mantissa)
    out[missing] = np.uint64(0x2E << 56)
    return out.astype(">u8").view("V8")


def _spaced(cells: bytes, variables: Sequence[Variable], width: int) -> bytes:
    table = np.frombuffer(bytearray(cells), np.uint8).reshape(-1, width)
    for one in variables:
        if not one.is_number:
            part = table[:, one.position : one.position + one.length]
            part[part == 0] = 0x20
    return table.tobytes()


# --- header -----------------------------------------------------------------------------------------------------------
def _is_name(name: str) -> bool:
    """Whether version 8 holds it. SAS takes names with spaces and other letters, too (as ``'my name'n``)."""
    return name == name.strip() and name.isprintable() and 1 <= len(name.encode(errors="replace")) <= _LONG_NAME_BYTES


def _fits_5(one: Variable) -> bool:
    return bool(
        _NAME.fullmatch(one.name)
        and len(one.label.encode()) <= _LABEL_BYTES
        and len(_parts(one.format)[0]) <= _FORMAT_BYTES
        and (one.is_number or one.length <= _TEXT_BYTES)
    )


def _parts(form: str) -> tuple[str, int, int]:
    """Name, width and decimals of a format such as ``DATETIME20.3``."""
    name, width, decimals = found.groups() if (found := _FORMAT.fullmatch(form)) else ("", "", "")
    return name or "", min(int(width or 0), 32_767), min(int(decimals or 0), 32_767)


def _described(one: Variable, version: int) -> bytes:
    name, width, decimals = _parts(one.format)
    raw = bytearray(140)
    struct.pack_into(">4h", raw, 0, 1 if one.is_number else 2, 0, one.length, 0)
    raw[8:16] = _cut_text(one.name, _NAME_BYTES).encode().ljust(_NAME_BYTES)
    raw[16:56] = _cut_text(one.label, _LABEL_BYTES).encode().ljust(_LABEL_BYTES)
    raw[56:64] = name.encode()[:_FORMAT_BYTES].ljust(_FORMAT_BYTES)
    struct.pack_into(">2h", raw, 64, width, decimals)
    raw[72:80] = b" " * 8
    if version == 8:
        raw[88:120] = one.name.encode().ljust(_LONG_NAME_BYTES)
        struct.pack_into(">2h", raw, 120, len(one.label.encode()), len(name))
    return bytes(raw)


def _bytes(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _unwritable(name, "it holds text that is not Unicode") from None


def _cut_text(text: str, size: int) -> str:
    return text.encode(errors="replace")[:size].decode(errors="ignore")


def _file(header: Header, cells: bytes) -> bytes:
    new = header.version == 8
    size = len(header.variables[0].raw) if header.variables else 140
    described = bytearray()
    for index, one in enumerate(header.variables):
        raw = bytearray(one.raw)
        struct.pack_into(">h", raw, 6, index + 1)
        struct.pack_into(">i", raw, 84, one.position)
        described += raw
    name, label = header.table["name"].encode(), _cut_text(header.table["label"], _LABEL_BYTES).encode()
    names = name.ljust(32)[:32] + b"SASDATA 6.06    " if new else name.ljust(8)[:8] + b"SASDATA 6.06    "
    count = f"{len(header.variables):010}".encode()
    out = [
        _header(b"LIBV8" if new else b"LIBRARY"),
        (b"SAS     SAS     SASLIB  6.06").ljust(64) + _TIME,
        _TIME.ljust(_RECORD),
        _header(b"MEMBV8" if new else b"MEMBER", b"00000000000000000160000000" + f"{size:04}".encode()),
        _header(b"DSCPTV8" if new else b"DSCRPTR"),
        (b"SAS     " + names).ljust(64)[:64] + _TIME,
        _TIME.ljust(32) + label.ljust(_LABEL_BYTES) + b" " * 8,
        _header(b"NAMSTV8" if new else b"NAMESTR", count.ljust(30, b"0")),
        _filled(bytes(described)),
    ]
    if new:
        out.append(_long(header.variables))
        out.append(_header(b"OBSV8", b"%15d" % header.rows + b" " * 15))
    else:
        out.append(_header(b"OBS"))
    return b"".join([*out, _filled(cells)])


def _header(kind: bytes, rest: bytes = b"0" * 30) -> bytes:
    return b"HEADER RECORD*******" + kind.ljust(8) + b"HEADER RECORD!!!!!!!" + rest + b"  "


def _long(variables: Sequence[Variable]) -> bytes:
    """Labels and formats that do not fit into a description; empty where all do. Formats need the form with five lengths."""
    has_formats = any(len(_parts(one.format)[0]) > _FORMAT_BYTES for one in variables)
    entries = []
    for index, one in enumerate(variables):
        if len(one.label.encode()) > _LABEL_BYTES or len(_parts(one.format)[0]) > _FORMAT_BYTES:
            texts = [one.name.encode(), one.label.encode(), *([one.format.encode(), b""] if has_formats else [])]
            entries.append(struct.pack(f">{1 + len(texts)}H", index + 1, *map(len, texts)) + b"".join(texts))
    if not entries:
        return b""
    return _header(b"LABELV9" if has_formats else b"LABELV8", str(len(entries)).encode().ljust(30)) + _filled(b"".join(entries))


def _filled(raw: bytes) -> bytes:
    return raw + b" " * (-len(raw) % _RECORD)


def _unwritable(name: str, why: str) -> InputError:
    return InputError(
        "table-unwritable",
        f"The column {shown(name)} cannot be written as SAS transport: {why}.",
        hint="Write Parquet, or change the column.",
    )
