"""The columns of a table, named as reading it would name them, without its rows."""

from __future__ import annotations

import io
import json
from typing import Any

import pandas as pd
import pytest

from labxchange.content import dataset_json, tables, transport, writing
from labxchange.errors import InputError
from tests.unit.content.samples import COLUMNS, ROWS, dataset_json_1_0, dataset_lines, pilot, sas
from tests.unit.content.samples import dataset_json as version_1_1


class Counted(io.BytesIO):
    """Says how much of it was read."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        out = super().read(size)
        self.taken += len(out)
        return out

    def readline(self, size: int | None = -1, /) -> bytes:
        out = super().readline(size)
        self.taken += len(out)
        return out


def as_parquet(data: bytes, name: str) -> bytes:
    return writing.write(tables.read(data, name), "parquet")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("adsl.xpt", pilot("adsl.xpt")),
        ("version8.xpt", sas("version8.xpt")),
        ("sample.sas7bdat", sas("sample.sas7bdat")),
        ("adsl.parquet", as_parquet(pilot("adsl.xpt"), "adsl.xpt")),
        ("a.json", version_1_1()),
        ("old.json", dataset_json_1_0()),
        ("a.ndjson", dataset_lines()),
        ("a.csv", b"A,B,A,,\xc3\x84\n1,2,3,4,5\n"),
        ("mark.csv", "Ä;B\nZoë;1\n".encode("utf-8-sig")),
        ("wide.tsv", "Ä\tB\nZoë\t1\n".encode("utf-16")),
        ("windows.csv", "Ä,B\nZoë,1\n".encode("cp1252")),
        ("only.csv", b"A,B"),
        ("empty.csv", b""),
    ],
)
def test_they_are_those_of_the_whole_table(name: str, data: bytes) -> None:
    whole = tables.read(data, name)
    found = tables.columns(io.BytesIO(data), name)
    assert list(found) == list(whole.columns)
    assert {column: label for column, label in found.items() if label} == whole.attrs["labels"]


def test_rows_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a row of what is not the header: damage there is found when the part is made."""
    for module, name in ((transport, "_HEADER_MAX_BYTES"), (dataset_json, "_ABOUT_MAX_BYTES"), (tables, "_NAMES_MAX_BYTES")):
        monkeypatch.setattr(module, name, 10_000)
    rows = ROWS * 3000
    about: dict[str, Any] = {"datasetJSONVersion": "1.1.0", "columns": COLUMNS}
    files = {
        "adae.xpt": pilot("adae.xpt"),
        "a.json": version_1_1(rows=rows),
        "old.json": dataset_json_1_0().replace(b'"itemData": [', b'"itemData": [' + b"0, " * 20_000),
        "a.ndjson": b"".join(json.dumps(line).encode() + b"\n" for line in (about, *rows)),
        "a.csv": b"A,B\n" + "Zoë,1\n".encode() * 20_000,
    }
    for name, data in files.items():
        stream = Counted(data)
        assert tables.columns(stream, name)
        assert stream.taken <= 10_000 < len(data) // 2, name


def test_rows_before_columns_cost_a_look_at_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_json, "_ABOUT_MAX_BYTES", 100)
    text = json.dumps({"rows": ROWS * 50, "datasetJSONVersion": "1.1.0", "columns": COLUMNS}).encode()
    assert list(tables.columns(io.BytesIO(text), "a.json")) == [one["name"] for one in COLUMNS]


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("a.docx", b"", "table-unknown"),
        ("package.json", b'{"name": "x"}', "table-damaged"),
        ("a.ndjson", b'{"a": 1}\n', "table-damaged"),
        ("a.xpt", pilot("adsl.xpt")[:2000], "table-damaged"),
        ("a.parquet", b"PAR1", "table-damaged"),
        ("a.sas7bdat", b"\0" * 2000, "table-damaged"),
        ("a.csv", b"\xff\xfea", "table-damaged"),
    ],
)
def test_what_is_no_table_says_so(name: str, data: bytes, code: str) -> None:
    with pytest.raises(InputError) as refused:
        tables.columns(io.BytesIO(data), name)
    assert refused.value.code == code


def test_lists_in_cells_are_refused_as_when_read() -> None:
    data = io.BytesIO()
    pd.DataFrame({"A": [[1], [2]]}).to_parquet(data)
    for look in (
        lambda: tables.columns(io.BytesIO(data.getvalue()), "a.parquet"),
        lambda: tables.read(data.getvalue(), "a.parquet"),
    ):
        with pytest.raises(InputError) as refused:
            look()
        assert refused.value.code == "table-unknown"


def test_rows_are_counted_as_a_part_would_keep_them() -> None:
    data, condition = pilot("adsl.xpt"), "AGE >= 80 and SITEID == '701'"
    part = writing.subset(data, "adsl.xpt", rows=condition)
    assert writing.count(data, "adsl.xpt", rows=condition) == (part.rows, part.rows + part.withheld_rows)
    with pytest.raises(InputError) as refused:
        writing.count(data, "adsl.xpt", rows="AGEE > 3")
    assert refused.value.code == "rows-refused"
