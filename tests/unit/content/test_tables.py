"""Each format is read with its labels; odd tables have a defined outcome; damage is named and nothing else is raised."""

from __future__ import annotations

import io
import struct
import sys
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyreadstat
import pytest

from labxchange.content import tables, transport_writing, writing
from labxchange.errors import InputError
from tests.unit.content.samples import COLUMNS, ROWS, dataset_json, dataset_json_1_0, dataset_lines, days, pilot, sas

PILOT = ("adsl.xpt", "adae.xpt", "adtte.xpt")


def refused(data: bytes, name: str) -> InputError:
    with pytest.raises(InputError) as told:
        tables.read(data, name)
    assert "\x1b" not in told.value.message
    return told.value


# --- SAS --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [*PILOT, "version8.xpt"])
def test_transport_files_as_pyreadstat_reads_them(name: str) -> None:
    data = pilot(name) if name in PILOT else sas(name)
    frame = tables.read(memoryview(data), name)
    expected, about = pyreadstat.read_xport(io.BytesIO(data), disable_datetime_conversion=True)
    assert list(frame.columns) == list(expected.columns)
    assert frame.attrs["labels"] == {key: text for key, text in about.column_names_to_labels.items() if text}
    assert frame.attrs["table"] == {"name": about.table_name, "label": about.file_label or ""}
    for column, stored in expected.items():
        said = about.original_variable_types[column]
        assert frame.attrs["formats"].get(column, "").rstrip(".") == (said or "")
        read = frame[column]
        if read.dtype.kind == "M":
            unit_s = 86_400 if said.startswith("DATE9") or said == "DATE" else 1
            since = (read - pd.Timestamp("1960-01-01")).dt.total_seconds() / unit_s
            np.testing.assert_array_equal(since, stored)
        else:
            np.testing.assert_array_equal(read.to_numpy(), stored.to_numpy())


@pytest.mark.parametrize("name", ["sample.sas7bdat", "sample_bincompressed.sas7bdat"])
def test_what_sas_wrote(name: str) -> None:
    frame = tables.read(sas(name), name)
    assert frame["mychar"].tolist() == ["a", "b", "c", "d", "e"]
    assert frame["mynum"].tolist() == [1.1, 1.2, -1000.3, -1.4, 1000.3]
    assert days(frame["mydate"])[:4] == ["2018-05-06", "1880-05-06", "1960-01-01", "1583-01-01"]
    assert frame["dtime"].dtype == "datetime64[us]"
    assert frame["mytime"].iloc[0] == 36_610, "a time of day stays its seconds"
    assert frame["mydate"].isna().tolist() == [False] * 4 + [True]
    assert frame.attrs["formats"]["mydate"] == "YYMMDD10"


def test_special_missing_values_are_missing() -> None:
    frame = tables.read(sas("missing_test.sas7bdat"), "a.sas7bdat")
    assert frame.isna().sum(axis=1).tolist() == [8]
    written = bytearray(transport_writing.write(pd.DataFrame({"A": [1.0, 2.0, 3.0, 4.0]})))
    begin = len(written) - 80
    for row, mark in enumerate(b"._AZ"):
        written[begin + 8 * row : begin + 8 * row + 8] = bytes([mark]) + b"\0" * 7
    assert tables.read(bytes(written), "a.xpt")["A"].isna().all()


def test_zero_is_zero_and_numbers_are_exact() -> None:
    values = [0.0, -0.0, 1.0, -118.625, 0.1, 1e-70, 1e70, float(2**53), np.nan]
    frame = tables.read(transport_writing.write(pd.DataFrame({"A": values})), "a.xpt")
    np.testing.assert_array_equal(frame["A"], values)


def test_dates_out_of_range_stay_numbers() -> None:
    frame = pd.DataFrame({"FAR": [1e7, 0.0], "PART": [1.5, 2.0], "GOOD": [19_725.0, np.nan]})
    frame.attrs["formats"] = dict.fromkeys(frame.columns, "DATE9.")
    read = tables.read(transport_writing.write(frame), "a.xpt")
    assert read["FAR"].tolist() == [1e7, 0.0]
    assert read["PART"].tolist() == [1.5, 2.0]
    assert days(read["GOOD"]) == ["2014-01-02", "NaT"]
    assert read.attrs["formats"] == frame.attrs["formats"]


