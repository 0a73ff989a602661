"""Asking a person at the terminal. A passphrase is typed unseen, never an argument, and asked for nowhere else."""

from __future__ import annotations

import sys

from labxchange.cli import screen
from labxchange.errors import InputError

_ATTEMPTS = 3


def person_there() -> bool:
    """True when somebody can answer."""
    return sys.stdin.isatty()


def _need_person(what: str) -> None:
    if not person_there():
        raise InputError(
            "terminal-needed",
            f"{what} can only be asked for in a terminal.",
            hint="Run this in a terminal; on a server, use `--credential-file` where the command has it.",
        )


def passphrase(prompt: str) -> str:
    """A passphrase, typed unseen.

    Raises:
        InputError: ``terminal-needed``.
    """
    import getpass

    _need_person("A passphrase")
    return getpass.getpass(f"{prompt}: ")


def new_passphrase(prompt: str) -> str:
    """A passphrase typed twice; the prompt says how long it must be, the node refuses a shorter one.

    Raises:
        InputError: ``terminal-needed``, ``passphrases-differ``.
    """
    from labxchange.identity.sealing import PASSPHRASE_MIN_LENGTH

    prompt = f"{prompt} ({PASSPHRASE_MIN_LENGTH} characters or more)"
    for _ in range(_ATTEMPTS):
        typed = passphrase(prompt)
        if typed and typed == passphrase("The same again"):
            return typed
        screen.remark("They are not the same; once more." if typed else "An empty passphrase protects nothing.")
    raise InputError("passphrases-differ", "The two passphrases were never the same.", hint="Nothing was made; try again.")


def text(prompt: str, *, given: str, option: str) -> str:
    """``given``, or what a person types instead.

    Raises:
        InputError: ``option-missing``: nobody is there to ask.
    """
    if given:
        return given
    if not person_there():
        raise InputError("option-missing", f"{prompt} is missing.", hint=f"Give it with `{option}`.")
    sys.stderr.write(f"{prompt}: ")
    sys.stderr.flush()
    return _line().strip()


def _line() -> str:
    typed = sys.stdin.readline()
    if not typed:
        raise EOFError
    return typed
