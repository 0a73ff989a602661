"""Choosing rows by a condition in text, such as ``AGE >= 65 and SEX in ["F"]``. It is judged and never executed.

Allowed are columns' names, texts and numbers, comparisons, ``in``, ``and``, ``or``, ``not`` (also ``&``, ``|``, ``~``), brackets
and lists. There is no call, no attribute, no arithmetic and no name that is not a column: what is not listed here is refused.
A comparison with a missing value does not hold. A column of numbers is not compared with text, nor one of text with numbers: it
would hold for no row, or with ``!=`` for each, and more would be shared than was meant.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from labxchange.content.extras import library
from labxchange.dataset.names import escape
from labxchange.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

_TEXT_MAX: Final = 10_000
_DEPTH_MAX: Final = 50
_MOMENT: Final = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?")
_COMPARISONS: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def chosen(frame: DataFrame, condition: str) -> np.ndarray[Any, Any]:
    """For each row of ``frame`` whether ``condition`` holds.

    Raises:
        InputError: ``rows-refused``.
    """
    if len(condition) > _TEXT_MAX:
        _refuse(f"it is longer than {_TEXT_MAX:,} characters")
    try:
        tree = ast.parse(condition.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        _refuse("it is not a condition")
    try:
        return _truth(tree.body, frame, 0)
    except RecursionError:
        _refuse("it is nested too deeply")


def _refuse(why: str) -> NoReturn:
    raise InputError(
        "rows-refused",
        f"The condition for rows is refused: {why}.",
        hint='Compare columns with values, as in: AGE >= 65 and SEX in ["F", "M"]',
    )


def _truth(node: ast.expr, frame: DataFrame, depth: int) -> np.ndarray[Any, Any]:
    if depth > _DEPTH_MAX:
        _refuse("it is nested too deeply")
    if isinstance(node, ast.BoolOp):
        parts = [_truth(part, frame, depth + 1) for part in node.values]
        joined = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return np.asarray(joined.reduce(parts), bool)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
        left, right = _truth(node.left, frame, depth + 1), _truth(node.right, frame, depth + 1)
        return np.asarray(left & right if isinstance(node.op, ast.BitAnd) else left | right, bool)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        return ~_truth(node.operand, frame, depth + 1)
    if isinstance(node, ast.Compare):
        return _compared(node, frame)
    if isinstance(node, ast.Name):
        column = _column(node, frame)
        if library("pandas").api.types.is_bool_dtype(column.dtype):
            return _plain(column)
    return _refuse(f"“{escape(ast.unparse(node), limit=100)}” is no comparison")


def _compared(node: ast.Compare, frame: DataFrame) -> np.ndarray[Any, Any]:
    sides = [node.left, *node.comparators]
    out = np.ones(len(frame), bool)
    for sign, left, right in zip(node.ops, sides, sides[1:], strict=False):
        if isinstance(sign, ast.In | ast.NotIn):
            column = _column(left, frame)
            found = among(column, _list(right))
            out &= found if isinstance(sign, ast.In) else ~found & column.notna().to_numpy()
        elif (compare := _COMPARISONS.get(type(sign))) is not None:
            out &= _one(compare, _side(left, frame), _side(right, frame), len(frame))
        else:
            _refuse("it compares with “is”")
    return out


def _one(compare: Callable[[Any, Any], Any], left: Any, right: Any, rows: int) -> np.ndarray[Any, Any]:
    series = library("pandas").Series
    left, right = _fitting(left, right), _fitting(right, left)
    try:
        held = compare(left, right)
    except (TypeError, ValueError) as error:
        _refuse(f"a column is compared with a value of another kind ({escape(str(error), limit=100)})")
    if not isinstance(held, series):
        return np.full(rows, bool(held))
    present = np.ones(rows, bool)
    for side in (left, right):
        if isinstance(side, series):
            present &= side.notna().to_numpy()
    return _plain(held) & present


def among(column: Series, values: Sequence[Any]) -> np.ndarray[Any, Any]:
    """For each row whether its cell is one of ``values``.

    Raises:
        InputError: ``rows-refused``.
    """
    return np.asarray(column.isin([_fitting(value, column) for value in values]).to_numpy(bool))


def _fitting(value: Any, other: Any) -> Any:
    """``value`` as what it is compared with can be: text as a moment beside moments.

    Raises:
        InputError: ``rows-refused`` where they are of two kinds.
    """
    pandas = library("pandas")
    if not isinstance(other, pandas.Series) or (wanted := _kind(other)) == "":
        return value
    given = _kind(value)
    if given in (wanted, ""):
        return value
    if wanted == "dates" and isinstance(value, str) and _MOMENT.fullmatch(value):
        try:
            moment = pandas.Timestamp(value)
        except ValueError:
            _refuse(f"“{value}” is no date")
        if (moment.tz is None) == (getattr(other.dtype, "tz", None) is None):
            return moment
    held = f"the column “{escape(str(other.name), limit=100)}” holds {wanted}"
    what = "a column of " + given if isinstance(value, pandas.Series) else f"{given} ({escape(repr(value), limit=100)})"
    return _refuse(f"{held}, and is compared with {what}")


def _kind(held: Any) -> str:
    """What a column holds, or a value is; empty for columns of nothing or several kinds, and values that only Python has."""
    types = library("pandas").api.types
    if not isinstance(held, library("pandas").Series):
        return "text" if isinstance(held, str) else "numbers" if isinstance(held, int | float | np.number | np.bool_) else ""
    if held.isna().all():
        return ""
    if held.dtype.kind in "mM":
        return "dates" if held.dtype.kind == "M" else "durations"
    if types.is_numeric_dtype(held.dtype) or types.is_bool_dtype(held.dtype):
        return "numbers"
    return "text" if held.dtype != object and types.is_string_dtype(held.dtype) else ""


def _plain(column: Any) -> np.ndarray[Any, Any]:
    out: np.ndarray[Any, Any] = column.to_numpy(dtype=bool, na_value=False)
    return out


def _side(node: ast.expr, frame: DataFrame) -> Any:
    return _column(node, frame) if isinstance(node, ast.Name) else _value(node)


def _column(node: ast.expr, frame: DataFrame) -> Any:
    if not isinstance(node, ast.Name):
        _refuse(f"“{escape(ast.unparse(node), limit=100)}” is no column")
    if node.id not in frame.columns:
        _refuse(f"there is no column “{escape(node.id, limit=100)}”")
    return frame[node.id]


def _list(node: ast.expr) -> list[Any]:
    if not isinstance(node, ast.List | ast.Tuple):
        _refuse("after “in” stands no list")
    return [_value(one) for one in node.elts]


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        held = _value(node.operand)
        if isinstance(held, int | float):
            return -held if isinstance(node.op, ast.USub) else held
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
        return node.value
    return _refuse(f"“{escape(ast.unparse(node), limit=100)}” is no column, text or number")
