"""Scanning: what is listed, what is skipped and named, and that no link leads anywhere."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
import pytest

from labxchange.dataset.listing import make_listing
from labxchange.errors import InputError, UnavailableError
from labxchange.files.scan import Sources, open_source, scan


def build(root: Path, *paths: str) -> None:
    for path in paths:
        place = root / path
        if path.endswith("/"):
            place.mkdir(parents=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(path)


def content(sources: Sources, path: str) -> str:
    descriptor = open_source(sources, path)
    try:
        return os.read(descriptor, 1000).decode()
    finally:
        os.close(descriptor)


def test_one_folder_gives_its_contents_sorted(tmp_path: Path) -> None:
    build(tmp_path, "b.csv", "a/z", "a/y/x", "a-b", "empty/", "ä", "🧬/1")
    found = scan([tmp_path])
    assert [file.path for file in found.files] == ["a-b", "a/y/x", "a/z", "b.csv", "empty/", "ä", "🧬/1"]
    assert found.skipped == []
    for file in found.files:
        info = (tmp_path / file.path).stat()
        assert file.mtime_ms == info.st_mtime_ns // 1_000_000
        if not file.is_folder:
            assert file.size == info.st_size
            assert content(found.sources, file.path) == file.path
    make_listing(found.files, issuer="00" * 32, issued=0, share="00" * 16, version=1)


def test_several_files_and_folders_are_listed_by_their_names(tmp_path: Path) -> None:
    build(tmp_path, "one/a", "one/b/c", "two/x.csv", "two/none/")
    found = scan([tmp_path / "two" / "x.csv", tmp_path / "one", tmp_path / "two" / "none"])
    assert [file.path for file in found.files] == ["none/", "one/a", "one/b/c", "x.csv"]
    assert content(found.sources, "one/b/c") == "one/b/c"
    assert content(found.sources, "x.csv") == "two/x.csv"
    assert msgspec.json.decode(msgspec.json.encode(found.sources), type=Sources) == found.sources
    with pytest.raises(InputError) as caught:
        open_source(found.sources, "other")
    assert caught.value.code == "not-listed"


def test_one_file_is_listed_by_its_name(tmp_path: Path) -> None:
    build(tmp_path, "a/x.csv")
    found = scan([tmp_path / "a" / "x.csv"])
    assert [file.path for file in found.files] == ["x.csv"]
    assert content(found.sources, "x.csv") == "a/x.csv"


def test_two_of_one_name_and_nothing_are_errors(tmp_path: Path) -> None:
    build(tmp_path, "a/x.csv", "b/x.csv")
    with pytest.raises(InputError) as caught:
        scan([tmp_path / "a" / "x.csv", tmp_path / "b" / "x.csv"])
    assert caught.value.code == "same-name"
    with pytest.raises(InputError):
        scan([])
    with pytest.raises(UnavailableError) as missing:
        scan([tmp_path / "none"])
    assert missing.value.code == "file-missing"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError) as fifo:
        scan([tmp_path / "pipe"])
    assert fifo.value.code == "not-a-file"


def test_what_is_no_file_is_skipped_and_named(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    build(tmp_path, "in/file", "out/secret")
    (inside / "link").symlink_to(outside / "secret")
    (inside / "folder-link").symlink_to(outside)
    (inside / "broken").symlink_to("nowhere")
    os.mkfifo(inside / "pipe")
    os.link(outside / "secret", inside / "hard")
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(inside)
        try:
            bound.bind("sock")
        finally:
            os.chdir(here)
    found = scan([inside])
    assert [file.path for file in found.files] == ["file", "hard"]
    assert sorted(found.skipped) == [
        ("broken", "it is a link"),
        ("folder-link", "it is a link"),
        ("link", "it is a link"),
        ("pipe", "it is a FIFO"),
        ("sock", "it is a socket"),
    ]


def test_names_that_no_receiver_takes_are_skipped_and_shown_safely(tmp_path: Path) -> None:
    build(tmp_path, "good", "a:b", "nul.txt", "x\x1b[31m", "dot.", ".labxchange-1/1.part", "d:/x")
    with open(os.fsencode(tmp_path) + b"/bad\xff", "wb"):
        pass
    found = scan([tmp_path])
    assert [file.path for file in found.files] == ["good"]
    assert len(found.skipped) == 7
    assert all(item.path.isprintable() and item.path.encode() for item in found.skipped)


def test_both_of_a_collision_are_skipped(tmp_path: Path) -> None:
    build(tmp_path, "Data.csv", "data.csv", "A/x", "a/y", "other")
    if len(list(tmp_path.iterdir())) != 5:
        pytest.skip("this file system takes upper and lower case for one")
    found = scan([tmp_path])
    assert [file.path for file in found.files] == ["other"]
    assert sorted(item.path for item in found.skipped) == ["A/x", "Data.csv", "a/y", "data.csv"]
    make_listing(found.files, issuer="00" * 32, issued=0, share="00" * 16, version=1)


def test_decomposed_names_are_listed_composed_and_found_again(tmp_path: Path) -> None:
    build(tmp_path, "e\u0301/o\u0308.txt", "e\u0301/plain", "u\u0308/", "n\u0303.csv")
    for found, prefix in ((scan([tmp_path]), ""), (scan([tmp_path, tmp_path / "n\u0303.csv"]), tmp_path.name + "/")):
        listed = [file.path for file in found.files]
        assert set(listed) >= {prefix + "é/ö.txt", prefix + "é/plain", prefix + "ü/", prefix + "ñ.csv"}
        assert content(found.sources, prefix + "é/ö.txt") == "e\u0301/o\u0308.txt"
        assert content(found.sources, prefix + "é/plain") == "e\u0301/plain"
        root, relative = found.sources.locate(prefix + "ü/")
        assert (Path(root) / relative).is_dir()
    assert content(found.sources, "ñ.csv") == "n\u0303.csv"


def test_a_chosen_link_is_resolved(tmp_path: Path) -> None:
    build(tmp_path, "v3/x")
    (tmp_path / "latest").symlink_to("v3")
    assert [file.path for file in scan([tmp_path / "latest"]).files] == ["x"]
    found = scan([tmp_path / "latest", tmp_path / "v3" / "x"])
    assert [file.path for file in found.files] == ["latest/x", "x"]
    assert content(found.sources, "latest/x") == "v3/x"


def test_the_unreadable_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, "a/secret")
    (tmp_path / "a" / "secret").chmod(0)
    # Root may read everything, so the answer of the system is given here.
    monkeypatch.setattr("labxchange.files.scan.os.access", lambda *_, **__: False)
    monkeypatch.setattr("labxchange.files.scan.os.supports_effective_ids", set())
    with pytest.raises(InputError) as caught:
        scan([tmp_path])
    assert caught.value.code == "not-permitted"
    assert "a/secret" in caught.value.message


def test_depth_beyond_the_rule_is_skipped_and_not_entered(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 70)
    deep.mkdir(parents=True)
    found = scan([tmp_path])
    assert found.files == []
    assert [item.path for item in found.skipped] == ["/".join(["d"] * 64)]


def test_a_source_that_became_a_link_is_not_opened(tmp_path: Path) -> None:
    build(tmp_path, "in/a/x", "out/x")
    found = scan([tmp_path / "in"])
    (tmp_path / "in" / "a").rename(tmp_path / "in" / "old")
    (tmp_path / "in" / "a").symlink_to(tmp_path / "out")
    with pytest.raises((InputError, UnavailableError)):
        open_source(found.sources, "a/x")
    (tmp_path / "in" / "a").unlink()
    (tmp_path / "in" / "a").mkdir()
    (tmp_path / "in" / "a" / "x").symlink_to(tmp_path / "out" / "x")
    with pytest.raises(InputError) as caught:
        open_source(found.sources, "a/x")
    assert caught.value.code == "is-a-link"
    (tmp_path / "in" / "a" / "x").unlink()
    os.mkfifo(tmp_path / "in" / "a" / "x")
    with pytest.raises(InputError) as fifo:
        open_source(found.sources, "a/x")
    assert fifo.value.code == "not-a-file"


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labxchange.files.scan._PROGRESS_FILES", 2)
    build(tmp_path, *"abcde")
    told: list[int] = []
    scan([tmp_path], progress=told.append)
    assert told == [2, 4]


@pytest.mark.parametrize("name", ["a\0b", "a\ud800", "loop"])
def test_what_cannot_be_a_path_is_an_error_of_ours(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError) as caught:
        scan([tmp_path / name])
    assert caught.value.message.isprintable()
