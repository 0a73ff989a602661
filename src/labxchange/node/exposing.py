"""Less than everything: chosen columns and rows of a table file, or a table of a kernel, as a new file to be shared.

The new file lies in a private folder of its own, because a share reads its files while it is served; it stays there until a
person removes it, and is gone at once where nothing came to be shared. A table of a kernel becomes Parquet; a file keeps its
format. What was left out is said to the recipient in the share itself.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from labxchange.content import tables
from labxchange.content.writing import count, subset, write
from labxchange.errors import InputError, LabxchangeError
from labxchange.files.folders import make_folders
from labxchange.files.newfile import new_file
from labxchange.node.home import Home
from labxchange.node.values import WithheldInfo

if TYPE_CHECKING:
    import pandas


def exposed_folder(home: Home) -> Path:
    """Where the new files lie."""
    return home.root / "exposed"


class Exposed(msgspec.Struct, frozen=True, kw_only=True):
    """The new file; the columns that it lacks by name, the rows by number."""

    path: Path
    columns: tuple[str, ...]
    rows: int


@contextmanager
def exposed(
    what: Sequence[Path] | pandas.DataFrame, *, columns: Sequence[str] | None, rows: str | None, name: str = "", home: Home
) -> Iterator[tuple[list[Path], list[WithheldInfo]]]:
    """What to share: files themselves or, of a table and where columns or rows are chosen of one file, a new file and what it
    lacks. Where sharing it is refused, the new file is removed again.

    Args:
        name: of the new file, for a table.

    Raises:
        InputError: ``subset-of-one``, ``path-missing``; of ``content.writing.subset``.
    """
    if isinstance(what, Sequence) and columns is None and rows is None:
        yield list(what), []
        return
    folder = exposed_folder(home)
    if not isinstance(what, Sequence):
        home.create()
        made = expose_frame(what, name=name, columns=columns, rows=rows, folder=folder)
    elif len(what) != 1 or what[0].is_dir():
        raise InputError("subset-of-one", "Columns and rows are chosen of one table file.", hint="Share each file by itself.")
    else:
        home.create()
        made = expose_file(what[0], columns=columns, rows=rows, folder=folder)
    left = WithheldInfo(file=made.path.name, columns=made.columns, rows=made.rows)
    try:
        yield [made.path], [left] if made.columns or made.rows else []
    except LabxchangeError as error:
        if error.code != "node-ended":  # then it is not known whether it is shared
            shutil.rmtree(made.path.parent, ignore_errors=True)
        raise


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A table file before a part of it is chosen; nothing but its header was read."""

    columns: dict[str, str]
    """Name -> label, empty where there is none; in the order of the file."""
    part_name: str
    """What a part of it will be called."""


def look(source: Path) -> Look:
    """The columns of a table file.

    Raises:
        InputError: ``path-missing``; of ``content.tables.columns``.
    """
    with _there(), source.open("rb") as stream:
        return Look(columns=tables.columns(stream, source.name), part_name=_part_name(source))


def rows_held(source: Path, rows: str) -> tuple[int, int]:
    """How many rows of a table file fulfil a condition, and how many there are; reads all of it.

    Raises:
        InputError: ``path-missing``; of ``content.writing.count``.
    """
    with _there():
        data = source.read_bytes()
    return count(data, source.name, rows=rows)


def expose_file(source: Path, *, columns: Sequence[str] | None, rows: str | None, folder: Path) -> Exposed:
    """Chosen columns (None: all) and rows (a condition such as ``SITEID == '701' and AGE >= 65``; None: all) of a table file.

    Raises:
        InputError: ``path-missing``; of ``content.writing.subset``.
    """
    with _there():
        data = source.read_bytes()
    made = subset(data, source.name, columns=columns, rows=rows)
    return Exposed(path=_put(folder, _part_name(source), made.data), columns=made.withheld_columns, rows=made.withheld_rows)


def _part_name(source: Path) -> str:
    return source.name if source.suffix.lower() != ".sas7bdat" else f"{source.stem}.xpt"


@contextmanager
def _there() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise InputError("path-missing", "There is no such file.", hint="Name one table file.") from None


def expose_frame(frame: pandas.DataFrame, *, name: str, columns: Sequence[str] | None, rows: str | None, folder: Path) -> Exposed:
    """The same of a table in memory, as a Parquet file called ``name``; its labels and formats go with it."""
    whole = write(frame, "parquet")
    file = f"{name}.parquet"
    if columns is None and rows is None:
        return Exposed(path=_put(folder, file, whole), columns=(), rows=0)
    made = subset(whole, file, columns=columns, rows=rows)
    return Exposed(path=_put(folder, file, made.data), columns=made.withheld_columns, rows=made.withheld_rows)


def _put(folder: Path, name: str, data: bytes) -> Path:
    place = folder / secrets.token_hex(8)
    make_folders(place, mode=0o700)
    path = place / name
    with new_file(path) as file:
        file.write(data)
    return path
