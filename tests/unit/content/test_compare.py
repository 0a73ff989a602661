"""Every difference between two tables is counted, found by keys, and shown without a control character."""

from __future__ import annotations

import pandas as pd
import pytest

from labxchange.content import tables, writing
from labxchange.content.compare import KEPT_MAX, CellChange, compare
from labxchange.errors import InputError
from tests.unit.content.samples import pilot


def adsl() -> pd.DataFrame:
    return tables.read(pilot("adsl.xpt"), "adsl.xpt")


def test_no_difference_through_formats() -> None:
    first = adsl()
    for kind in ("parquet", "xpt", "csv"):
        found = compare(first, tables.read(writing.write(first, kind), f"a.{kind}"))
        assert found.same_values
        assert not found.cells
        assert (found.types == ()) is (kind != "csv"), "CSV reads dates as text and a number of a site as a number"
    assert "no difference" in repr(compare(first, first))
    assert compare(first, first).to_frame().empty


def test_rows_cells_columns_labels_and_types() -> None:
    first = adsl()
    second = first.drop(index=3).drop(columns="RACE").assign(NEW=1, AGE=first["AGE"].astype("int64"))
    second["SITEID"] = second["SITEID"].astype("int64")
    second.loc[5, "SEX"] = "X"
    second.loc[6, "TRTSDT"] = pd.NaT
    added = second.iloc[[0]].assign(USUBJID="01-999-0001")
    second = pd.concat([added, second.iloc[::-1]], ignore_index=True)
    second.attrs = {**first.attrs, "labels": {**first.attrs["labels"], "AGE": "Age\x1b[31m at start"}}
    found = compare(first, second)
    assert found.keys == ("STUDYID", "USUBJID")
    assert (found.rows_before, found.rows_after, found.rows_added, found.rows_removed) == (254, 254, 1, 1)
    assert found.added == (("CDISCPILOT01", "01-999-0001"),)
    assert found.removed == (("CDISCPILOT01", first["USUBJID"][3]),)
    assert (found.columns_added, found.columns_removed) == (("NEW",), ("RACE",))
    assert found.cells_changed == 2
    key = ("CDISCPILOT01", first["USUBJID"][5])
    assert found.cells[1] == CellChange(key=key, column="SEX", before=first["SEX"][5], after="X")
    assert (found.cells[0].column, found.cells[0].after) == ("TRTSDT", "")
    assert [(one.column, one.before) for one in found.labels] == [("AGE", "Age")]
    assert [(one.column, one.before, one.after) for one in found.types] == [("SITEID", "text", "number")]
    assert not found.same_values
    assert "\x1b" not in repr(found)
    assert "row removed" in repr(found)
    assert len(found.to_frame()) == 8
    assert "\x1b" not in found.to_frame().to_csv()


def test_keys_are_guessed_as_cdisc_names_them() -> None:
    events = tables.read(pilot("adae.xpt"), "adae.xpt")
    assert compare(events, events).keys == ("STUDYID", "USUBJID", "AESEQ")
    labs = pd.DataFrame({"USUBJID": ["1", "1", "1"], "PARAMCD": ["A", "A", "B"], "AVISITN": [1, 2, 1]})
    assert compare(labs, labs).keys == ("USUBJID", "PARAMCD", "AVISITN")
    twice = pd.DataFrame({"USUBJID": ["1", "1"], "A": [1, 2]})
    assert compare(twice, twice).keys == ()
    assert compare(pd.DataFrame({"A": [1]}), pd.DataFrame({"A": [1]})).keys == ()


def test_rows_without_keys_match_by_place() -> None:
    found = compare(pd.DataFrame({"A": [1, 2]}), pd.DataFrame({"A": [1, 3, 4]}))
    assert (found.rows_added, found.rows_removed, found.cells_changed) == (1, 0, 1)
    assert found.cells == (CellChange(key=("2",), column="A", before="2", after="3"),)
    assert found.added == (("3",),)
    less = compare(pd.DataFrame({"A": [1, 2, 3]}), pd.DataFrame({"A": [1]}))
    assert (less.rows_removed, less.cells_changed) == (2, 0)


def test_keys_that_are_given() -> None:
    first, second = pd.DataFrame({"K": [1, 2], "A": ["x", "y"]}), pd.DataFrame({"K": [2, 1], "A": ["y", "z"]})
    found = compare(first, second, keys=["K"])
    assert found.cells == (CellChange(key=("1",), column="A", before="x", after="z"),)
    for keys, code in ((["NOPE"], "column-unknown"), (["K"], "keys-not-unique")):
        with pytest.raises(InputError) as told:
            compare(first, pd.DataFrame({"K": [1, 1], "A": ["x", "y"]}), keys=keys)
        assert told.value.code == code
    with pytest.raises(InputError):
        compare(pd.DataFrame([[1, 2]], columns=["A", "A"]), first)


def test_many_differences_are_counted_and_some_are_kept() -> None:
    count = 3 * KEPT_MAX
    found = compare(pd.DataFrame({"A": range(count), "B": 0}), pd.DataFrame({"A": range(1, count + 1), "B": 1}))
    assert found.cells_changed == 2 * count
    assert len(found.cells) == KEPT_MAX
    assert "more" in repr(found)
    assert len(repr(found).splitlines()) < 30
    empty = compare(pd.DataFrame(), pd.DataFrame({"A": range(count)}))
    assert (empty.rows_added, len(empty.added)) == (count, KEPT_MAX)
