"""Parquet, read and written with labels and formats.

They stand in the metadata of each field (keys ``label`` and ``format``), those of the dataset in the metadata of the schema
(``table_name``, ``table_label``). pandas' own metadata is neither written nor believed: it would hide an index column.

A few bytes of Parquet can stand for any number of rows, and one word for any number of gigabytes. So what the footer claims is
judged first, and text is read as dictionaries, whose full size is known before it is taken.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from labxchange.content.damage import check_cells, damaged, shown
from labxchange.content.extras import library
from labxchange.content.sas import framed
from labxchange.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame

_BYTES_MIN: Final = 2 << 30
_BYTES_PER_BYTE: Final = 200
_BATCH_ROWS: Final = 1 << 16


def read(data: bytes | memoryview, name: str) -> DataFrame:
    """The table of a Parquet file.

    Raises:
        InputError: ``table-damaged``, ``table-unknown``, ``table-too-large``.
    """
    pa, pq = library("pyarrow"), library("pyarrow.parquet")
    try:
        schema = pq.read_schema(pa.BufferReader(data))
        texts = [field.name for field in schema if _is_text(field.type)]
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
        _judge(file, schema, name, len(data))
        held, batches = 0, []
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            held += sum(_full_bytes(column) for column in batch.columns)
            _check_bytes(name, held, len(data))
            batches.append(batch)
        table = pa.Table.from_batches(batches, file.schema_arrow)
        table.validate(full=True)
        columns = [_plain(column, field.type) for column, field in zip(table.columns, schema, strict=True)]
        frame = pa.Table.from_arrays(columns, names=[str(i) for i in range(len(columns))]).to_pandas(ignore_metadata=True)
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError, UnicodeError) as error:
        raise _broken(name, error) from None
    frame.columns = schema.names
    of_table = schema.metadata or {}
    held_for = {key: {field.name: _said(field.metadata, key) for field in schema} for key in ("label", "format")}
    return framed(
        frame,
        labels={column: text for column, text in held_for["label"].items() if text},
        formats={column: text for column, text in held_for["format"].items() if text},
        table={"name": _said(of_table, "table_name"), "label": _said(of_table, "table_label")},
    )


def columns(stream: BinaryIO, name: str) -> dict[str, str]:
    """Name -> label of each column, from the footer alone.

    Raises:
        InputError: ``table-damaged``, ``table-unknown``.
    """
    pa, pq = library("pyarrow"), library("pyarrow.parquet")
    try:
        schema = pq.read_schema(stream)
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError, UnicodeError) as error:
        raise _broken(name, error) from None
    _check_flat(schema, name)
    return {field.name: _said(field.metadata, "label") for field in schema}


def write(frame: DataFrame) -> bytes:
    """``frame`` as Parquet; its index is left out."""
    pa, pq = library("pyarrow"), library("pyarrow.parquet")
    labels, formats = frame.attrs.get("labels", {}), frame.attrs.get("formats", {})
    table = pa.Table.from_pandas(frame, preserve_index=False)
    fields = []
    for field in table.schema:
        about = {"label": labels.get(field.name, ""), "format": formats.get(field.name, "")}
        fields.append(field.with_metadata({key: text for key, text in about.items() if text}))
    known = frame.attrs.get("table", {})
    of_table = {f"table_{key}": text for key, text in known.items() if text and key in ("name", "label")}
    out = io.BytesIO()
    pq.write_table(table.cast(pa.schema(fields)).replace_schema_metadata(of_table), out, compression="zstd")
    return out.getvalue()


def _said(metadata: dict[bytes, bytes] | None, key: str) -> str:
    return (metadata or {}).get(key.encode(), b"").decode(errors="replace")


def _is_text(kind: Any) -> bool:
    types = library("pyarrow.types")
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _broken(name: str, error: Exception) -> InputError:
    return damaged(name, f"it is no intact Parquet file ({str(error).partition(chr(10))[0]})")


def _check_flat(schema: Any, name: str) -> None:
    types = library("pyarrow.types")
    for field in schema:
        if types.is_nested(field.type):
            raise InputError(
                "table-unknown",
                f"The column {shown(field.name)} of {shown(name)} holds lists or records, which are not read.",
                hint="Ask the sender for a table with one value in each cell.",
            )


def _judge(file: Any, schema: Any, name: str, data_bytes: int) -> None:
    _check_flat(schema, name)
    about = file.metadata
    check_cells(name, about.num_rows, about.num_columns, data_bytes)
    groups = [about.row_group(index) for index in range(about.num_row_groups)]
    if sum(group.num_rows for group in groups) != about.num_rows:
        raise damaged(name, "its parts do not have as many rows as it says")
    # Never a column of a group: pyarrow ends the process when its statistics are damaged.
    sizes = [group.total_byte_size for group in groups]
    if min(sizes, default=0) < 0:
        raise damaged(name, "a part of it has a negative size")
    _check_bytes(name, sum(sizes), data_bytes)


def _check_bytes(name: str, held: int, data_bytes: int) -> None:
    if held > max(_BYTES_MIN, _BYTES_PER_BYTE * data_bytes):
        raise InputError(
            "table-too-large",
            f"The table {shown(name)} would take {held:,} bytes out of {data_bytes:,}, which is not plausible.",
            hint="Ask the sender for the table in another format.",
        )


def _full_bytes(column: Any) -> int:
    """Bytes of a column when each cell holds its own text."""
    pa, compute = library("pyarrow"), library("pyarrow.compute")
    if not isinstance(column, pa.DictionaryArray):
        return int(column.nbytes)
    column.validate(full=True)
    lengths = compute.binary_length(column.dictionary)
    return int(compute.sum(lengths.take(column.indices)).as_py() or 0) + 8 * len(column)


def _plain(column: Any, kind: Any) -> Any:
    """Dictionaries as plain text; dates as datetimes of seconds, which hold every date."""
    pa, types = library("pyarrow"), library("pyarrow.types")
    if types.is_date(kind):
        return column.cast(pa.timestamp("s")) if types.is_date32(kind) else column.cast(pa.timestamp("ms"))
    if _is_text(kind) and types.is_dictionary(column.type):
        return column.cast(pa.large_string() if types.is_string(kind) or types.is_large_string(kind) else pa.large_binary())
    return column
