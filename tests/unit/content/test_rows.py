"""A condition for rows is judged by its words; none of them is executed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labxchange.content.rows import chosen
from labxchange.errors import InputError

FRAME = pd.DataFrame(
    {
        "AGE": [60.0, 70.0, np.nan],
        "SEX": pd.Series(["F", None, "M"], dtype="str"),
        "DAY": pd.to_datetime(["2014-01-01", "2014-07-02", None]),
        "OK": [True, False, True],
        "MIXED": pd.Series([1, "x", None], dtype="object"),
        "NOTHING": [np.nan] * 3,
    }
)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("AGE >= 65", [0, 1, 0]),
        ("65 <= AGE < 80", [0, 1, 0]),
        ("AGE != 60", [0, 1, 0]),
        ("not AGE == 60", [0, 1, 1]),
        ('SEX in ["F", "X"]', [1, 0, 0]),
        ('SEX not in ("F",)', [0, 0, 1]),
        ('SEX == "F" or AGE > 65', [1, 1, 0]),
        ('(SEX == "F") | (AGE > 65) & ~OK', [1, 1, 0]),
        ('DAY >= "2014-07-01"', [0, 1, 0]),
        ("OK", [1, 0, 1]),
        ("OK and not OK", [0, 0, 0]),
        ("AGE > -1", [1, 1, 0]),
        ('MIXED == "x"', [0, 1, 0]),
        (" \n AGE > 0", [1, 1, 0]),
        ('DAY in ["2014-07-02"]', [0, 1, 0]),
        ('DAY != "2014-07-02"', [1, 0, 0]),
        ('"2014-07" > DAY', [1, 0, 0]),
        ("OK == 1", [1, 0, 1]),
        ("MIXED == 1", [1, 0, 0]),
        ("AGE == AGE", [1, 1, 0]),
        ('NOTHING != "x"', [0, 0, 0]),
    ],
)
def test_conditions(condition: str, expected: list[int]) -> None:
    assert chosen(FRAME, condition).astype(int).tolist() == expected


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "AGE",
        "AGE = 1",
        "AGE + 1 > 2",
        "AGE ** 9 > 2",
        "@AGE > 1",
        "`AGE` > 1",
        "AGE.max() > 1",
        "AGE.__class__ == 1",
        "abs(AGE) > 1",
        "__import__('os').system('true')",
        "AGE[0] > 1",
        "[x for x in AGE] == 1",
        "(lambda: 1)() == 1",
        "(y := AGE) > 1",
        'f"{AGE}" == "1"',
        "AGE > b'1'",
        "AGE > 1j",
        "AGE > None",
        "AGE is 1",
        "NOPE > 1",
        "AGE in SEX",
        "AGE > 'x'",
        "SEX > 1",
        "MIXED > 1",
        "DAY > 'tomorrow'",
        "AGE if OK else AGE",
        "1 in [1]",
        "AGE > 1; import os",
        "AGE > 1\x00",
        "not " * 2000 + "OK",
        "-" * 3000 + "1 < AGE",
        "AGE > 1" + " or AGE > 1" * 1000,
        "AGE > " + "9" * 5000,
        "x" * 20_000,
    ],
    ids=lambda text: text[:20],
)
def test_everything_else_is_refused(condition: str) -> None:
    with pytest.raises(InputError) as told:
        chosen(FRAME, condition)
    assert told.value.code == "rows-refused"


@pytest.mark.parametrize(
    "condition",
    [
        'AGE == "60"',
        'AGE != "60"',
        "SEX != 1",
        "1 != SEX",
        'AGE not in [60, "70"]',
        "SEX not in [1]",
        "AGE != SEX",
        "DAY != 20140702",
        'DAY != "2014-13-45"',
        'DAY != "today"',
        'DAY != "2014-07-02T00:00Z"',
        'OK != "yes"',
    ],
)
def test_kinds_that_are_never_equal_are_not_compared(condition: str) -> None:
    """Each would choose no row or, what is worse, every row."""
    with pytest.raises(InputError) as told:
        chosen(FRAME, condition)
    assert told.value.code == "rows-refused"


def test_the_refusal_says_which_column_holds_what() -> None:
    with pytest.raises(InputError, match=r"the column “AGE” holds numbers, and is compared with text \('60'\)"):
        chosen(FRAME, 'AGE == "60"')


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("AGESXOK 01.\"'()[]<>=!&|~-+*/.@`_,:and or not in is{}\n"), max_size=40))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        held = chosen(FRAME, text)
    except InputError as error:
        assert error.code == "rows-refused"
    else:
        assert held.dtype == bool
        assert len(held) == len(FRAME)