def test_text_that_is_not_utf8_is_windows_1252() -> None:
    data = transport_writing.write(pd.DataFrame({"A": ["Zo?", "x"], "B": ["ö", "y"]})).replace(b"Zo?", b"Zo\xeb")
    frame = tables.read(data, "a.xpt")
    assert frame["A"].tolist() == ["Zoë", "x"]
    assert frame["B"].tolist() == ["ö", "y"]
    assert frame.attrs["encoding"] == "utf-8 and windows-1252"
    of_one = transport_writing.write(pd.DataFrame({"A": ["Zo?", "x"], "B": ["o", "y"]})).replace(b"Zo?", b"Zo\xeb")
    assert tables.read(of_one, "a.xpt").attrs["encoding"] == "windows-1252"
    both = transport_writing.write(pd.DataFrame({"A": ["Zo?", "Zoë"]})).replace(b"Zo?", b"Zo\xeb")
    frame = tables.read(both, "a.xpt")
    assert frame["A"].tolist() == ["Zoë", "Zoë"]
    assert frame.attrs["encoding"] == "utf-8 and windows-1252"


def test_damaged_transport_files_say_where() -> None:
    data = pilot("adsl.xpt")
    assert "ends within row 254" in refused(data[:-100], "a.xpt").message
    assert "header" in refused(data[80:], "a.xpt").message
    assert "descriptions of its variables" in refused(data[:2000], "a.xpt").message
    assert refused(b"", "a.xpt").code == "table-damaged"
    eight = sas("version8.xpt")
    assert "says that it has 19 rows and ends after 18" in refused(eight[:-80], "a.xpt").message
    assert refused(eight.replace(b"             19 ", b"999999999999999 "), "a.xpt").code == "table-too-large"
    two = data + pilot("adtte.xpt")[240:]
    assert "more than one table" in refused(two, "a.xpt").message
    assert refused(memoryview(two), "a.xpt").code == "table-unknown"
    assert refused(sas("sample.sas7bdat")[:70_000], "a.sas7bdat").code == "table-damaged"


# --- CSV --------------------------------------------------------------------------------------------------------------
def test_csv_keeps_leading_zeros_as_text() -> None:
    frame = tables.read(b"SUBJ,N,D,X\n0701,1,0.5,a\n0702,10,0.25,b\n", "a.csv")
    assert frame["SUBJ"].tolist() == ["0701", "0702"]
    assert frame["N"].tolist() == [1, 10]
    assert frame["D"].tolist() == [0.5, 0.25]
    assert tables.read(b"N,D\n0,0.5\n", "a.csv")["N"].tolist() == [0]


@pytest.mark.parametrize(
    ("data", "name", "encoding"),
    [
        ("Ä,B\nZoë,1\n".encode(), "a.csv", "utf-8"),
        ("Ä,B\nZoë,1\n".encode("cp1252"), "a.csv", "windows-1252"),
        ("Ä;B\nZoë;1\n".encode("utf-8-sig"), "a.csv", "utf-8"),
        ("Ä\tB\nZoë\t1\n".encode("utf-16"), "a.tsv", "utf-16"),
    ],
)
def test_csv_encodings_and_separators(data: bytes, name: str, encoding: str) -> None:
    frame = tables.read(data, name)
    assert frame.to_dict("list") == {"Ä": ["Zoë"], "B": [1]}
    assert frame.attrs["encoding"] == encoding
    assert frame.attrs["labels"] == {}


def test_latin_1_where_windows_has_a_hole() -> None:
    frame = tables.read(b"A\nx\x81\xeb\n", "a.csv")
    assert frame["A"].tolist() == ["x\x81ë"]
    assert frame.attrs["encoding"] == "windows-1252"


