"""The node's values as a pandas DataFrame: a row a value, a column a field. pandas is imported when a frame is asked for.

Moments become UTC timestamps (missing where there is none), what is nested in a value is left out, and the open fields of a trail
entry become columns of their own. Text is kept as it is: a frame is data, and whoever prints it prints what a peer wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from pandas import DataFrame

_MOMENTS = frozenset({"utc", "created", "added", "verified", "not_before", "not_after", "offered", "started", "finished"})


def frame(values: Sequence[msgspec.Struct]) -> DataFrame:
    """The scalar fields of each value; without values a frame without rows."""
    import pandas as pd

    made = pd.DataFrame([_record(value) for value in values])
    for name in _MOMENTS & set(made.columns):
        made[name] = pd.to_datetime(made[name].where(made[name] > 0), unit="ms", utc=True, errors="coerce")
    return made


def _record(value: msgspec.Struct) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, content in msgspec.structs.asdict(value).items():
        if isinstance(content, str | int | float | bool):
            record[name] = content
        elif isinstance(content, dict):
            record |= {f"{name}.{key}": one for key, one in content.items()}
    return record
