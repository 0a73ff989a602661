"""What an end of a lane tells its worker: the other end is there, or has moved; a new id is due; the lane is dead; what was asked
for went out."""

from __future__ import annotations

from typing import NamedTuple

Address = tuple[str, int] | tuple[str, int, int, int]
"""As the socket gave it; compared, and given back to be sent to."""


class Up(NamedTuple):
    """The other end was heard for the first time."""


class Moved(NamedTuple):
    """The other end answered from another address than before."""

    before: Address | None
    address: Address | None


class Worn(NamedTuple):
    """The lane has carried or met so much that a new id is due; it goes on until it is closed."""

    why: str


class Failed(NamedTuple):
    """The other end broke the rules: the lane is dead."""

    code: str
    sentence: str


class Asked(NamedTuple):
    """Everything of a request was sent once, but for the bytes of the line in ``gone`` (start, end)."""

    request: int
    gone: tuple[tuple[int, int], ...]


Event = Up | Moved | Worn | Failed | Asked
