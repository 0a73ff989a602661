"""Secret files: written whole and private, read only when they still are."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from labxchange.errors import InputError, LabxchangeError, RefusedError, UnavailableError
from labxchange.files import keyfile
from labxchange.files.keyfile import read_secret, write_secret


def test_round_trip_and_mode(tmp_path: Path) -> None:
    place = tmp_path / "identity.json"
    before = os.umask(0)
    try:
        write_secret(place, b"one")
        write_secret(place, b"two" * 1000)
    finally:
        os.umask(before)
    assert read_secret(place) == b"two" * 1000
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["identity.json"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o620, 0o777])
def test_others_permissions_are_refused(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "key"
    write_secret(place, b"x")
    place.chmod(mode)
    with pytest.raises(RefusedError) as caught:
        read_secret(place)
    assert caught.value.code == "key-file-permissions"
    assert "chmod 600" in caught.value.hint


def test_links_and_what_is_no_file_are_refused(tmp_path: Path) -> None:
    write_secret(tmp_path / "key", b"x")
    (tmp_path / "link").symlink_to("key")
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(0o700)
    for name in ("link", "pipe", "folder"):
        with pytest.raises(RefusedError) as caught:
            read_secret(tmp_path / name)
        assert caught.value.code == "key-file-link"
    with pytest.raises(UnavailableError):
        read_secret(tmp_path / "none")
    with pytest.raises(UnavailableError):
        write_secret(tmp_path / "none" / "key", b"x")


def test_owner_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "key"
    write_secret(place, b"x" * 65_536)
    assert len(read_secret(place)) == 65_536
    with pytest.raises(ValueError, match="64 KiB"):
        write_secret(place, b"x" * 65_537)
    with open(place, "ab") as file:
        file.write(b"x")
    with pytest.raises(RefusedError) as large:
        read_secret(place)
    assert large.value.code == "key-file-too-large"
    monkeypatch.setattr(keyfile.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(RefusedError) as owner:
        read_secret(place)
    assert owner.value.code == "key-file-owner"


def test_writing_replaces_a_link_and_not_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("theirs")
    (tmp_path / "key").symlink_to("other")
    write_secret(tmp_path / "key", b"mine")
    assert (tmp_path / "other").read_text() == "theirs"
    assert read_secret(tmp_path / "key") == b"mine"


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    place = tmp_path / "key"
    write_secret(place, b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keyfile.os, call, fail)
    with pytest.raises(LabxchangeError) as caught:
        write_secret(place, b"new")
    assert caught.value.code == "disk-full"
    monkeypatch.undo()
    assert read_secret(place) == b"old"
    assert os.listdir(tmp_path) == ["key"]


def test_errors_do_not_hold_the_secret(tmp_path: Path) -> None:
    place = tmp_path / "key"
    write_secret(place, b"hunter2")
    place.chmod(0o644)
    with pytest.raises((RefusedError, InputError)) as caught:
        read_secret(place)
    assert "hunter2" not in repr(caught.value) + caught.value.message + caught.value.hint
