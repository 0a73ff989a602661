"""How people name share versions: by id or its beginning, or by title, and ``NAME/2`` for one version.

Rules: a whole id means itself, whatever others called their shares; a title means itself before it is read as a title and a
version; a beginning of an id and a title that both fit are both found, so that the caller can say that the name is ambiguous.
What is found and not found means is left to the callers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec

from labxchange.store.shares import ShareRow

_BEGINNING = 6
"""Letters of an id that are enough to name it."""
_VERSIONED = re.compile(r"(.+)/([1-9][0-9]{0,6})", re.DOTALL)
_ID = re.compile("[0-9a-f]{32}")


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """The share versions that a text names; ``version`` is 0 where it names none of them in particular."""

    rows: tuple[ShareRow, ...]
    version: int

    @property
    def shares(self) -> int:
        """How many shares, not versions, the text names."""
        return len({(row.owner, row.share) for row in self.rows})


def named(text: str, known: Sequence[ShareRow]) -> Named:
    """What ``text`` names among ``known``."""
    found = _VERSIONED.fullmatch(text)
    name, version = (found[1], int(found[2])) if found else (text, 0)

    def chosen(of: Callable[[ShareRow], bool]) -> list[ShareRow]:
        return [row for row in known if version in (0, row.version) and of(row)]

    if _ID.fullmatch(name):
        whole = chosen(lambda row: row.share == name)
        if whole:
            return Named(rows=tuple(whole), version=version)
    beginning = chosen(lambda row: len(name) >= _BEGINNING and row.share.startswith(name))
    exact = [row for row in known if row.title == text]
    titled = exact or chosen(lambda row: row.title == name)
    if not beginning and exact:
        version = 0
    rows = {(row.owner, row.share, row.version): row for row in (*beginning, *titled)}
    return Named(rows=tuple(rows.values()), version=version)
