"""Fingerprints and words: what is mistyped is caught, what is meant is found."""

from __future__ import annotations

import random

import pytest

from labxchange.errors import InputError
from labxchange.identity.fingerprint import (
    WORD_COUNT,
    complete_word,
    fingerprint,
    parse_fingerprint,
    word_list,
    words,
)

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
KEY = bytes(range(32))


def test_the_form() -> None:
    text = fingerprint(KEY)
    groups = text.split("-")
    assert [len(group) for group in groups] == [7] * 8
    assert set("".join(groups)) <= set(ALPHABET)
    assert fingerprint(KEY) == text != fingerprint(bytes(32))


def test_it_is_read_however_it_is_typed() -> None:
    text = fingerprint(KEY)
    for typed in (text, text.lower(), text.replace("-", " "), text.replace("-", ""), f"  {text}\n"):
        assert parse_fingerprint(typed) == text
    digits = text.translate(str.maketrans("OIB", "018"))
    assert parse_fingerprint(digits) == text


def test_every_wrong_letter_is_caught() -> None:
    text = fingerprint(KEY)
    for position, letter in enumerate(text):
        if letter == "-":
            continue
        for other in ALPHABET:
            if other != letter:
                with pytest.raises(InputError) as caught:
                    parse_fingerprint(text[:position] + other + text[position + 1 :])
                assert caught.value.code == "fingerprint-mistyped"


def test_most_swapped_neighbours_are_caught() -> None:
    seed = 7
    chance, missed, tried = random.Random(seed), 0, 0
    for _ in range(50):
        letters = fingerprint(chance.randbytes(32)).replace("-", "")
        for position in range(len(letters) - 1):
            one, two = letters[position], letters[position + 1]
            if one == two or position % 14 == 13:
                continue
            tried += 1
            try:
                parse_fingerprint(letters[:position] + two + one + letters[position + 2 :])
                missed += 1
            except InputError:
                pass
    assert missed < tried / 100, f"seed {seed}"


@pytest.mark.parametrize("text", ["", "ABCDEFG", "9" * 56, "ß" * 56, "A" * 57, "-" * 56])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_fingerprint(text)


def test_six_words_of_the_list() -> None:
    assert len(word_list()) == len(set(word_list())) == 7776
    assert len(words(KEY)) == WORD_COUNT
    assert set(words(KEY)) <= set(word_list())
    assert words(KEY) == words(KEY) != words(bytes(32))


def test_every_word_is_itself_even_where_it_begins_another() -> None:
    for word in word_list():
        assert complete_word(word) == word
    assert complete_word("  Abacus ") == "abacus"


def test_a_beginning_is_completed_only_where_it_is_one_word() -> None:
    assert complete_word("abac") == "abacus"
    for typed in ("ab", "", "zzzz", "abacuss"):
        with pytest.raises(InputError) as caught:
            complete_word(typed)
        assert caught.value.code == "word-unknown"
    with pytest.raises(InputError) as several:
        complete_word("uni")
    assert "It could be" in several.value.message
