"""The exit codes of every command, mapped here and nowhere else.

    0    done
    1    unexpected: a fault of labxchange itself
    2    input: what was given cannot be used
    3    refused: a rule, here or at the other party, does not allow it
    4    integrity: a signature, a digest, a proof or a file does not verify
    5    unavailable: the node, the peer, the disk or a file is not there now; a check of the doctor failed
    6    locked: the keys are sealed
    7    peer: the other node sent something malformed
    10   `audit verify`: VALID-UNANCHORED
    11   `audit verify`: INCOMPLETE
    12   `audit verify`: DIVERGED
    13   `audit verify`: INVALID
    130  interrupted by Ctrl-C or Ctrl-D

The codes of `audit verify` are those of the verifier run as a file of its own.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from labxchange.errors import (
    InputError,
    IntegrityError,
    LabxchangeError,
    NodeLocked,
    PeerError,
    RefusedError,
    UnavailableError,
)


class ExitCode(IntEnum):
    """See the table above."""

    OK = 0
    UNEXPECTED = 1
    INPUT = 2
    REFUSED = 3
    INTEGRITY = 4
    UNAVAILABLE = 5
    LOCKED = 6
    PEER = 7
    INTERRUPTED = 130


_OF_ERRORS: Final = {
    InputError: ExitCode.INPUT,
    RefusedError: ExitCode.REFUSED,
    IntegrityError: ExitCode.INTEGRITY,
    UnavailableError: ExitCode.UNAVAILABLE,
    NodeLocked: ExitCode.LOCKED,
    PeerError: ExitCode.PEER,
}

OF_TRANSFER: Final = {
    "verified": ExitCode.OK,
    "completed": ExitCode.OK,
    "failed": ExitCode.INTEGRITY,
    "cut": ExitCode.REFUSED,
    "cancelled": ExitCode.REFUSED,
    "paused": ExitCode.UNAVAILABLE,
}
"""How `receive` ends, by the state in which the transfer was left."""


def code_of(error: LabxchangeError) -> ExitCode:
    """The exit code of an error."""
    return next((_OF_ERRORS[kind] for kind in type(error).__mro__ if kind in _OF_ERRORS), ExitCode.UNEXPECTED)
