"""Calling the node from a command: it is started when it does not run, and unlocked when a person is there to do it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from labxchange.cli import asking, screen
from labxchange.errors import InputError, LabxchangeError, NodeLocked

if TYPE_CHECKING:
    from labxchange.node.client import Client
    from labxchange.node.verbs import Verbs

P = ParamSpec("P")
T = TypeVar("T")

_ATTEMPTS = 3


@cache
def _client(start: bool) -> Client:
    from labxchange.node.client import Client

    return Client(start=start)


def call(verb: Callable[Concatenate[Verbs, P], Awaitable[T]], *args: P.args, **given: P.kwargs) -> T:
    """The answer of the node to ``verb``. A locked node is unlocked first when somebody is at the terminal.

    Raises:
        LabxchangeError: as the verb's docstring says; UnavailableError ``node-start-failed``; InputError ``text-malformed``.
    """
    try:
        return _call(verb, True, *args, **given)
    except NodeLocked:
        if not asking.person_there():
            raise
    unlock()
    return _call(verb, True, *args, **given)


def call_running(verb: Callable[Concatenate[Verbs, P], Awaitable[T]], *args: P.args, **given: P.kwargs) -> T:
    """The answer of a node that runs already; raises UnavailableError ``node-not-running``."""
    return _call(verb, False, *args, **given)


def _call(verb: Callable[Concatenate[Verbs, P], Awaitable[T]], start: bool, /, *args: P.args, **given: P.kwargs) -> T:
    from labxchange.node.client import run

    try:
        return run(_client(start).call(verb, *args, **given))
    except UnicodeEncodeError:
        raise InputError("text-malformed", "Something that was given holds bytes that are not UTF-8 text.") from None


def stop() -> None:
    """Ask the node to stop; raises UnavailableError ``node-not-running``."""
    from labxchange.node.client import run

    run(_client(False).stop_node())


def unlock() -> None:
    """Ask for the passphrase until it is right, three times at most.

    Raises:
        InputError: ``passphrase-wrong``, ``no-unlock-method``, ``terminal-needed``.
    """
    from labxchange.node.verbs import Verbs

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _call(Verbs.unlock, True, passphrase=asking.passphrase("Passphrase of this node"))
            return
        except InputError as error:
            if error.code != "passphrase-wrong" or attempt == _ATTEMPTS:
                raise
            screen.remark(error.message)


def needing_passphrase(work: Callable[[str], T]) -> T:
    """``work`` given "" where the node can open the keys by itself, else the passphrase that a person types.

    Raises:
        LabxchangeError: as ``work`` does.
    """
    try:
        return work("")
    except LabxchangeError as error:
        if error.code != "no-unlock-method":
            raise
    return work(asking.passphrase("Passphrase of this node"))


def absolute(path: str) -> str:
    """``path`` seen from here: the node works in another folder.

    Raises:
        InputError: ``path-not-text``.
    """
    found = str(Path(path).expanduser().absolute())
    try:
        found.encode()
    except UnicodeEncodeError:
        raise InputError("path-not-text", "The name of this file is not UTF-8 text.", hint="Rename it first.") from None
    return found


def maybe_absolute(path: str) -> str:
    """``absolute``, and "" for ""."""
    return absolute(path) if path else ""
