"""How people compare keys: a fingerprint to read and paste, six words to say.

The fingerprint is base32 of SHA-256 over the key, in four parts of 13 letters each closed by a Luhn mod 32 check letter, shown
in groups of seven. The six words carry 77 bits of another hash; they name one key, never a pair.
"""

from __future__ import annotations

import base64
from functools import cache
from hashlib import sha256
from importlib.resources import files

from labxchange.errors import InputError

WORD_COUNT = 6
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_PART = 13
_GROUP = 7


def _check_letter(part: str) -> str:
    """Luhn mod 32 of ``part``."""
    total = 0
    for position, letter in enumerate(reversed(part)):
        value = _ALPHABET.index(letter) * (2 if position % 2 == 0 else 1)
        total += value // 32 + value % 32
    return _ALPHABET[-total % 32]


def fingerprint(public: bytes) -> str:
    """Eight groups of seven letters, e.g. ``ABCDEFG-...``."""
    digest = sha256(b"labxchange id v1" + public).digest()
    letters = base64.b32encode(digest).decode().rstrip("=")
    parts = [letters[i : i + _PART] for i in range(0, len(letters), _PART)]
    checked = "".join(part + _check_letter(part) for part in parts)
    return "-".join(checked[i : i + _GROUP] for i in range(0, len(checked), _GROUP))


def parse_fingerprint(text: str) -> str:
    """The canonical form of a typed fingerprint; spaces, hyphens and case are free, 0/1/8 are read as O/I/B.

    Raises:
        InputError: ``fingerprint-mistyped``.
    """
    letters = "".join(text.split()).replace("-", "").upper().translate(str.maketrans("018", "OIB"))
    parts = [letters[i : i + _PART + 1] for i in range(0, len(letters), _PART + 1)]
    good = len(letters) == 4 * (_PART + 1) and set(letters) <= set(_ALPHABET)
    if not good or any(_check_letter(part[:-1]) != part[-1] for part in parts):
        raise InputError(
            "fingerprint-mistyped",
            "This is not a fingerprint, or a letter of it is wrong.",
            hint="A fingerprint has eight groups of seven letters; the other person sees theirs with `labxchange key show`.",
        )
    return "-".join(letters[i : i + _GROUP] for i in range(0, len(letters), _GROUP))


@cache
def word_list() -> tuple[str, ...]:
    """The 7,776 words of the EFF long list, sorted."""
    text = files("labxchange.identity").joinpath("eff_long_wordlist.txt").read_text(encoding="ascii")
    return tuple(text.split())


def words(public: bytes) -> tuple[str, ...]:
    """The six words of one key."""
    number = int.from_bytes(sha256(b"labxchange words v1" + public).digest(), "big")
    listed = word_list()
    out: list[str] = []
    for _ in range(WORD_COUNT):
        number, index = divmod(number, len(listed))
        out.append(listed[index])
    return tuple(out)


def complete_word(text: str) -> str:
    """The listed word that ``text`` is, or is the only beginning of.

    Raises:
        InputError: ``word-unknown``.
    """
    typed = text.strip().lower()
    listed = word_list()
    if typed in listed:
        return typed
    found = [word for word in listed if word.startswith(typed)] if len(typed) >= 3 else []
    if len(found) == 1:
        return found[0]
    near = f" It could be {', '.join(found[:4])}." if found else ""
    raise InputError("word-unknown", f"{typed!r} is not a word of the list.{near}", hint="Ask the other person to spell it.")