def test_lines_of_two_encodings_in_one_csv() -> None:
    data = "Größe,NAME\n1,Zoë\n".encode() + "2,Zoë\n3,“quoted”\n".encode("cp1252")
    frame = tables.read(data, "a.csv")
    assert frame.to_dict("list") == {"Größe": [1, 2, 3], "NAME": ["Zoë", "Zoë", "“quoted”"]}
    assert frame.attrs["encoding"] == "utf-8 and windows-1252"
    part = writing.subset(data, "a.csv", columns=["NAME"], rows="NAME == 'Zoë'")
    assert part.data.decode() == "NAME\nZoë\nZoë\n"


def test_a_csv_column_that_changes_type_is_text() -> None:
    """More rows than pandas takes at a time, so that it would read the first as numbers and the last as text."""
    frame = tables.read(b"A\n" + b"1.50\n" * 2_700_000 + b"unknown\n", "a.csv")
    assert frame["A"].dtype == "str"
    assert set(frame["A"].unique()) == {"1.50", "unknown"}


def test_damaged_csv_says_where() -> None:
    assert "line 3" in refused(b"a,b\n1,2\n1,2,3\n", "a.csv").message
    assert "more cells" in refused(b"a,b\n1,2,3\n4,5,6\n", "a.csv").message
    assert tables.read(b"a,b\n1,2,\n3,4,\n", "a.csv").to_dict("list") == {"a": [1, 3], "b": [2, 4]}
    assert refused(b"\xff\xfea", "a.csv").code == "table-damaged"


# --- Parquet ----------------------------------------------------------------------------------------------------------
def parquet(table: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def test_parquet_with_labels_and_odd_types() -> None:
    fields = [
        pa.field("A", pa.string(), metadata={"label": "Name", "format": "$8."}),
        pa.field("D", pa.date32()),
        pa.field("N", pa.int16()),
        pa.field("L", pa.dictionary(pa.int8(), pa.string())),
    ]
    columns = [["x", None], pa.array([3_000_000, None], pa.int32()).cast(pa.date32()), [1, None], pa.array(["p", "q"])]
    arrays = [
        pa.array(columns[0]),
        columns[1],
        pa.array(columns[2], pa.int16()),
        columns[3].dictionary_encode().cast(fields[3].type),
    ]
    frame = tables.read(parquet(pa.table(arrays, schema=pa.schema(fields, metadata={"table_name": "DM"}))), "a.parquet")
    assert frame.attrs["labels"] == {"A": "Name"}
    assert frame.attrs["formats"] == {"A": "$8."}
    assert frame.attrs["table"] == {"name": "DM", "label": ""}
    assert frame["D"].dtype == "datetime64[s]"
    assert frame["L"].tolist() == ["p", "q"]


def test_an_index_that_pandas_hid_is_a_column() -> None:
    held = io.BytesIO()
    pd.DataFrame({"A": [1, 2]}, index=pd.Index(["x", "y"], name="ID")).to_parquet(held)
    assert set(tables.read(held.getvalue(), "a.parquet").columns) == {"A", "ID"}


def test_parquet_that_claims_too_much_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    many = parquet(pa.table({"A": pa.array(np.zeros(1_000_000, np.int8))}))
    assert tables.read(many, "a.parquet").shape == (1_000_000, 1)
    monkeypatch.setattr("labxchange.content.damage.CELLS_MIN", 100_000)
    assert refused(many, "a.parquet").code == "table-too-large"
    word = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3_000, np.int32)), pa.array(["x" * 1_000_000]))
    long = parquet(pa.table({"A": word}), compression="zstd")
    assert len(long) < 10_000
    assert refused(long, "a.parquet").code == "table-too-large"


def test_parquet_refusals() -> None:
    assert refused(parquet(pa.table({"A": [[1], [2]]})), "a.parquet").code == "table-unknown"
    good = parquet(pa.table({"A": [1, 2]}))
    for data in (b"", b"PAR1", good[:-4], good[4:], good[:20] + good[40:]):
        assert refused(data, "a.parquet").code == "table-damaged"


