"""Odd and damaged tables through two real nodes: each is the right table in the end, or one sentence that says what is wrong.

How each format is read is tested in tests/unit/content; here it is seen that nothing on the way from a sender's folder to
``lx.compare`` trips over them.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import labxchange as lx
from labxchange.content import writing
from labxchange.errors import InputError
from labxchange.node.client import run
from tests.integration.test_notebook import being, given, leave
from tests.integration.test_two_nodes import offered, pair
from tests.unit.content.samples import dataset_json, pilot, sas

EVIL = "<img src=x onerror=alert(1)>\x1b[31m\u202egnp.exe"
ADSL = pilot("adsl.xpt")


def flipped(place: int, bit: int) -> bytes:
    out = bytearray(ADSL)
    out[place] ^= bit
    return bytes(out)


DAMAGED = {
    "empty.xpt": (b"", "at byte 0 a header"),
    "cut.xpt": (ADSL[:-100], "ends within row 254"),
    "cut-in-the-header.xpt": (ADSL[:2000], "ends within the descriptions of its variables"),
    "flipped-mark.xpt": (flipped(5, 0x40), "at byte 0 a header"),
    "flipped-namestr.xpt": (flipped(585, 1), "at byte 560 a header"),
    "flipped-type.xpt": (flipped(641, 8), "impossible type or length"),
    "torn.xpt": (ADSL[:50_000] + ADSL[50_037:], "ends within row 254"),
    "torn-8.xpt": (sas("version8.xpt")[:-40], "says that it has 19 rows and ends after 18"),
    "cut.sas7bdat": (sas("sample.sas7bdat")[:70_000], "not an intact SAS dataset"),
    "cut-utf-16.csv": ("ID,NAME\n1,Zoë\n".encode("utf-16")[:-1], "not in the encoding"),
    "torn.csv": (b"A,B\n1,2\n1,2,3\n", "line 3"),
    "torn.json": (dataset_json()[:-20], "no Dataset-JSON"),
    "cut.parquet": (writing.write(pd.DataFrame({"A": [1]}), "parquet")[:-10], "no intact Parquet"),
}


def dates() -> pd.DataFrame:
    """Days of SAS from 0043-06-19 to 9999-12-31, and some that no calendar has."""
    frame = pd.DataFrame({"LAST": [2_936_549.0, 110_405.0], "FIRST": [-138_062.0, -700_000.0], "FAR": [1e7, -715_510.0]})
    frame.attrs["formats"] = dict.fromkeys(frame.columns, "DATE9.")
    return frame


def far() -> bytes:
    out = io.BytesIO()
    days, moments = pa.array([-(2**31), 2**31 - 1], pa.date32()), pa.array([-(2**62), 2**62], pa.timestamp("us"))
    pq.write_table(pa.table({"D": days, "M": moments}), out)
    return out.getvalue()


def labelled() -> pd.DataFrame:
    frame = pd.DataFrame({"A": [1.0], EVIL: [2.0], "T": [EVIL]})
    frame.attrs = {"labels": {"A": EVIL}, "table": {"name": "T", "label": EVIL}}
    return frame


def is_dates(frame: pd.DataFrame) -> None:
    assert [str(day)[:10] for day in frame["LAST"].to_numpy()] == ["9999-12-31", "2262-04-12"]
    assert [str(day)[:10] for day in frame["FIRST"].to_numpy()] == ["1581-12-31", "0043-06-19"]
    assert frame["FAR"].tolist() == [1e7, -715_510.0], "no calendar has them, so they stay what they are"


def has_two_encodings(frame: pd.DataFrame) -> None:
    assert set(frame["NAME"]) == {"Zoë"}
    assert frame.attrs["encoding"] == "utf-8 and windows-1252"


def is_text(frame: pd.DataFrame) -> None:
    assert (frame["V"].iloc[0], frame["V"].iloc[-1]) == ("0", "late")


def shaped(rows: int, columns: int) -> Callable[[pd.DataFrame], None]:
    def check(frame: pd.DataFrame) -> None:
        assert frame.shape == (rows, columns)

    return check


def odd() -> dict[str, tuple[bytes, Callable[[pd.DataFrame], Any]]]:
    wide = pd.DataFrame({f"C{number}": np.arange(200.0) + number for number in range(2000)})
    late = "".join(f"{number},{number}\n" for number in range(700_000))
    names = pd.DataFrame({"NAME": ["Zo?", "Zoë"]})
    return {
        "dates.xpt": (writing.write(dates(), "xpt"), is_dates),
        "far.parquet": (far(), lambda frame: repr(frame)),
        "two-encodings.csv": ("NAME\nZoë\n".encode() + "Zoë\n".encode("cp1252"), has_two_encodings),
        "two-encodings.xpt": (writing.write(names, "xpt").replace(b"Zo?", b"Zo\xeb"), has_two_encodings),
        "changes-type.csv": (f"ID,V\n{late}9,late\n".encode(), is_text),
        "no-rows.csv": (b"A,B\n", shaped(0, 2)),
        "nothing.csv": (b"", shaped(0, 0)),
        "no-rows.xpt": (writing.write(pd.DataFrame({"A": pd.Series([], dtype="float64")}), "xpt"), shaped(0, 1)),
        "no-columns.xpt": (writing.write(pd.DataFrame(), "xpt"), shaped(0, 0)),
        "no-columns.parquet": (writing.write(pd.DataFrame(), "parquet"), shaped(0, 0)),
        "wide.csv": (writing.write(wide, "csv"), shaped(200, 2000)),
        "wide.xpt": (writing.write(wide, "xpt"), shaped(200, 2000)),
        "wide.parquet": (writing.write(wide, "parquet"), shaped(200, 2000)),
        "evil.parquet": (writing.write(labelled(), "parquet"), shaped(1, 3)),
        "evil.csv": (writing.write(labelled(), "csv"), shaped(1, 3)),
    }


def clean(text: str) -> bool:
    """Nothing that moves a cursor or turns the direction of reading."""
    return not {"\x1b", "\u202e"} & set(text)


def test_each_is_a_table_or_a_sentence(place: Path) -> None:
    folder = place / "odd"
    folder.mkdir()
    tables = odd()
    for name, (data, _) in {**DAMAGED, **tables}.items():
        (folder / name).write_bytes(data)
    ada, bo = run(pair(place))
    received = given(ada, bo, folder, title="Odd")
    for name, (_, sentence) in DAMAGED.items():
        with pytest.raises(InputError) as told:
            received.load(name)
        assert told.value.code == "table-damaged", name
        assert sentence in told.value.message, name
        assert "manifest" in told.value.hint
    for name, (_, check) in tables.items():
        frame = received.load(name)
        check(frame)
        assert lx.compare(frame, frame.copy()).same_values, name
        assert lx.fingerprint(frame).rows == len(frame), name

    # What a stranger wrote is escaped wherever it is shown, and stays what it is as data.
    evil = received.load("evil.parquet")
    assert (evil.attrs["labels"]["A"], evil["T"].iloc[0]) == (EVIL, EVIL)
    found = lx.compare(received.load("evil.csv"), evil.assign(T="x").drop(columns=EVIL))
    assert (found.columns_removed, len(found.labels), found.cells_changed) == ((EVIL,), 1, 1)
    assert clean(repr(found))
    assert clean(found.to_frame().to_csv())
    with pytest.raises(InputError) as unknown, being(ada):
        lx.share(folder / "evil.csv", to="Bo", columns=[EVIL + "!"])
    assert clean(unknown.value.message)
    left_out_columns_are_escaped(ada, bo, folder / "evil.csv")
    leave(ada, bo)


def left_out_columns_are_escaped(ada: Any, bo: Any, file: Path) -> None:
    with being(ada):
        made = lx.share(file, to="Bo", columns=["A"], title="Part")
        run(offered(bo, made.status))
    with being(bo):
        (item,) = [item for item in lx.inbox() if item.title == "Part"]
        assert clean(item.withheld[0].columns[0])
        page = lx.inbox()._repr_html_()
        assert clean(page + repr(lx.inbox()))
        assert "<img" not in page
