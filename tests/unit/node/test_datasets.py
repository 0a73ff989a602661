"""Looking at local data, and checking it against a list of digests."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest

from labxchange.cli.main import main
from labxchange.dataset.check import FindingKind, Verdict
from labxchange.errors import InputError
from labxchange.node.datasets import check_against_sums, read_sums, show_dataset

A = sha256(b"a").hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a.csv").write_bytes(b"a")
    (root / "sub" / "b.CSV").write_bytes(b"bb")
    (root / "link").symlink_to("a.csv")
    return root


def _sums(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "SUMS"
    path.write_text(text)
    return path


def test_show(folder: Path) -> None:
    shown = show_dataset([folder])
    assert (shown.files, shown.folders_empty, shown.bytes, shown.kinds) == (2, 1, 3, ((".csv", 2),))
    assert shown.skipped == (("link", "it is a link"),)
    assert shown.listed == ()
    told: list[int] = []
    listed = show_dataset([folder], digests=True, advance=told.append).listed
    assert {file.path: file.sha256 for file in listed}["a.csv"] == A
    assert sum(told) == 3


def test_what_show_prints_is_what_verify_reads(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "show", str(folder), "--digests"]) == 0
    sums = _sums(tmp_path, capsys.readouterr().out)
    assert main(["dataset", "verify", str(folder), "--sums", str(sums)]) == 0
    capsys.readouterr()
    (folder / "a.csv").write_bytes(b"x")
    assert main(["dataset", "verify", str(folder), "--sums", str(sums), "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["differ"] == 1


def test_every_kind_of_finding(folder: Path, tmp_path: Path) -> None:
    lines = [
        f"{A}  ./sub/b.CSV",
        f"{A} *gone",
        f"{A}  link",
        f"{A}  ../outside",
        f"SHA256 (a.csv) = {A.upper()}",
        "# a remark",
        "",
    ]
    report = check_against_sums(folder, _sums(tmp_path, "\r\n".join(lines)))
    assert {finding.path: finding.kind for finding in report.findings} == {
        "sub/b.CSV": FindingKind.DIFFER,
        "gone": FindingKind.MISSING,
        "link": FindingKind.ERROR,
        "../outside": FindingKind.ERROR,
    }
    assert (report.verdict, report.matched, report.bytes) == (Verdict.NOT_INTACT, 1, 1)
    assert report.checks_not_run


def test_unlisted_files_are_named_and_the_list_itself_is_not(folder: Path) -> None:
    sums = folder / "SHA256SUMS"
    sums.write_text(f"{A}  a.csv\n")
    report = check_against_sums(folder, sums)
    assert report.verdict == Verdict.INTACT_WITH_EXTRA
    assert [finding.path for finding in report.findings] == ["sub/b.CSV"]


def test_an_escaped_name(tmp_path: Path) -> None:
    assert read_sums(_sums(tmp_path, f"\\{A}  a\\\\b\\nc\n")) == {"a\\b\nc": A}


@pytest.mark.parametrize("text", ["", "\n#\n", "abc  file", f"{A}", f"{A}  a\n{'0' * 64}  a\n", "\x00\xff"])
def test_a_list_that_is_none(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_sums(_sums(tmp_path, text))
    assert caught.value.code in ("sums-malformed", "sums-twice")


def test_what_is_not_a_folder(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        check_against_sums(folder / "a.csv", _sums(tmp_path, f"{A}  a"))
    assert caught.value.code == "not-a-folder"


def test_a_name_that_is_no_text(folder: Path, tmp_path: Path) -> None:
    sums = tmp_path / "SUMS"
    sums.write_bytes(A.encode() + b"  \xff\n")
    finding = check_against_sums(folder, sums).findings[0]
    assert finding.path.isprintable()
    assert os.fsencode(finding.path)
