"""Every failure that labxchange reports, as one tree.

The class says whose fault it is and so what to do next; ``code`` is stable and never reused; ``message`` is one sentence
that a scientist understands; ``hint`` says what to do. No message ever holds a secret, a key or the text of a passphrase.
Foreign exceptions become one of these at the edge where they occur; exit codes and HTTP codes are mapped outside, once.
"""

from __future__ import annotations


class LabxchangeError(Exception):
    """Root of all errors of this package; the class says whose fault it is.

    Fields:
        code: stable reason for programs, words joined by hyphens.
        message: one sentence for a person.
        hint: what to do next; may be empty.

    Example:
        try:
            lx.receive("nobody offers this")
        except lx.LabxchangeError as error:
            print(error.code, error.message, error.hint)
    """

    code: str
    message: str
    hint: str

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(hint)  # a traceback ends with it, in Python as in a notebook

    def __str__(self) -> str:
        return self.message


class InputError(LabxchangeError):
    """The caller gave something that cannot be used: correct it and call again."""


class RefusedError(LabxchangeError):
    """A rule, here or at the other party, does not allow the action."""


class PeerError(LabxchangeError):
    """The other node sent something malformed, too large, unasked for or out of order."""


class IntegrityError(LabxchangeError):
    """Something does not verify: a signature, a digest, a proof or a stored file."""


class NodeLocked(LabxchangeError):
    """The keys are sealed: unlock the node first, with `labxchange node unlock`. Nothing here asks for a passphrase.

    Example:
        try:
            lx.inbox()
        except lx.NodeLocked as error:
            print(error.hint)
    """

    def __init__(self) -> None:
        super().__init__(
            "node-locked",
            "The node is locked: its keys are sealed until you unlock it.",
            hint="Run `labxchange node unlock` in a terminal.",
        )


class UnavailableError(LabxchangeError):
    """Something that the action needs is absent now: the peer, the node, disk space, a file."""
