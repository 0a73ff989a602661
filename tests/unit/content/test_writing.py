"""What is written reads back the same; a part of a table keeps its cells, its format and says what it left out."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pandas as pd
import pyreadstat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labxchange.content import tables, writing
from labxchange.content.fingerprint import fingerprint
from labxchange.errors import InputError
from tests.unit.content.samples import dataset_json, dataset_json_1_0, dataset_lines, days, pilot, sas

PILOT = ("adsl.xpt", "adae.xpt", "adtte.xpt")
NUMBERS = st.one_of(
    st.just(float("nan")),
    st.integers(-(2**53), 2**53).map(float),
    st.floats(1e-70, 1e70),
    st.floats(1e-70, 1e70).map(lambda x: -x),
)
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20).map(lambda text: text.rstrip(" "))


def code(call: object, *args: object, **more: object) -> str:
    with pytest.raises(InputError) as told:
        call(*args, **more)  # type: ignore[operator]
    return told.value.code


# --- whole tables -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", PILOT)
def test_transport_files_come_back_equal(name: str) -> None:
    first = tables.read(pilot(name), name)
    written = writing.write(first, "xpt")
    again = tables.read(written, name)
    pd.testing.assert_frame_equal(again, first)
    assert again.attrs == first.attrs
    assert writing.write(again, "xpt") == written, "the same table is the same bytes"
    theirs, about = pyreadstat.read_xport(io.BytesIO(written))
    expected, expected_about = pyreadstat.read_xport(io.BytesIO(pilot(name)))
    pd.testing.assert_frame_equal(theirs, expected)
    assert about.column_names_to_labels == expected_about.column_names_to_labels
    assert about.original_variable_types == expected_about.original_variable_types
    by_pandas = pd.read_sas(io.BytesIO(written), format="xport", encoding="utf-8")
    pd.testing.assert_frame_equal(by_pandas, pd.read_sas(io.BytesIO(pilot(name)), format="xport", encoding="utf-8"))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(NUMBERS, WORDS), max_size=12))
def test_any_value_through_transport_and_parquet(rows: list[tuple[float, str]]) -> None:
    frame = pd.DataFrame(
        {"N": pd.Series([r[0] for r in rows], dtype="float64"), "T": pd.Series([r[1] for r in rows], dtype="str")}
    )
    for kind in ("xpt", "parquet"):
        again = tables.read(writing.write(frame, kind), f"a.{kind}")
        if kind == "xpt" and not (rows and rows[-1] != (0.0, "")):
            continue
        np.testing.assert_array_equal(again["N"], frame["N"])
        assert again["T"].tolist() == frame["T"].tolist()
        assert fingerprint(again) == fingerprint(frame)


def test_short_rows_of_blanks_at_the_end_are_padding() -> None:
    """Version 5 counts no rows: blank rows that end within the last record cannot be told from its padding."""
    frame = tables.read(writing.write(pd.DataFrame({"T": ["a", "", ""]}), "xpt"), "a.xpt")
    assert frame["T"].tolist() == ["a"]


def test_csv_writes_dates_in_iso_and_numbers_that_read_back() -> None:
    frame = pd.DataFrame({"D": pd.to_datetime(["2014-07-02", None]), "N": [0.1, 1e-7], "T": ['a "b", c', "Zoë"]})
    data = writing.write(frame, "csv")
    assert data.decode().splitlines()[0] == "D,N,T"
    assert b"2014-07-02," in data
    again = tables.read(data, "a.csv")
    assert again["N"].tolist() == [0.1, 1e-7]
    assert again["T"].tolist() == ['a "b", c', "Zoë"]
    assert fingerprint(again) == fingerprint(frame)


def test_parquet_keeps_labels_formats_and_the_table() -> None:
    first = tables.read(pilot("adsl.xpt"), "adsl.xpt")
    again = tables.read(writing.write(first, "parquet"), "a.parquet")
    assert {key: again.attrs[key] for key in ("labels", "formats", "table")} == {
        key: first.attrs[key] for key in ("labels", "formats", "table")
    }


@pytest.mark.parametrize(
    "column",
    [[True], ["x" * 32_768], [1e80], [1e-80], [2**60], [1, "x"], pd.to_datetime(["2020-01-01T00:00Z"]), [float("inf")]],
    ids=lambda column: str(column)[:20],
)
def test_what_transport_cannot_hold_is_refused(column: list[object]) -> None:
    assert code(writing.write, pd.DataFrame({"A": column}), "xpt") == "table-unwritable"


def test_names_and_labels_that_transport_cannot_hold() -> None:
    for name in ("A" * 33, "Ä" * 17, " A", "A\n", "A\x00", "\ud800", ""):
        frame = pd.DataFrame([[1]], columns=pd.Index([name], dtype="object"))
        assert code(writing.write, frame, "xpt") == "table-unwritable"
    assert code(writing.write, pd.DataFrame({"A": [1], "a": [1]}), "xpt") == "table-unwritable"
    frame = pd.DataFrame({"A": [1]})
    for label in ("x" * 257, "\ud800"):
        frame.attrs["labels"] = {"A": label}
        assert code(writing.write, frame, "xpt") == "table-unwritable"
    assert code(writing.write, frame, "sas7bdat") == "table-unknown"


# --- version 8 --------------------------------------------------------------------------------------------------------
LONG = "Time from First Exposure to the First Dermatologic Event (Days), as Derived by the Sponsor"


def version(data: bytes) -> int:
    return 8 if b"LIBV8" in data[:80] else 5


@pytest.mark.parametrize(
    ("frame", "labels", "formats", "table"),
    [
        (pd.DataFrame({"A_NAME_OF_32_LETTERS_AND_A_DIGIT": [1.5, None]}), {}, {}, {}),
        (pd.DataFrame({"Größe in cm": [1.5, None], "2nd": ["x", "y"]}), {}, {}, {}),
        (pd.DataFrame({"A": [1.5, None], "B": ["", "b"]}), {"A": LONG, "B": "Short"}, {}, {}),
        (pd.DataFrame({"A": ["é" * 150, ""]}), {"A": "é" * 20 + "x"}, {}, {"name": "T", "label": "Of it"}),
        (pd.DataFrame({"A": [1.0, 2.0]}), {}, {}, {"name": "A_LONG_NAME_OF_A_TABLE", "label": ""}),
        (pd.DataFrame({"A": pd.to_datetime(["2014-07-02", None]), "B": ["x", ""]}), {"B": LONG}, {"A": "DATE9."}, {}),
        (pd.DataFrame({"A_LONG_NAME": [], "B": []}, dtype="float64"), {"A_LONG_NAME": LONG}, {}, {}),
    ],
    ids=["name", "odd names", "label", "text", "table", "date", "no rows"],
)
def test_what_version_5_cannot_hold_is_version_8(
    frame: pd.DataFrame, labels: dict[str, str], formats: dict[str, str], table: dict[str, str]
) -> None:
    frame.attrs = {"labels": labels, "formats": formats, "table": table}
    data = writing.write(frame, "xpt")
    assert version(data) == 8
    assert len(data) % 80 == 0
    again = tables.read(data, "a.xpt")
    assert fingerprint(again) == fingerprint(frame)
    assert (again.attrs["labels"], again.attrs["formats"]) == (labels, formats)
    assert again.attrs["table"] == (table or {"name": "DATA", "label": ""})
    assert writing.write(again, "xpt") == data
    assert tables.columns(io.BytesIO(data), "a.xpt") == {name: labels.get(name, "") for name in frame.columns}
    theirs, about = pyreadstat.read_xport(io.BytesIO(data), disable_datetime_conversion=True)
    assert list(theirs.columns) == list(frame.columns)
    assert {name: label for name, label in about.column_names_to_labels.items() if label} == labels
    for name, column in theirs.items():
        if frame[name].dtype.kind != "M":
            pd.testing.assert_series_equal(column, frame[name], check_dtype=False)
    assert {name: said for name, said in about.original_variable_types.items() if said} == {
        name: said.rstrip(".") for name, said in formats.items()
    }


def test_a_long_name_of_a_format_stands_where_sas_looks_for_it() -> None:
    """LABELV9 as the macro %xpt2loc of SAS reads it: five lengths; name, label, format, informat."""
    frame = pd.DataFrame({"A": [1.0], "B": [2.0]})
    frame.attrs = {"labels": {"A": LONG}, "formats": {"A": "BEST12.", "B": "MYSEVERITYGRADES20."}}
    data = writing.write(frame, "xpt")
    head = b"HEADER RECORD*******LABELV9 HEADER RECORD!!!!!!!2".ljust(80)
    entries = data[data.index(head) + 80 :]
    first = struct.pack(">5H", 1, 1, len(LONG), 7, 0) + b"A" + LONG.encode() + b"BEST12."
    assert entries.startswith(first + struct.pack(">5H", 2, 1, 0, 19, 0) + b"BMYSEVERITYGRADES20.  ")
    assert tables.read(data, "a.xpt").attrs["formats"] == frame.attrs["formats"]
    part = writing.subset(data, "a.xpt", columns=["B"])
    assert tables.read(part.data, "a.xpt").attrs["formats"] == {"B": "MYSEVERITYGRADES20."}


def test_as_many_columns_as_the_header_can_count() -> None:
    frame = pd.DataFrame(np.arange(10_000.0)[np.newaxis], columns=[f"C{number}" for number in range(10_000)])
    for count, expected in ((9_999, 5), (10_000, 8)):
        data = writing.write(frame.iloc[:, :count], "xpt")
        assert version(data) == expected
        again = tables.read(data, "a.xpt")
        assert (again.shape, again.iloc[0, -1]) == ((1, count), count - 1)
    many = pd.DataFrame(np.zeros((1, 32_768)), columns=[f"C{number}" for number in range(32_768)])
    assert code(writing.write, many, "xpt") == "table-unwritable"


def test_version_8_counts_its_rows_so_that_blank_ones_stay() -> None:
    frame = pd.DataFrame({"A_LONG_NAME": ["a", "", ""]})
    assert tables.read(writing.write(frame, "xpt"), "a.xpt")["A_LONG_NAME"].tolist() == ["a", "", ""]


NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8).filter(lambda name: name.isprintable())
LABELS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60).map(str.strip)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, st.tuples(LABELS, NUMBERS, WORDS), max_size=6), LABELS)
def test_any_names_and_labels_through_transport(columns: dict[str, tuple[str, float, str]], label: str) -> None:
    unique = {name.upper(): (name, *rest) for name, rest in columns.items()}
    cells = {name: [value] if number % 2 else [word] for number, (name, _, value, word) in enumerate(unique.values())}
    frame = pd.DataFrame(cells)
    frame.attrs["labels"] = {name: label for name, label, _, _ in unique.values() if label}
    frame.attrs["table"] = {"name": "T", "label": label[:10].strip()}
    data = writing.write(frame, "xpt")
    again = tables.read(data, "a.xpt")
    assert list(again.columns) == list(frame.columns)
    assert again.attrs["labels"] == frame.attrs["labels"]
    if version(data) == 8:
        assert fingerprint(again) == fingerprint(frame)
    assert writing.subset(data, "a.xpt").data == data


# --- parts ------------------------------------------------------------------------------------------------------------
def test_a_part_of_a_transport_file_keeps_its_bytes() -> None:
    data, first = pilot("adsl.xpt"), tables.read(pilot("adsl.xpt"), "adsl.xpt")
    names = ["USUBJID", "AGE", "SEX", "TRTSDT"]
    part = writing.subset(data, "adsl.xpt", columns=names, rows='AGE >= 65 and SEX == "F"')
    again = tables.read(part.data, "a.xpt")
    wanted = first[(first["AGE"] >= 65) & (first["SEX"] == "F")][names].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, wanted)
    assert (part.kind, part.columns, part.rows) == ("xpt", tuple(names), len(wanted))
    assert part.withheld_columns == tuple(name for name in first.columns if name not in names)
    assert part.rows + part.withheld_rows == len(first)
    assert again.attrs["labels"] == {name: first.attrs["labels"][name] for name in names}
    assert again.attrs["formats"] == {"TRTSDT": "DATE9."}
    for word in (b"TRT01P", b"Placebo", b"Planned Treatment"):
        assert word in data
        assert word not in part.data, "what is withheld is not in the bytes"
    pyreadstat.read_xport(io.BytesIO(part.data))


def test_all_of_a_transport_file_of_version_8() -> None:
    data = sas("version8.xpt")
    whole = tables.read(data, "a.xpt")
    part = writing.subset(data, "a.xpt", columns=["missings", "dt", "seconds"], rows=lambda table: table["seconds"] > 0)
    again = tables.read(part.data, "a.xpt")
    pd.testing.assert_frame_equal(again, whole[whole["seconds"] > 0][["missings", "dt", "seconds"]].reset_index(drop=True))
    assert again.attrs["labels"] == {name: whole.attrs["labels"][name] for name in ("missings", "dt", "seconds")}
    _, about = pyreadstat.read_xport(io.BytesIO(part.data))
    assert about.column_names_to_labels == again.attrs["labels"]


@pytest.mark.parametrize("name", ["a.parquet", "a.xpt"])
def test_a_part_in_its_own_format(name: str) -> None:
    kind = name.partition(".")[2]
    first = tables.read(pilot("adsl.xpt"), "adsl.xpt")
    part = writing.subset(writing.write(first, kind), name, rows={"SEX": "F", "AGE": [70, 71]})
    again = tables.read(part.data, f"a.{part.kind}")
    assert part.kind == kind
    assert fingerprint(again) == fingerprint(first[(first["SEX"] == "F") & first["AGE"].isin([70, 71])])
    assert part.withheld_columns == ()
    assert again.attrs["labels"] == first.attrs["labels"]


def test_csv_cells_keep_their_text() -> None:
    data = 'ID;DOSE;NOTE\n0701;1.50;NA\n0702;2.0;"a;b"\n0703;3;Zoë\n'.encode("cp1252")
    part = writing.subset(data, "a.csv", columns=["NOTE", "ID", "DOSE"], rows="DOSE < 3")
    assert part.data.decode() == 'NOTE;ID;DOSE\nNA;0701;1.50\n"a;b";0702;2.0\n'
    assert (part.rows, part.withheld_rows, part.withheld_columns) == (2, 1, ())
    assert writing.subset(data, "a.csv", columns=["ID"]).data == b"ID\n0701\n0702\n0703\n"
    assert writing.subset(b"", "a.csv").rows == 0


@pytest.mark.parametrize(
    ("data", "name"), [(dataset_json(), "a.json"), (dataset_json_1_0(), "a.json"), (dataset_lines(), "a.ndjson")]
)
def test_dataset_json_keeps_its_form(data: bytes, name: str) -> None:
    part = writing.subset(data, name, columns=["DOSE", "USUBJID"], rows="AGE <= 64")
    again = tables.read(part.data, name)
    assert again.to_dict("list") == {"DOSE": [1.5, 2.0], "USUBJID": ["01-701-1015", "01-701-1023"]}
    assert part.withheld_columns == ("AGE", "DAY", "DTC")
    assert b"1.50" in part.data
    assert b"Start" not in part.data
    assert json.loads(part.data.splitlines()[0])["datasetJSONVersion"] == json.loads(data.splitlines()[0])["datasetJSONVersion"]


def test_a_part_of_a_sas7bdat_is_a_transport_file() -> None:
    part = writing.subset(sas("sample.sas7bdat"), "a.sas7bdat", columns=["mychar", "mydate"], rows="mynum > 0")
    again = tables.read(part.data, "a.xpt")
    assert part.kind == "xpt"
    assert again["mychar"].tolist() == ["a", "b", "e"]
    assert days(again["mydate"]) == ["2018-05-06", "1880-05-06", "NaT"]


def test_a_sas7bdat_with_a_long_name_becomes_version_8() -> None:
    data = bytearray(sas("sample.sas7bdat"))
    text = data.index(b"mydate\0\0YYMMDD")
    entry = data.index(struct.pack("<4H", 0, 36 + text - data.index(b"mychar"), 6, 0))
    data[text + 6 : text + 8] = b"_x"
    struct.pack_into("<H", data, entry + 4, 14)
    part = writing.subset(bytes(data), "a.sas7bdat", columns=["mydate_xYYMMDD", "mychar"], rows="mychar != 'a'")
    assert version(part.data) == 8
    again = tables.read(part.data, "a.xpt")
    assert again["mychar"].tolist() == ["b", "c", "d", "e"]
    assert days(again["mydate_xYYMMDD"]) == ["1880-05-06", "1960-01-01", "1583-01-01", "NaT"]


def test_no_rows_and_no_columns() -> None:
    none = writing.subset(pilot("adsl.xpt"), "a.xpt", rows="AGE > 1000")
    assert (none.rows, none.withheld_rows) == (0, 254)
    assert tables.read(none.data, "a.xpt").shape == (0, 48)
    assert tables.read(writing.subset(pilot("adsl.xpt"), "a.xpt", columns=[]).data, "a.xpt").shape == (0, 0)


def test_columns_that_are_not_there() -> None:
    for columns in (["AGE", "age"], ["NOPE"], ["AGE", "AGE"]):
        assert code(writing.subset, pilot("adsl.xpt"), "a.xpt", columns=columns) == "column-unknown"
    assert code(writing.subset, pilot("adsl.xpt"), "a.xpt", rows={"NOPE": 1}) == "column-unknown"
    assert code(writing.subset, pilot("adsl.xpt"), "a.xpt", rows=lambda table: table["AGE"]) == "rows-refused"
