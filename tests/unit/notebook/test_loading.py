"""``load`` reads what was verified, whatever happens to the file meanwhile, and says what pandas would."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from labxchange.content import tables, writing
from labxchange.content.fingerprint import fingerprint
from labxchange.dataset.listing import chunk_bytes_for
from labxchange.errors import InputError, IntegrityError, UnavailableError
from labxchange.files.hashing import hash_file
from labxchange.node.values import FileInfo
from labxchange.notebook.loading import digest, load
from tests.unit.content.samples import dataset_json, dataset_lines, pilot, sas


def released(folder: Path, name: str, data: bytes) -> FileInfo:
    """As the node describes a file of these bytes."""
    path = folder / name
    path.write_bytes(data)
    chunk_bytes = chunk_bytes_for(len(data))
    with path.open("rb") as file:
        digests = hash_file(file.fileno(), size=len(data), chunk_bytes=chunk_bytes).digests
    return FileInfo(
        path=name,
        place=str(path),
        size=len(data),
        sha256=digests[0].hex(),
        chunks=digests[1].hex(),
        chunk_bytes=chunk_bytes,
        share="5" * 32,
        version=1,
        transfer="7" * 32,
        receipt="",
    )


def files(folder: Path) -> dict[str, bytes]:
    adsl = tables.read(pilot("adsl.xpt"), "adsl.xpt")
    pq.write_table(
        pq.read_table(pd.io.common.BytesIO(writing.write(adsl, "parquet"))),
        folder / "plain",
        compression="none",
        use_dictionary=False,
    )
    return {
        "a.xpt": pilot("adsl.xpt"),
        "a.csv": writing.write(adsl, "csv"),
        "a.parquet": (folder / "plain").read_bytes(),
        "a.sas7bdat": sas("sample.sas7bdat"),
        "a.json": dataset_json(),
        "a.ndjson": dataset_lines(),
    }


def test_a_table_is_its_own_once_it_is_loaded(tmp_path: Path) -> None:
    """The file is overwritten afterwards: nothing of the frame may be a view of it."""
    for name, data in files(tmp_path).items():
        info = released(tmp_path, name, data)
        frame = load(info)
        expected = fingerprint(tables.read(data, name))
        with open(info.place, "r+b") as file:
            file.write(b"\xff" * len(data))
        assert fingerprint(frame) == expected, name
        assert frame.attrs["labxchange"]["sha256"] == info.sha256
        with pytest.raises(IntegrityError) as told:
            load(info)
        assert told.value.code == "file-changed"
        os.unlink(info.place)
        with pytest.raises(UnavailableError) as missing:
            load(info)
        assert missing.value.code == "file-missing"
        os.mkdir(info.place)
        with pytest.raises(UnavailableError) as replaced:
            load(info)
        assert replaced.value.code == "disk-error"
        os.rmdir(info.place)


def test_the_digest_is_that_of_the_manifest_at_any_size(tmp_path: Path) -> None:
    for size in (0, 1, (1 << 20) - 1, 1 << 20, (64 << 20) - 1, (64 << 20) + 1, (70 << 20) + 5):
        data = bytes(size)
        info = released(tmp_path, "a.csv", data)
        assert digest(memoryview(data), chunk_bytes=info.chunk_bytes) == info.chunks


def test_one_changed_byte_anywhere_is_noticed(tmp_path: Path) -> None:
    data = b"A,B\n" + b"1,2\n" * 700_000
    info = released(tmp_path, "a.csv", data)
    for place in (0, 1 << 20, len(data) - 1):
        with open(info.place, "r+b") as file:
            file.seek(place)
            file.write(b"\t")
        with pytest.raises(IntegrityError):
            load(info)
        Path(info.place).write_bytes(data)
    assert len(load(info)) == 700_000
    Path(info.place).write_bytes(data + b"3,4\n")
    with pytest.raises(IntegrityError):
        load(info)


def test_a_writer_in_the_middle_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease ends while pandas reads: what it read is thrown away, and a copy is hashed and read instead."""
    info = released(tmp_path, "a.csv", b"A\n1\n2\n")
    read, seen = tables.read, []

    def interrupted(data: memoryview, name: str, *, path: str) -> pd.DataFrame:
        seen.append(os.path.samestat(os.stat(path), os.stat(info.place)))
        with pytest.raises(BlockingIOError) if seen[-1] else pytest.MonkeyPatch.context():
            os.close(os.open(info.place, os.O_WRONLY | os.O_NONBLOCK))
        return read(data, name, path=path)

    monkeypatch.setattr(tables, "read", interrupted)
    assert load(info)["A"].tolist() == [1, 2]
    assert seen == [True, False]


def test_a_large_csv_is_read_on_all_cores_as_a_small_one(tmp_path: Path) -> None:
    """pandas takes files of over 5 MB apart where they come as a path: rules for types and text are the same."""
    lines = [f"{number:05},{number},{number / 3},Zoë {number}" for number in range(200_000)]
    data = ("ID,N,X,T\n" + "\n".join(lines) + "\n").encode()
    loaded = load(released(tmp_path, "a.csv", data))
    pd.testing.assert_frame_equal(loaded, tables.read(data, "a.csv"))
    assert loaded["ID"].iloc[7] == "00007"
    late = data + b'00001,late,"1\n2",a\n'
    changed = load(released(tmp_path, "a.csv", late))
    pd.testing.assert_frame_equal(changed, tables.read(late, "a.csv"))
    assert (changed["N"].iloc[0], changed["N"].iloc[-1], changed["X"].iloc[-1]) == ("0", "late", "1\n2")
    windows = load(released(tmp_path, "a.csv", data.decode().encode("cp1252")))
    pd.testing.assert_frame_equal(windows, loaded)
    assert windows.attrs["encoding"] == "windows-1252"
    with pytest.raises(InputError) as wide:
        load(released(tmp_path, "a.csv", data + b"1,2,3,4,5\n"))
    assert wide.value.code == "table-damaged"


def test_a_system_without_leases_loads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labxchange.files.held._LINUX", False)
    for name, data in files(tmp_path).items():
        frame = load(released(tmp_path, name, data))
        assert fingerprint(frame) == fingerprint(tables.read(data, name))
