"""Which names of files a dataset may hold, and how a name is shown.

A name comes from another organisation and becomes a path here, so one rule set serves every system: a name that is accepted is
one and the same harmless file on Linux, macOS and Windows.

- A path is relative, its parts joined by ``/``; no part is empty, ``.`` or ``..``; no backslash, colon (drives, alternate data
  streams), control, format (bidirectional) or invisible character; no Windows device name; no trailing dot or space.
- A part has at most 255 bytes of UTF-8, a path 4,096 bytes and 64 parts, both in Unicode form NFC.
- Names that begin with ``.labxchange`` are ours.
- Two names that some file system takes for one (case, canonical equivalence, ignored code points) collide; so do a file and a
  folder of one name, and two spellings of one folder.

What happens to a refused name is left to the callers; nothing here touches a disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from unicodedata import category, is_normalized, normalize

import numpy as np

from labxchange.errors import RefusedError

PART_MAX_BYTES: Final = 255
PATH_MAX_BYTES: Final = 4096
PATH_MAX_PARTS: Final = 64
OWN_PREFIX: Final = ".labxchange"
_BLOCK: Final = 4096

_DEVICES: Final = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$", "clock$"]
    + [f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"]
)
# Letters and marks that show nothing: two names that differ by one of them look the same. ext4 and HFS+ ignore some of them.
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_VARIATION: Final = re.compile("[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_REFUSED_CATEGORIES: Final = {
    "Cc": "it holds a control character",
    "Cf": "it holds an invisible or direction-changing character",
    "Cs": "it holds a lone surrogate",
    "Zl": "it holds a line separator",
    "Zp": "it holds a paragraph separator",
}
_HIDDEN_CATEGORIES: Final = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"])

# Plain ASCII parts, which nearly all are: one regular expression instead of the rules one by one. It only ever accepts what
# `_judge` accepts (a test compares them); what it does not match is judged by the rules.
_FIRST: Final = r"[A-Za-z0-9_+=@#%,()\[\]{}~!$&'^;`-]"
_INNER: Final = r"[A-Za-z0-9_+=@#%,()\[\]{}~!$&'^;` .-]"
_PLAIN: Final = re.compile(rf"(?!con|prn|aux|nul|com|lpt|clock){_FIRST}(?:{_INNER}{{0,253}}{_FIRST})?", re.IGNORECASE | re.ASCII)


def escape(text: str, *, limit: int = 4096) -> str:
    """A printable form for screens and messages: no control, direction or invisible character reaches the terminal.

    Such characters become ``\\u{1b}``; every space but the common one does too. Longer text is cut, which an ellipsis shows.
    """
    if len(text) > limit:
        text = text[:limit] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"\\u{{{ord(c):x}}}" if (category(c) in _HIDDEN_CATEGORIES and c != " ") or c in _INVISIBLE else c for c in text
    )


def above(path: str) -> str:
    """The folder that holds ``path`` ("" at the top), also of a path with a trailing slash."""
    return path.removesuffix("/").rpartition("/")[0]


def broken_rule(path: str) -> str | None:
    """The first rule that ``path`` breaks, as the end of a sentence ("it is absolute"); None when it is a good name."""
    if len(path) > PATH_MAX_BYTES:
        return f"it is longer than {PATH_MAX_BYTES} bytes"
    if not path:
        return "it is empty"
    if path[0] == "/":
        return "it is absolute"
    parts = path.split("/")
    if len(parts) > PATH_MAX_PARTS:
        return f"it has more than {PATH_MAX_PARTS} parts"
    for part in parts:
        if rule := broken_part(part):
            return rule
    # Parts are within their own limit here, so only the whole path can still be too long.
    if not path.isascii() and len(path.encode()) > PATH_MAX_BYTES:
        return f"it is longer than {PATH_MAX_BYTES} bytes"
    return None


def broken_part(part: str) -> str | None:
    """``broken_rule`` of one part of a path."""
    return None if _PLAIN.fullmatch(part) else _judge(part)


def _judge(part: str) -> str | None:
    if not part:
        return "it has an empty part"
    if part in (".", ".."):
        return f"it has the part {part}"
    for character in part:
        if character == "\\":
            return "it holds a backslash"
        if character == ":":
            return "it holds a colon, which names a drive or a stream on Windows"
        if rule := _REFUSED_CATEGORIES.get(category(character)):
            return rule
        if character in _INVISIBLE:
            return "it holds an invisible or direction-changing character"
        if ord(character) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(character) <= 0xFDEF:
            return "it holds a code point that is not a character"
    if len(part.encode()) > PART_MAX_BYTES:
        return f"a part is longer than {PART_MAX_BYTES} bytes"
    if part[-1] == "." or category(part[-1]) == "Zs":
        return "a part ends in a dot or a space"
    if part.split(".", 1)[0].rstrip().lower() in _DEVICES:
        return "a part is the name of a Windows device"
    if collision_key(part).startswith(OWN_PREFIX):
        return f"names that begin with {OWN_PREFIX} are reserved"
    if not is_normalized("NFC", part):
        return "it is not in Unicode form NFC"
    return None


def check_path(path: str) -> None:
    """Accept the path of a file (no trailing slash).

    Raises:
        RefusedError: ``hostile-name``; the message holds the escaped name and the rule.
    """
    if rule := broken_rule(path):
        raise RefusedError("hostile-name", f"The name “{escape(path, limit=200)}” is refused: {rule}.")


def check_paths(paths: Iterable[str]) -> None:
    """``check_path`` of many, faster: a folder is judged once for each run. A path that ends in ``/`` is an empty folder.

    Raises:
        RefusedError: ``hostile-name``.
    """
    known = ""
    plain = _PLAIN.fullmatch
    for path in paths:
        folder, slash, name = path.rpartition("/")
        # 1,024 characters are at most 4,096 bytes.
        if plain(name) and (not slash or (folder and folder == known)) and len(path) <= PATH_MAX_BYTES // 4:
            continue
        check_path(path[:-1] if path.endswith("/") else path)
        known = folder


def collision_key(path: str) -> str:
    """Equal for two paths that some file system takes for one.

    Canonical caseless matching (Unicode D145) without the code points that ext4 ignores; upper case first, because the tables
    of NTFS fold by upper case.
    """
    if path.isascii():
        return path.lower()
    return normalize("NFD", normalize("NFD", _VARIATION.sub("", path)).upper().casefold())


def check_collisions(paths: Sequence[str]) -> None:
    """Refuse a set of paths of which two would meet in one place.

    Memory: 16 bytes a path beside the folders' names. Keys are compared by Python's keyed hash first, exactly only on a match.

    Raises:
        RefusedError: ``name-collision``; the message names both.
    """
    for first, second in collisions(paths):
        raise RefusedError(
            "name-collision",
            f"The names “{escape(first, limit=200)}” and “{escape(second, limit=200)}” would be one on some systems.",
        )


def collisions(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs that collide: (the one that came first, a later one). A folder is named with a trailing slash."""
    out: list[tuple[str, str]] = []
    folders = _folders(paths, out)
    column = np.fromiter((hash(key) for key in _entry_keys(paths)), dtype=np.int64, count=len(paths))
    ordered = np.sort(column)
    suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    places = np.fromiter((hash(key) for key in folders), dtype=np.int64, count=len(folders))
    suspects.update(np.intersect1d(ordered, places).tolist())
    if not suspects:
        return out
    first: dict[str, int] = {}
    for index in np.flatnonzero(np.isin(column, np.fromiter(suspects, np.int64, len(suspects)))).tolist():
        path = paths[index]
        key = collision_key(path.removesuffix("/"))
        if key in folders:
            out.append((folders[key] + "/", path))
        elif (known := first.setdefault(key, index)) != index:
            out.append((paths[known], path))
    return out


def _folders(paths: Sequence[str], out: list[tuple[str, str]]) -> dict[str, str]:
    """Collision key -> spelling of every folder that holds something; adds folders spelled in two ways to ``out``."""
    folders: dict[str, str] = {}
    seen: set[str] = set()
    for folder in {above(path) for path in paths}:
        while folder and folder not in seen:
            seen.add(folder)
            known = folders.setdefault(collision_key(folder), folder)
            if known != folder:
                out.append((min(known, folder) + "/", max(known, folder) + "/"))
            folder = folder.rpartition("/")[0]
    return folders


def _entry_keys(paths: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(paths), _BLOCK):
        block = paths[start : start + _BLOCK]
        text = "\0".join(block)
        # One call for the block where all of it is plain; no path on any disk holds a NUL.
        keys = text.lower().split("\0") if text.isascii() and "/\0" not in text and text[-1:] != "/" else ()
        yield from keys if len(keys) == len(block) else (collision_key(path.removesuffix("/")) for path in block)
