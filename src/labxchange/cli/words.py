"""Typing the six words that a contact reads out.

Each word is completed as it is typed: as soon as its beginning fits one word only, the rest is shown and Enter or space takes
it. A word that is not in the list is asked for again. The contact's own words are never shown: they are heard, typed, and
compared by the node. Where the terminal cannot do this, whole lines are read.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from labxchange.cli import asking, screen
from labxchange.errors import InputError

_BEGINNING = 3
_TAKE = "\r\n \t"
_ERASE = "\x7f\b"
_SEQUENCE_S = 0.02


def split_words(text: str) -> list[str]:
    """The words of one option, in full; raises InputError ``word-unknown``, ``words-count``."""
    from labxchange.identity.fingerprint import WORD_COUNT, complete_word

    typed = text.replace(",", " ").split()
    if len(typed) != WORD_COUNT:
        raise InputError("words-count", f"There are {WORD_COUNT} words, not {len(typed)}.")
    return [complete_word(word) for word in typed]


class WordField:
    """One word while it is typed: keys in, what to show out."""

    def __init__(self, listed: Sequence[str]) -> None:
        self._listed = listed
        self.typed = ""

    @property
    def rest(self) -> str:
        """What completes the typed beginning, when only one word does."""
        if len(self.typed) < _BEGINNING:
            return ""
        at = bisect_left(self._listed, self.typed)
        found = [word for word in self._listed[at : at + 2] if word.startswith(self.typed)]
        return found[0][len(self.typed) :] if len(found) == 1 else ""

    def press(self, key: str) -> bool:
        """Take a key; True when the word is finished."""
        if key in _TAKE:
            return bool(self.typed)
        if key in _ERASE:
            self.typed = self.typed[:-1]
        elif key == "\x15":  # Ctrl-U empties a line
            self.typed = ""
        elif key.isascii() and (key.isalpha() or key == "-"):
            self.typed += key.lower()
        return False


def ask_words(name: str) -> list[str]:
    """The six words, asked for one by one.

    Raises:
        InputError: ``terminal-needed``.
    """
    from labxchange.identity.fingerprint import WORD_COUNT, word_list

    if not asking.person_there():
        raise InputError(
            "terminal-needed",
            "The six words can only be asked for in a terminal.",
            hint='A script gives `--words "a b c d e f"`.',
        )
    screen.remark(f"Ask {name} by telephone to read the six words that `labxchange key show` shows them.")
    screen.remark("Type them as you hear them; a beginning is enough when it fits one word only.")
    listed = sorted(word_list())
    with _reader(listed) as read:
        return [_one(read, f"Word {position} of {WORD_COUNT}: ") for position in range(1, WORD_COUNT + 1)]


def _one(read: Callable[[str], str], prompt: str) -> str:
    from labxchange.identity.fingerprint import complete_word

    while True:
        try:
            return complete_word(read(prompt))
        except InputError as error:
            screen.remark(error.message)


@contextlib.contextmanager
def _reader(listed: Sequence[str]) -> Iterator[Callable[[str], str]]:
    """Reads one word at a prompt: key by key where the terminal allows, else by the line."""
    try:
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, termios.error):
        yield _by_line
        return
    try:
        tty.setcbreak(descriptor, termios.TCSADRAIN)  # keeps what was typed ahead
        yield lambda prompt: _by_key(prompt, listed, descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _by_line(prompt: str) -> str:
    sys.stderr.write(prompt)
    sys.stderr.flush()
    typed = sys.stdin.readline()
    if not typed:
        raise EOFError
    return typed


def _by_key(prompt: str, listed: Sequence[str], descriptor: int) -> str:
    field = WordField(listed)
    while True:
        # The completion is dim, and the cursor goes back to the end of what was typed.
        rest = field.rest
        shown = f"\x1b[2m{rest}\x1b[0m\x1b[{len(rest)}D" if rest else ""
        sys.stderr.write(f"\r\x1b[K{prompt}{field.typed}{shown}")
        sys.stderr.flush()
        if field.press(_key(descriptor)):
            word = field.typed + field.rest
            sys.stderr.write(f"\r\x1b[K{prompt}{word}\n")
            return word


def _key(descriptor: int) -> str:
    """The next key; arrows and function keys are passed over."""
    while True:
        data = os.read(descriptor, 1)
        if data in (b"", b"\x04"):
            raise EOFError
        if data != b"\x1b":
            return data.decode("latin-1")
        if select.select([descriptor], [], [], _SEQUENCE_S)[0] and os.read(descriptor, 1) in b"[O":
            while os.read(descriptor, 1) < b"@":  # a sequence ends with a byte from @ on
                continue
