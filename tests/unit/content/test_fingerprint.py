"""The fingerprint depends on values alone: the page's vectors, a second implementation, and round trips through formats."""

from __future__ import annotations

import datetime
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labxchange.content import canonical, tables, writing
from labxchange.content.fingerprint import fingerprint
from labxchange.errors import InputError
from tests.unit.content.samples import dataset_json, dataset_json_1_0, dataset_lines, digest, number_text, pilot, text_text

PAGE = Path(__file__).resolve().parents[3] / "docs" / "spec" / "fingerprint.md"
NAMES = ("adsl.xpt", "adae.xpt", "adtte.xpt")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def test_the_vectors_of_the_page() -> None:
    blocks = re.findall(r"((?:^ {4}.*\n)+) {4}= ([0-9a-f]{64})\n", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(blocks) == 2
    for block, expected in blocks:
        text = re.sub(r"^ {4}", "", block, flags=re.MULTILINE)
        assert fingerprint(tables.read(text.encode(), "a.csv")).value == expected
        head, *lines = [line.split(",") for line in text.splitlines()]
        cells = {name: [line[place].replace("1e20", "1e+20") for line in lines] for place, name in enumerate(head)}
        assert digest(cells) == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_same_through_parquet_transport_and_csv(name: str) -> None:
    first = tables.read(pilot(name), name)
    expected = fingerprint(first)
    assert (expected.rows, expected.columns) == first.shape
    held = first
    for kind in ("parquet", "xpt", "csv"):
        held = tables.read(writing.write(held, kind), f"a.{kind}")
        assert fingerprint(held) == expected, kind
    assert str(expected) == expected.value


def test_the_same_from_every_form_of_dataset_json() -> None:
    forms = (dataset_json(), "a.json"), (dataset_json_1_0(), "b.json"), (dataset_lines(), "c.ndjson")
    frames = [tables.read(data, name) for data, name in forms]
    assert len({fingerprint(frame).value for frame in frames}) == 1
    assert fingerprint(tables.read(writing.write(frames[0], "csv"), "a.csv")) == fingerprint(frames[0])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=8))
def test_numbers_are_the_shortest_decimal(values: list[float]) -> None:
    assert canonical.texts(pd.Series(values)).to_pylist() == [number_text(value) for value in values]


@pytest.mark.parametrize("exponent", range(-8, 19))
def test_numbers_around_the_change_of_form(exponent: int) -> None:
    values = [float(f"{digits}e{exponent}") for digits in ("1", "1.5", "9.999999999999999", "-1.25")]
    assert canonical.texts(pd.Series(values)).to_pylist() == [number_text(value) for value in values]


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=8), st.sampled_from(["str", "object", "category"]))
def test_text_is_normal_and_without_padding(values: list[str], dtype: str) -> None:
    column = pd.Series(values, dtype=dtype)
    assert canonical.texts(column).to_pylist() == [text_text(value) for value in values]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(allow_nan=False), TEXT), max_size=6))
def test_a_second_implementation_agrees(rows: list[tuple[float, str]]) -> None:
    frame = pd.DataFrame({"N": [row[0] for row in rows], "T": pd.Series([row[1] for row in rows], dtype="str")})
    cells = {"N": [number_text(row[0]) for row in rows], "T": [text_text(row[1]) for row in rows]}
    assert fingerprint(frame).value == digest(cells)


def test_more_rows_than_a_block_holds() -> None:
    frame = pd.DataFrame({"N": np.arange(70_000), "T": [str(one % 7) for one in range(70_000)]})
    cells = {"N": [str(one) for one in range(70_000)], "T": [str(one % 7) for one in range(70_000)]}
    assert fingerprint(frame).value == digest(cells)
    assert fingerprint(frame.iloc[5:]).value == digest({name: texts[5:] for name, texts in cells.items()})


def test_how_a_value_is_stored_does_not_count() -> None:
    def one(column: pd.Series) -> str:
        return fingerprint(pd.DataFrame({"A": column})).value

    numbers = [[1, 2, 3], [1.0, 2.0, 3.0], np.array([1, 2, 3], "int8"), [Decimal(1), Decimal("2.0"), 3], ["1", "2 ", "3"]]
    assert len({one(pd.Series(values)) for values in numbers}) == 1
    assert one(pd.Series([1, None], dtype="Int64")) == one(pd.Series([1.0, float("nan")])) == one(pd.Series(["1", ""]))
    days = [datetime.date(2014, 7, 2), datetime.date(1, 1, 1)]
    forms = [pd.Series(days), pd.Series(np.array(days, "datetime64[s]")), pd.Series(["2014-07-02", "0001-01-01"])]
    assert len({one(form) for form in forms}) == 1
    moments = ["2014-07-02T08:30:00.25", "2014-07-02"]
    units = [pd.Series(np.array(moments, f"datetime64[{unit}]")) for unit in ("ms", "us", "ns")]
    assert len({one(form) for form in (*units, pd.Series(moments))}) == 1
    zoned = pd.Series(pd.to_datetime(["2014-07-02T08:30:00+02:00"]))
    assert one(zoned) == one(pd.Series(["2014-07-02T06:30:00Z"]))
    assert one(pd.Series(pd.to_timedelta([90, 0.5], unit="s"))) == one(pd.Series([90, 0.5]))
    assert one(pd.Series([True, False])) == one(pd.Series(["true", "false"]))
    assert one(pd.Series([-0.0])) == one(pd.Series([0]))
    assert one(pd.Series([float(2**60)])) == one(pd.Series([2**60]))
    assert one(pd.Series([2**60])) != one(pd.Series([2**60 + 1]))


def test_each_change_changes_it() -> None:
    frame = pd.DataFrame({"A": [1, 2], "B": ["x", "yz"]})
    others = [
        frame.rename(columns={"A": "C"}),
        frame[["B", "A"]],
        frame.iloc[::-1],
        frame.iloc[:1],
        frame.assign(A=[1, 3]),
        frame.assign(B=["xy", "z"]),
        frame[["A"]],
        frame.assign(C=None),
    ]
    assert len({fingerprint(one).value for one in (frame, *others)}) == 1 + len(others)
    assert fingerprint(frame.set_axis([7, 9])) == fingerprint(frame), "the index is no value"


def test_what_no_table_holds_is_refused() -> None:
    for cell in (b"bytes", [1], object(), "\ud800"):
        with pytest.raises(InputError) as told:
            fingerprint(pd.DataFrame({"A": pd.Series([cell], dtype="object")}))
        assert told.value.code == "value-unknown"


def test_dates_beyond_the_calendar() -> None:
    far = pd.Series(np.array(["20000-01-01", "NaT", "2014-07-02"], "datetime64[s]"))
    assert canonical.texts(far).to_pylist() == ["20000-01-01", "", "2014-07-02"]
