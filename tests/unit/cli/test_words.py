"""The six words: completed as they are typed, asked again when wrong, never shown to be confirmed."""

from __future__ import annotations

import io
import os
import pty
import sys
import tty

import pytest

from labxchange.cli import words
from labxchange.cli.words import WordField, split_words
from labxchange.errors import InputError
from labxchange.identity.fingerprint import word_list
from tests.unit.cli.fake import FakeNode, main, person, sample, values

SIX = ["acorn", "outing", "exemplify", "levitate", "dentist", "alarm"]


def _type(field: WordField, keys: str) -> bool:
    return [field.press(key) for key in keys][-1]


def test_a_beginning_of_one_word_is_completed() -> None:
    field = WordField(sorted(word_list()))
    assert not _type(field, "exemplif")
    assert (field.typed, field.rest) == ("exemplif", "y")
    assert field.press("\n")


def test_two_letters_or_several_words_are_not() -> None:
    field = WordField(["abacus", "abdomen", "zero"])
    _type(field, "ze")
    assert field.rest == ""
    assert WordField(["abacus", "abacuses"]).rest == ""
    both = WordField(["abacus", "abacuses"])
    _type(both, "aba")
    assert both.rest == ""


def test_keys_that_correct_and_keys_that_do_nothing() -> None:
    field = WordField(["zero"])
    _type(field, "Zex\x7f")
    assert field.typed == "ze"
    _type(field, "\x1b1é")
    assert field.typed == "ze"
    _type(field, "\x15")
    assert field.typed == ""
    assert not field.press("\n")


def test_words_of_one_option() -> None:
    assert split_words("acorn, outing exemplif  levitate dentist alarm") == SIX
    with pytest.raises(InputError) as caught:
        split_words("acorn outing")
    assert caught.value.code == "words-count"
    with pytest.raises(InputError) as caught:
        split_words("acorn outing exemplify levitate dentist xxxx")
    assert caught.value.code == "word-unknown"


def _at_terminal(typed: bytes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    person(present=True, monkeypatch=monkeypatch)
    controller, terminal = pty.openpty()
    try:
        tty.setcbreak(terminal)
        os.write(controller, typed)
        with open(terminal, encoding="utf-8", closefd=False) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            return words.ask_words("Ana")
    finally:
        os.close(controller)
        os.close(terminal)


def test_typed_key_by_key_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    typed = b"zzzz\nacor\nouting exem\x1b[Aplify levitatt\x7fe dentis\talarm\n"
    assert _at_terminal(typed, monkeypatch) == SIX
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "'zzzz' is not a word of the list" in shown.err
    assert shown.err.count("Word 1 of 6") > shown.err.count("\n")  # drawn again with each key


def test_ctrl_d_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EOFError):
        _at_terminal(b"acorn\n\x04", monkeypatch)


def test_read_by_the_line_where_the_terminal_cannot(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    person(present=True, monkeypatch=monkeypatch)
    monkeypatch.setattr(sys, "stdin", io.StringIO("zzzz\nacorn\nouting\nexemplif\nlevitate\ndentist\nalarm\n"))
    assert words.ask_words("Ana") == SIX
    assert "'zzzz' is not a word" in capsys.readouterr().err


def test_a_script_gives_the_option(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["contact_verify"] = sample(values.ContactInfo, name="Ana", state="verified")
    assert main(["contact", "verify", "Ana"]) == 2
    assert "[terminal-needed]" in capsys.readouterr().err
    assert main(["contact", "verify", "Ana", "--words", " ".join(SIX)]) == 0
    assert node.asked("contact_verify") == [{"contact": "Ana", "words": SIX}]


def test_the_words_of_the_contact_are_not_shown(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["contact_verify"] = InputError("words-differ", "These are not the words of Ana.", hint="Ask again.")
    assert main(["contact", "verify", "Ana", "--words", " ".join(SIX)]) == 2
    shown = capsys.readouterr()
    assert not any(word in shown.out + shown.err for word in SIX)