# --- Dataset-JSON -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "name"), [(dataset_json(), "a.json"), (dataset_json_1_0(), "a.json"), (dataset_lines(), "a.ndjson")]
)
def test_dataset_json(data: bytes, name: str) -> None:
    frame = tables.read(data, name)
    assert list(frame.columns) == ["USUBJID", "AGE", "DOSE", "DAY", "DTC"]
    assert frame["AGE"].tolist() == [63, 64, 71]
    np.testing.assert_array_equal(frame["DOSE"], [1.5, 2, np.nan])
    assert days(frame["DAY"]) == ["2014-07-02", "2014-07-03", "NaT"]
    assert frame["DTC"].tolist()[:2] == ["2014-07", "2014-07-03"], "a partial date stays text"
    assert frame.attrs["labels"]["AGE"] == "Age"
    assert frame.attrs["formats"] == {"DAY": "DATE9."}
    assert frame.attrs["table"] == {"name": "DM", "label": "Demographics"}


def test_a_dataset_json_column_that_changes_type_stays_as_written() -> None:
    frame = tables.read(dataset_json(COLUMNS[1:2], [[1], ["two"], [None]]), "a.json")
    assert frame["AGE"].tolist() == [1, "two", None]
    flags = tables.read(dataset_json([{"name": "F", "dataType": "boolean"}], [[True], [None]]), "a.json")
    assert flags["F"].dtype == "boolean"


def test_damaged_dataset_json() -> None:
    assert "says that it has 5 records and has 3" in refused(dataset_json(records=5), "a.json").message
    assert "row 2 has 1 values" in refused(dataset_json(rows=[ROWS[0], [1]]), "a.json").message
    for data in (
        b"",
        b"{}",
        b"[]",
        b"[" * 100_000,
        dataset_json()[:-5],
        b'{"columns": [{"name": "\\ud800"}], "rows": []}',
        b"\xff",
    ):
        assert refused(data, "a.json").code == "table-damaged"
        assert refused(data, "a.ndjson").code == "table-damaged"
    assert refused(dataset_json([COLUMNS[0], COLUMNS[0]], []), "a.json").code == "table-damaged"


# --- all formats ------------------------------------------------------------------------------------------------------
def test_an_empty_table_has_columns_and_no_rows() -> None:
    empty = pd.DataFrame({"A": pd.Series([], dtype="float64"), "B": pd.Series([], dtype="str")})
    files = {
        "a.csv": b"A,B\n",
        "a.xpt": transport_writing.write(empty),
        "a.parquet": parquet(pa.Table.from_pandas(empty)),
        "a.json": dataset_json(COLUMNS[:2], []),
        "a.ndjson": b'{"columns": [{"name": "A"}, {"name": "B"}]}\n',
    }
    for name, data in files.items():
        assert tables.read(data, name).shape == (0, 2), name
    assert tables.read(b"", "a.csv").shape == (0, 0)
    assert tables.read(transport_writing.write(pd.DataFrame()), "a.xpt").shape == (0, 0)


def test_two_thousand_columns() -> None:
    frame = pd.DataFrame({f"C{number}": [number, None] for number in range(2000)})
    files = {
        "a.csv": frame.to_csv(index=False).encode(),
        "a.xpt": transport_writing.write(frame),
        "a.parquet": parquet(pa.Table.from_pandas(frame)),
        "a.json": dataset_json([{"name": name, "dataType": "float"} for name in frame], [list(range(2000)), [None] * 2000]),
    }
    for name, data in files.items():
        read = tables.read(data, name)
        assert read.shape == (2, 2000), name
        assert read["C1999"].iloc[0] == 1999, name


def test_unknown_files_are_named_and_escaped() -> None:
    for name in ("a.docx", "csv", "a.csv.exe", "\x1b[31m.pdf", ""):
        assert refused(b"a,b\n", name).code == "table-unknown"
    assert tables.kind("ADSL.XPT") == "xpt"


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    told = refused(b"a\n1\n", "a.csv")
    assert told.code == "table-extra-missing"
    assert "labxchange[tables]" in told.hint


def test_a_transport_file_with_an_impossible_description() -> None:
    data = bytearray(pilot("adsl.xpt"))
    struct.pack_into(">h", data, 640 + 4, 0)
    assert "STUDYID" in refused(bytes(data), "a.xpt").message
