"""Names: every rule has a name that breaks only it; the fast path never accepts what the rules refuse; collisions are found."""

from __future__ import annotations

import random
import unicodedata

import pytest

from labxchange.dataset import names
from labxchange.dataset.names import broken_rule, check_collisions, check_path, check_paths, collision_key, collisions, escape
from labxchange.errors import RefusedError

GOOD = [
    "adsl.xpt",
    "Phase I/tables/adsl (final) v2.csv",
    "äöü/Übersicht – Ende.pdf",
    "日本語/被験者　一覧.csv",
    "Screenshot at 1.00.00\u202fPM.png",
    ".hidden",
    "..a/b..c",
    "a;b,c=d&e'f\"g?h*i<j>k|l",
    "console.log",
    "com10.txt",
    "nullify/auxiliary/printer/lpt",
    "🧬.txt",
    "/".join(["a"] * 64),
    "x" * 255,
    "é" * 127,
]
BAD = {
    "": "empty",
    "/etc/passwd": "absolute",
    "//server/share": "absolute",
    "..": "part ..",
    "a/../b": "part ..",
    "./a": "part .",
    "a//b": "empty part",
    "a/": "empty part",
    "a\\b": "backslash",
    "\\\\server\\share": "backslash",
    "C:": "colon",
    "C:/x": "colon",
    "a.txt:stream": "colon",
    "a\0b": "control",
    "a\nb": "control",
    "a\x1b[31mb": "control",
    "a\x7f": "control",
    "a\x85b": "control",
    "a\x9b31m": "control",
    "a\u202etxt.exe": "invisible",
    "a\u2066b": "invisible",
    "a\u200bb": "invisible",
    "a\ufeffb": "invisible",
    "a\U000e0041": "invisible",
    "a\u3164b": "invisible",
    "a\u2028b": "line separator",
    "a\u2029b": "paragraph separator",
    "a\ud800b": "surrogate",
    "c\udcffd": "surrogate",
    "a\ufffeb": "not a character",
    "a\U0001ffff": "not a character",
    "CON": "device",
    "nul.txt": "device",
    "a/Aux .tar.gz": "device",
    "com¹": "device",
    "LPT9.x/y": "device",
    "conin$": "device",
    "a.": "dot or a space",
    "a /b": "dot or a space",
    "a\u3000": "dot or a space",
    "x" * 256: "longer than 255",
    "é" * 128: "longer than 255",
    "/".join(["a"] * 65): "more than 64",
    "/".join(["x" * 200] * 21): "longer than 4096",
    "/".join(["é" * 100] * 21): "longer than 4096",
    "e\u0301": "NFC",
    "\u212b": "NFC",
    ".labxchange": "reserved",
    ".LabXchange-00/1.part": "reserved",
    "a/.labxchange-00": "reserved",
    ".lab\ufe00xchange": "reserved",
}


@pytest.mark.parametrize("path", GOOD)
def test_good_names_are_accepted(path: str) -> None:
    check_path(path)
    check_paths([path])


@pytest.mark.parametrize(("path", "rule"), BAD.items(), ids=[ascii(path)[:40] for path in BAD])
def test_each_rule_refuses_and_names_itself(path: str, rule: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check_path(path)
    assert caught.value.code == "hostile-name"
    assert rule in caught.value.message
    assert caught.value.message.isprintable()


def test_the_fast_path_accepts_nothing_that_the_rules_refuse() -> None:
    rng = random.Random(7)
    alphabet = "aAcCoOnNmMuUlLpPtTrRxX01239.$ _-~/¹é\t:\\"
    accepted = 0
    for _ in range(200_000):
        part = "".join(rng.choices(alphabet, k=rng.randint(0, 7)))
        if names._PLAIN.fullmatch(part):
            accepted += 1
            assert names._judge(part) is None, part
    assert accepted > 10_000


def test_checking_many_judges_as_checking_each() -> None:
    rng = random.Random(8)
    pieces = ["a", "b.csv", "", "..", "c" * 255, "d" * 256, "é", "nul", "x.", "/"]
    refused = 0
    for _ in range(20_000):
        paths = ["/".join(rng.choices(pieces[:3] + pieces[4:5] if rng.random() < 0.7 else pieces, k=rng.randint(1, 20)))
                 for _ in range(rng.randint(1, 4))]  # fmt: skip
        expected = next((path for path in paths if broken_rule(path.removesuffix("/"))), None)
        try:
            check_paths(paths)
        except RefusedError:
            refused += 1
            assert expected is not None, paths
        else:
            assert expected is None, paths
    assert 1000 < refused < 20_000


def test_absolute_names_are_refused_after_names_at_the_top() -> None:
    with pytest.raises(RefusedError):
        check_paths(["a", "/b"])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("A.txt", "a.txt"),
        ("straße", "STRASSE"),
        ("\u00b5", "\u03bc"),
        ("K", "\u212a"),
        ("a", "a/b"),
        ("A/b", "a/c"),
        ("a/b/c/d", "a/B/x"),
        ("x/", "X"),
        ("x/", "x/y"),
        ("ı", "I"),
        ("☃", "☃\ufe0f"),
        ("Ä", "ä"),
        ("same", "same"),
    ],
)
def test_collisions_are_found_among_many(first: str, second: str) -> None:
    paths = [f"n{i // 10}/f{i}" for i in range(100)]
    for found in (
        collisions([first, *paths, second]),
        collisions([*paths, second, first]),
    ):
        assert len(found) == 1
        assert len({collision_key(name.removesuffix("/")) for name in found[0]}) == 1
    with pytest.raises(RefusedError) as caught:
        check_collisions([first, *paths, second])
    assert caught.value.code == "name-collision"


@pytest.mark.parametrize(
    "paths", [[], ["a"], ["a/b", "a/c", "b/a", "b/c", "ab"], ["cm2", "cm²"], ["a/", "b/"], ["a/b/c", "a/b/d", "a/e/c"]]
)
def test_what_no_file_system_confuses_does_not_collide(paths: list[str]) -> None:
    check_collisions(paths)


def test_keys_are_equal_for_every_letter_and_its_cases() -> None:
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.category(character) not in ("Lu", "Ll", "Lt"):
            continue
        for other in (character.lower(), character.upper(), character.casefold(), unicodedata.normalize("NFD", character)):
            assert collision_key(character) == collision_key(other), hex(code)


def test_escape_leaves_nothing_that_a_terminal_acts_on() -> None:
    text = "a\x1b[31m\u202eb\x9b\n\ud800\u00a0é日🧬"
    assert escape(text) == "a\\u{1b}[31m\\u{202e}b\\u{9b}\\u{a}\\u{d800}\\u{a0}é日🧬"
    assert escape("x" * 20, limit=5) == "xxxxx…"
    for code in range(0x110000):
        shown = escape(chr(code))
        shown.encode()
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            assert shown.isascii()
            assert shown.startswith("\\u{")
