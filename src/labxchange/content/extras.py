"""The libraries for tables, which come with an extra: imported when they are first needed, or named as missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from labxchange.errors import InputError


def library(name: str) -> Any:
    """The module ``name``, such as ``pandas`` or ``pyarrow.parquet``.

    Raises:
        InputError: ``table-extra-missing``.
    """
    try:
        return import_module(name)
    except ImportError:
        raise InputError(
            "table-extra-missing",
            f"Tables need the Python package {name.partition('.')[0]}, which is not installed.",
            hint='Run: python -m pip install "labxchange[tables]"',
        ) from None
