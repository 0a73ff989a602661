"""Names from an evil sender (campaign row 13): nothing is written, read or shown outside its place.

Systematic names and seeded random ones are judged against rule sets of three systems that are written here independently of the
code. What is accepted goes to a real disk; a hash of everything around the destination shows that nothing else changed. Then
links are swapped in while files are written, released and hashed.

``LABXCHANGE_SEED`` and ``LABXCHANGE_CASES`` (random names, default 60,000) change the amount.
"""

from __future__ import annotations

import ctypes
import ntpath
import os
import posixpath
import random
import stat
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from labxchange.dataset.listing import listed_file, make_listing
from labxchange.dataset.names import broken_rule, check_collisions, collisions, escape
from labxchange.errors import LabxchangeError, RefusedError
from labxchange.files.hashing import FileHash, hash_files
from labxchange.files.quarantine import Quarantine, Release
from labxchange.files.scan import scan
from labxchange.files.verify import verify_folder

SEED = int(os.environ.get("LABXCHANGE_SEED", "20261121"), 16)
CASES = int(os.environ.get("LABXCHANGE_CASES", "60000"))

DEVICES = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", *(f"{port}{n}" for port in ("COM", "LPT") for n in "0123456789¹²³")]
EVIL_PARTS = [
    "..", ".", "", "...", "a..", "a.", "a ", "a\u00a0", "a\u3000", "...a ", "~\\..\\x", "a\\b", "\\", "\\\\?\\C:", "a/../../b",
    "C:", "c:x", "z:\\x", "a:b", "a::$DATA", ":", "::", "a:b:c",
    *(name + end for name in DEVICES for end in ("", ".txt", ".tar.gz", " ", " .x", ".")),
    *(name.lower() + end for name in DEVICES for end in ("", ".csv")),
    *(f"a{chr(code)}b" for code in [*range(32), *range(127, 160)]),
    *(f"a{chr(code)}" for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cf", "Zl", "Zp")),
    *(chr(code) for code in range(0xD800, 0xE000, 64)),
    "\x1b]0;title\x07", "\x1b[2J", "a\r\nX: y", "gpj.\u202eexe", "e\u0301", "\u1100\u1161", "\u2126", "\ufb1f",
    "x" * 256, "é" * 128, "🧬" * 64, ".labxchange", ".LABXCHANGE-1", ".labxchange-1/0.part", "\ufdd0", "a\uffff",
]  # fmt: skip
PLACES = ["{}", "{}/x", "x/{}", "x/{}/y"]
# "x/" is how an empty folder is listed; it is not hostile.
HOSTILE = [
    *sorted({place.format(part) for part in EVIL_PARTS for place in PLACES} - {"x/"}),
    "/etc/cron.d/x", "//server/share/x", "/" * 100, "../" * 60 + "x", "x/" * 64 + "x", ("y" * 250 + "/") * 17 + "y",
]  # fmt: skip
PIECES = [
    *"abzAZ019-_+=@#%,()[]{}~!$&'^;` .:\\/<>\"|?*", "..", "../", "./", "con", "NUL", "com1", "é", "e\u0301", "ß", "İ", "ı", "ſ",
    "K", "\u212a", "日", "🧬", "\x00", "\n", "\x1b", "\x7f", "\x9b", "\u202e", "\u200d", "\ufe0f", "\u3164", "\ud800", "\ufffe",
    "x" * 120, "é" * 60, ".labxchange", " ", "CONIN$", "²", "ﬁ",
]  # fmt: skip


def random_names(count: int, seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    for _ in range(count):
        if rng.random() < 0.3:
            yield "/".join("".join(rng.choices("abcXYZ012 ._-éß", k=rng.randint(1, 6))) for _ in range(rng.randint(1, 4)))
        else:
            yield "".join(rng.choices(PIECES, k=rng.randint(1, 6)))


def harmless_on_posix(path: str) -> bool:
    raw = path.encode()
    return (
        posixpath.normpath("/root/" + path) == "/root/" + path
        and not posixpath.isabs(path)
        and b"\0" not in raw
        and len(raw) <= 4096
        and all(0 < len(part) <= 255 for part in raw.split(b"/"))
    )


def harmless_on_windows(path: str) -> bool:
    if ntpath.splitdrive(path)[0] or ntpath.isabs(path) or set(path) & set("\\:") or any(ord(c) < 32 for c in path):
        return False
    for part in path.split("/"):
        stem = part.partition(".")[0].rstrip(" ").upper()
        if part.rstrip(". ") != part or stem in DEVICES or len(part.encode("utf-16-le")) > 510:
            return False
    return ntpath.normpath("C:\\root\\" + path) == "C:\\root\\" + path.replace("/", "\\")


def harmless_on_mac(path: str) -> bool:
    return ":" not in path and all(0 < len(part.encode()) <= 255 and part not in (".", "..") for part in path.split("/"))


def harmless_on_screen(path: str) -> bool:
    return not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in path)


RULE_SETS = [harmless_on_posix, harmless_on_windows, harmless_on_mac, harmless_on_screen]


def tree_hash(root: Path) -> str:
    """Everything below ``root``: kinds, names, sizes, link targets, bytes."""
    digest = sha256()
    for folder, folders, files in os.walk(os.fsencode(root)):
        folders.sort()
        for name in sorted(files + folders):
            place = os.path.join(folder, name)
            info = os.lstat(place)
            digest.update(b"%b %o %d " % (place, info.st_mode, info.st_nlink))
            if stat.S_ISLNK(info.st_mode):
                digest.update(os.readlink(place))
            elif stat.S_ISREG(info.st_mode):
                with open(place, "rb") as file:
                    digest.update(file.read())
    return digest.hexdigest()


@pytest.fixture
def around(tmp_path: Path) -> Path:
    """A destination's surroundings, with something to damage."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "victim").write_text("victim")
    (tmp_path / "around").mkdir()
    return tmp_path


def test_hostile_names_are_refused_everywhere(around: Path) -> None:
    assert len(HOSTILE) >= 2000
    before = tree_hash(around / "outside")
    with Quarantine(around / "around" / "in", "t1") as holder:
        holder.write(0, 0, b"evil")
        holder.flush([0])
        inside = tree_hash(around / "around")
        for name in HOSTILE:
            assert broken_rule(name), ascii(name)
            with pytest.raises(RefusedError):
                holder.release([Release(0, name, 4, 0)])
            with pytest.raises(LabxchangeError) as caught:
                make_listing([listed_file(name, 4, 0)], issuer="00" * 32, issued=0, share="00" * 16, version=1)
            assert caught.value.message.isprintable()
            assert harmless_on_screen(escape(name))
        assert tree_hash(around / "around") == inside
    assert tree_hash(around / "outside") == before


def test_accepted_names_are_harmless_under_every_rule_set() -> None:
    print(f"seed {SEED}")
    accepted = 0
    for name in random_names(CASES, SEED):
        if broken_rule(name) is None:
            accepted += 1
            for harmless in RULE_SETS:
                assert harmless(name), (harmless.__name__, ascii(name))
    assert accepted > CASES // 20


def test_the_rule_sets_refuse_what_they_should() -> None:
    """The oracles above can fail: each refuses at least what it is there for."""
    assert not harmless_on_posix("../x")
    assert not harmless_on_posix("a//x")
    assert not harmless_on_windows("nul.txt")
    assert not harmless_on_windows("a.")
    assert not harmless_on_windows("c:x")
    assert not harmless_on_mac("a:b")
    assert not harmless_on_screen("\u202e")


def test_names_that_some_system_takes_for_one_are_refused() -> None:
    keys = [
        lambda path: path.upper(),
        lambda path: path.lower(),
        lambda path: unicodedata.normalize("NFC", path),
        lambda path: unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold()),
        lambda path: path.replace("\ufe0f", "").casefold(),
    ]
    rng = random.Random(SEED)
    pieces = ["a", "A", "é", "É", "ß", "ss", "SS", "ſ", "s", "K", "k", "Ω", "ω", "☃", "☃\ufe0f", "i", "I", "ı", "/", "/", "b"]
    refused = 0
    for _ in range(20_000):
        names = sorted({"".join(rng.choices(pieces, k=rng.randint(1, 3))) for _ in range(4)})
        names = [name for name in names if broken_rule(name) is None]
        whole = set(names) | {name[:at] for name in names for at, c in enumerate(name) if c == "/"}
        meets = any(len({key(name) for name in whole}) < len(whole) for key in keys)
        meets |= any(other.startswith(name + "/") for name in names for other in names)
        try:
            check_collisions(names)
        except RefusedError:
            refused += 1
        else:
            assert not meets, names
    assert 500 < refused < 19_000


def test_accepted_names_on_a_disk_stay_inside_and_are_found_again(around: Path) -> None:
    before = tree_hash(around / "outside")
    place = around / "around" / "in"
    names = sorted({name for name in random_names(3000, SEED + 1) if broken_rule(name) is None})
    while pairs := collisions(names):
        bad = {part for pair in pairs for part in pair}
        names = [name for name in names if name not in bad and not name.startswith(tuple(x for x in bad if x.endswith("/")))]
    files = [listed_file(name, len(name.encode()), 0) for name in names]
    assert len(files) > 300
    with Quarantine(place, "t1") as holder:
        for index, file in enumerate(files):
            holder.write(index, 0, file.path.encode())
        holder.flush(range(len(files)))
        assert all(item.done for item in holder.release([Release(i, f.path, f.size, 0) for i, f in enumerate(files)]))
        assert holder.remove_if_empty()
    found = scan([place])
    assert found.skipped == []
    assert found.files == files
    digests = [
        item.result.digests for group in hash_files(found.sources, files) for item in group if isinstance(item.result, FileHash)
    ]
    assert verify_folder(place, files, digests).matched == len(files)
    assert os.listdir(around / "around") == ["in"]
    assert tree_hash(around / "outside") == before


@contextmanager
def swapping(place: Path, target: Path) -> Iterator[list[int]]:
    """Exchange ``place`` with a link to ``target`` and back, atomically and as fast as one thread can; yields the swaps."""
    renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    link = place.with_name(place.name + ".link")
    link.symlink_to(target)
    stop, swaps = threading.Event(), [0]

    def work() -> None:
        while not stop.is_set() or swaps[0] % 2:
            assert renameat2(-100, os.fsencode(place), -100, os.fsencode(link), 2) == 0  # AT_FDCWD, RENAME_EXCHANGE
            swaps[0] += 1
            time.sleep(0)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield swaps
    finally:
        stop.set()
        thread.join()
        link.unlink()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux exchanges two names atomically")
@pytest.mark.parametrize("what", ["folder", "deep folder", "quarantine"])
def test_links_swapped_in_while_files_are_written_and_released(around: Path, what: str) -> None:
    place = around / "around" / "in"
    for folder in (place / "sub" / "deep", around / "outside" / "deep"):
        folder.mkdir(parents=True)
    before = tree_hash(around / "outside")
    with Quarantine(place, "t1") as holder:
        swapped = {"folder": place / "sub", "deep folder": place / "sub" / "deep", "quarantine": place / ".labxchange-t1"}[what]
        done = refused = 0
        end = time.monotonic() + 1.5
        with swapping(swapped, around / "outside") as swaps:
            index = 0
            while time.monotonic() < end:
                index += 1
                for number in range(index * 3, index * 3 + 3):
                    holder.write(number, 0, b"evil")
                holder.flush([index * 3])
                batch = [Release(number, f"sub/deep/f{number}", 4, 0) for number in range(index * 3, index * 3 + 3)]
                try:
                    results = holder.release(batch)
                except LabxchangeError:
                    refused += 1
                    continue
                done += sum(item.done for item in results)
                refused += sum(not item.done for item in results)
    assert tree_hash(around / "outside") == before
    assert swaps[0] > 50
    assert done > 0
    assert refused > 0 or what == "quarantine"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux exchanges two names atomically")
def test_links_swapped_in_while_files_are_hashed_and_verified(around: Path) -> None:
    place, outside = around / "around" / "in" / "a", around / "outside"
    place.mkdir(parents=True)
    for folder, byte in ((place, b"i"), (outside, b"o")):
        for number in range(50):
            (folder / f"f{number}").write_bytes(byte * 1000)
            os.utime(folder / f"f{number}", (1, 1))
    found = scan([around / "around" / "in"])
    right = [item.result for group in hash_files(found.sources, found.files) for item in group]
    digests = [item.digests for item in right if isinstance(item, FileHash)]
    assert len(digests) == 50
    hashed = left_out = 0
    end = time.monotonic() + 1.5
    with swapping(place, outside) as swaps:
        while time.monotonic() < end:
            for group in hash_files(found.sources, found.files):
                for item in group:
                    if isinstance(item.result, FileHash):
                        hashed += 1
                        assert item.result == right[item.file]
                    else:
                        left_out += 1
            # Read through the link, each file would differ; a folder that is away or a link is missing instead.
            report = verify_folder(around / "around" / "in", found.files, digests, unexpected=False)
            assert report.differ == 0 or all(finding.got == "" for finding in report.findings)
    assert swaps[0] > 50
    assert hashed > 0
    assert left_out > 0


def test_what_stands_in_the_way_is_never_followed_or_replaced(around: Path) -> None:
    place = around / "around" / "in"
    place.mkdir()
    victim = around / "outside" / "victim"
    os.mkfifo(place / "fifo")
    (place / "device").symlink_to("/dev/null")
    (place / "link").symlink_to(victim)
    os.link(victim, place / "hard")
    (place / "linked").symlink_to(around / "outside")
    before = tree_hash(around / "outside")
    with Quarantine(place, "t1") as holder:
        names = ["fifo", "device", "link", "hard", "linked", "linked/x", "fifo/x", "device/x", "link/x"]
        for index in range(len(names)):
            holder.write(index, 0, b"evil")
        holder.flush(range(len(names)))
        results = holder.release([Release(index, name, 4, 0) for index, name in enumerate(names)])
    assert not any(item.done for item in results)
    assert tree_hash(around / "outside") == before
    assert victim.read_text() == "victim"
