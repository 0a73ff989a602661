"""Verifying a folder: every kind of damage is found and named, and the report says what was and was not checked."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path

import msgspec
import pytest

from labxchange.dataset.check import FindingKind, Report, Verdict
from labxchange.dataset.listing import ListedFile
from labxchange.dataset.manifest import FileDigests
from labxchange.errors import UnavailableError
from labxchange.files import verify
from labxchange.files.hashing import FileHash, hash_files
from labxchange.files.scan import scan
from labxchange.files.verify import verify_folder

MIB = 1 << 20
SIZES = {"a/small": 10, "a/empty": 0, "large": 3 * MIB + 7, "exact": 2 * MIB, "z/y/x": 5000}


class Example:
    def __init__(self, root: Path) -> None:
        self.root = root
        for path, size in SIZES.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(random.Random(path).randbytes(size))
        (root / "none").mkdir()
        found = scan([root])
        self.files: list[ListedFile] = found.files
        results = [item.result for group in hash_files(found.sources, found.files) for item in group]
        assert all(isinstance(result, FileHash) for result in results)
        self.digests: list[FileDigests] = [result.digests for result in results if isinstance(result, FileHash)]
        self.chunks = b"".join(result.chunks for result in results if isinstance(result, FileHash))

    def verify(self, **options: object) -> Report:
        return verify_folder(self.root, self.files, self.digests, chunk_digests=self.chunks, **options)  # type: ignore[arg-type]


@pytest.fixture
def example(tmp_path: Path) -> Example:
    (tmp_path / "in").mkdir()
    return Example(tmp_path / "in")


def flip(place: Path, offset: int) -> None:
    with open(place, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def test_an_intact_folder(example: Example) -> None:
    told: list[tuple[int, int]] = []
    report = example.verify(progress=lambda files, size: told.append((files, size)))
    assert (report.verdict, report.matched, report.bytes) == (Verdict.INTACT, 6, sum(SIZES.values()))
    assert report.findings == ()
    assert told[-1] == (6, sum(SIZES.values()))
    assert "SHA-256 of each file" in report.checks_run
    assert [item.name for item in report.checks_not_run] == ["modification times"]
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


@pytest.mark.parametrize("offset", [0, MIB - 1, MIB, 2 * MIB + 5, 3 * MIB, 3 * MIB + 6])
def test_a_changed_byte_is_found_in_its_chunk(example: Example, offset: int) -> None:
    flip(example.root / "large", offset)
    (finding,) = example.verify().findings
    assert (finding.path, finding.kind, finding.offset) == ("large", FindingKind.DIFFER, offset // MIB * MIB)
    assert len(finding.expected) == len(finding.got) == 64
    assert finding.expected != finding.got
    (plain,) = verify_folder(example.root, example.files, example.digests).findings
    assert (plain.offset, plain.kind) == (-1, FindingKind.DIFFER)
    assert plain.expected == example.digests[[file.path for file in example.files].index("large")][0].hex()  # type: ignore[union-attr]


def test_chunk_digests_that_are_not_the_manifests_are_not_believed(example: Example) -> None:
    flip(example.root / "large", 0)
    example.chunks = bytes(len(example.chunks))
    (finding,) = example.verify().findings
    assert (finding.offset, finding.kind) == (-1, FindingKind.DIFFER)


@pytest.mark.parametrize(
    ("size", "offset"), [(0, 0), (5, 0), (MIB, MIB), (MIB + 1, MIB), (3 * MIB + 8, 3 * MIB + 7), (9 * MIB, 3 * MIB + 7)]
)
def test_another_size_is_named(example: Example, size: int, offset: int) -> None:
    os.truncate(example.root / "large", size)
    (finding,) = example.verify().findings
    assert (finding.kind, finding.offset) == (FindingKind.DIFFER, offset)
    assert (finding.expected, finding.got) == (f"{3 * MIB + 7} bytes", f"{size} bytes")


def test_missing_unexpected_and_what_is_no_file(example: Example) -> None:
    root = example.root
    (root / "a" / "small").unlink()
    (root / "z" / "y" / "x").unlink()
    (root / "z" / "y" / "x").symlink_to(root / "large")
    (root / "none").rmdir()
    (root / "exact").unlink()
    (root / "exact").mkdir()
    (root / "extra\x1b[31m").write_text("x")
    (root / "more" / "deep").mkdir(parents=True)
    (root / "more" / "f").write_text("x")
    (root / "link").symlink_to("/etc")
    (root / ".labxchange-t1").mkdir()
    (root / ".labxchange-t1" / "0.part").write_text("x")
    report = example.verify()
    assert [(finding.path, finding.kind.value) for finding in report.findings] == [
        ("a/small", "missing"),
        ("exact", "differ"),
        ("exact/", "unexpected"),
        ("extra\\u{1b}[31m", "unexpected"),
        ("link", "unexpected"),
        ("more/deep/", "unexpected"),
        ("more/f", "unexpected"),
        ("none/", "missing"),
        ("z/y/x", "differ"),
    ]
    assert (report.matched, report.missing, report.differ, report.unexpected) == (2, 2, 2, 5)
    assert report.verdict is Verdict.NOT_INTACT
    partly = example.verify(unexpected=False)
    assert partly.unexpected == 0
    assert "no file that is not listed" in [item.name for item in partly.checks_not_run]


def test_only_extra_files_are_a_verdict_of_their_own(example: Example) -> None:
    (example.root / "extra").write_text("x")
    assert example.verify().verdict is Verdict.INTACT_WITH_EXTRA


def test_a_file_that_the_manifest_leaves_out_is_never_a_match(example: Example) -> None:
    index = [file.path for file in example.files].index("large")
    example.digests[index] = "changed-while-read"
    report = example.verify()
    assert (report.left_out, report.matched, report.unexpected) == (1, 5, 1)
    assert report.findings[0].path == "large"
    assert "digests of files left out" in [item.name for item in report.checks_not_run]
    (example.root / "large").unlink()
    assert example.verify().verdict is Verdict.INTACT


def test_errors_are_findings_and_do_not_stop_the_check(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(verify, "hash_file", fail)
    report = example.verify()
    assert (report.error, report.matched, report.verdict) == (5, 1, Verdict.NOT_INTACT)


def test_a_file_that_changes_while_it_is_checked_does_not_match(example: Example) -> None:
    report = example.verify(progress=lambda files, size: os.utime(example.root / "large", ns=(size, size)), threads=1)
    assert [(finding.path, finding.kind) for finding in report.findings] == [("large", FindingKind.ERROR)]


def test_stop_and_a_missing_folder(example: Example, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(UnavailableError) as caught:
        example.verify(stop=stop)
    assert caught.value.code == "stopped"
    with pytest.raises(UnavailableError) as missing:
        verify_folder(tmp_path / "none", [], [])
    assert missing.value.code == "file-missing"


def test_every_flipped_bit_of_a_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    (tmp_path / "g").write_bytes(b"unchanged")
    found = scan([tmp_path])
    results = [item.result for group in hash_files(found.sources, found.files) for item in group]
    digests = [result.digests for result in results if isinstance(result, FileHash)]
    for bit in range(80):
        data = bytearray(b"0123456789")
        data[bit // 8] ^= 1 << bit % 8
        (tmp_path / "f").write_bytes(data)
        report = verify_folder(tmp_path, found.files, digests, threads=1)
        assert [finding.path for finding in report.findings] == ["f"]


def test_a_tree_deeper_than_any_rule_does_not_break_the_check(example: Example) -> None:
    example.root.joinpath(*["d"] * 300).mkdir(parents=True)
    report = example.verify()
    assert (report.unexpected, report.matched) == (1, 6)
