"""A part of a table file becomes a new file in a private folder, with what it lacks in numbers and names."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from labxchange.content import tables
from labxchange.errors import InputError, LabxchangeError
from labxchange.node.exposing import exposed
from labxchange.node.home import Home

DATA = Path(__file__).parents[3] / "notebooks" / "data" / "cdisc-pilot"


def test_a_part_keeps_the_format_and_says_what_it_lacks(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with exposed([DATA / "adsl.xpt"], columns=["USUBJID", "AGE"], rows="AGE >= 80", home=home) as ((path,), (left,)):
        part = tables.read(path.read_bytes(), path.name)
    assert list(part.columns) == ["USUBJID", "AGE"]
    assert part["AGE"].min() >= 80
    assert (left.file, left.rows, len(left.columns)) == ("adsl.xpt", 254 - len(part), 46)
    assert path.exists(), "it is served from there"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, home.root)] == [0o700, 0o700]


def test_whole_files_are_shared_as_they_are(tmp_path: Path) -> None:
    files = [DATA / "adsl.xpt", DATA / "adae.xpt"]
    with exposed(files, columns=None, rows=None, home=Home(tmp_path / "home")) as given:
        assert given == (files, [])
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("files", [[DATA], [DATA / "adsl.xpt", DATA / "adae.xpt"]], ids=["a folder", "two files"])
def test_a_part_is_of_one_file(tmp_path: Path, files: list[Path]) -> None:
    with pytest.raises(InputError) as refused, exposed(files, columns=["AGE"], rows=None, home=Home(tmp_path / "home")):
        pass
    assert refused.value.code == "subset-of-one"
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(("code", "stays"), [("contact-unknown", False), ("node-ended", True)])
def test_what_was_not_shared_is_not_left_behind(tmp_path: Path, code: str, stays: bool) -> None:
    """Unless the node ended before it answered: then it may be shared, and is served from there."""
    home = Home(tmp_path / "home")
    with pytest.raises(LabxchangeError), exposed([DATA / "adsl.xpt"], columns=["AGE"], rows=None, home=home):
        raise LabxchangeError(code, "Refused.")
    assert bool(list((home.root / "exposed").rglob("adsl.xpt"))) is stays
