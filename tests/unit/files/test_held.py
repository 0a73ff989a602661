"""Bytes that are held still: no write comes between hashing and use, and where the kernel gives no lease they are a copy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labxchange.files import held as module
from labxchange.files.held import held

DATA = b"USUBJID,AGE\n01-701-1015,63\n" * 1000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.csv"
    path.write_bytes(DATA)
    return path


def test_a_lease_holds_a_writer_off(file: Path) -> None:
    with held(file) as now:
        assert now.data == DATA
        assert now.still
        assert os.path.samestat(os.stat(now.path), file.stat()), "no copy is made"
        now.leave_memory()
        assert Path(now.path).read_bytes() == DATA, "reading disturbs nothing"
        assert now.still
        with pytest.raises(BlockingIOError):
            os.open(file, os.O_WRONLY | os.O_NONBLOCK)
        assert not now.still, "somebody is waiting, and does not wait for ever"
        assert now.data == DATA
    os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))


def test_what_somebody_may_write_to_is_copied(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with file.open("r+b") as writer, held(file) as now:
        writer.write(b"changed")
        writer.flush()
        assert now.data == Path(now.path).read_bytes() == DATA
        assert now.still
        with pytest.raises(OSError, match="not permitted"), open(now.path, "r+b", buffering=0) as copy:
            copy.write(b"changed")
    file.write_bytes(DATA)
    monkeypatch.setattr(module, "LEASED_MAX_BYTES", len(DATA) - 1)
    with held(file) as now:
        file.unlink()
        assert now.data == DATA
        now.leave_memory()
        assert now.data == DATA


@pytest.mark.parametrize("copied", [False, True])
def test_an_empty_file_and_no_descriptor_left(file: Path, copied: bool) -> None:
    before = len(os.listdir("/proc/self/fd"))
    file.write_bytes(b"")
    with held(file, copied=copied) as now:
        assert bytes(now.data) == b""
        now.leave_memory()
    with pytest.raises(ZeroDivisionError), held(file, copied=copied):
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError), held(file.with_name("none"), copied=copied):
        raise AssertionError
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_system_without_leases_and_sealed_memory_reads_the_bytes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINUX", False)
    with held(file) as now:
        file.write_bytes(b"changed")
        assert now.data == DATA
        assert (now.path, now.still) == ("", True)
        now.leave_memory()
