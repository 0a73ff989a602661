"""Datasets on this computer's own disk, without a node: what a folder would share, and checking it against a list of digests.

It lists as a share would list and reads as a share would read, so what is shown here is what recipients would get. Nothing of
it is recorded: no data changes hands. Checking what was received against its manifest is left to ``rechecking``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from labxchange.dataset.check import Finding, FindingKind, Findings, NotRun, Report
from labxchange.dataset.listing import ListedFile
from labxchange.dataset.names import broken_rule, escape
from labxchange.errors import InputError
from labxchange.files.disk_errors import mapping
from labxchange.files.hashing import FileHash, hash_files
from labxchange.files.scan import Scan, scan
from labxchange.node.values import Value

Advance = Callable[[int], None]

_KINDS_SHOWN = 10
_SUMS_MAX_BYTES = 1 << 30
_DIGEST = "[0-9a-fA-F]{64}"
_GNU = re.compile(rf"(\\?)({_DIGEST}) [ *](.+)")
_BSD = re.compile(rf"(\\?)SHA256 \((.+)\) = ({_DIGEST})")


class DatasetFile(Value, frozen=True, kw_only=True):
    """One file; ``sha256`` is empty when it was not read, ``reason`` says why it could not be."""

    path: str
    size: int
    modified: int
    sha256: str = ""
    reason: str = ""


class DatasetShown(Value, frozen=True, kw_only=True):
    """What sharing these paths would share. ``kinds`` counts the commonest endings of names; ``listed`` is filled when asked."""

    files: int
    folders_empty: int
    bytes: int
    newest: int
    kinds: tuple[tuple[str, int], ...]
    skipped: tuple[tuple[str, str], ...]
    unread: int
    listed: tuple[DatasetFile, ...]


def show_dataset(
    paths: Sequence[Path], *, listed: bool = False, digests: bool = False, advance: Advance | None = None
) -> DatasetShown:
    """List ``paths`` as a share would.

    Args:
        listed: give every file.
        digests: read every file, and give its SHA-256.
        advance: told the number of bytes read since the last call, from worker threads.

    Raises:
        LabxchangeError: as ``files.scan``.
    """
    found = scan(paths)
    results = _hashed(found, advance=advance) if digests else {}
    shown = []
    if listed or digests:
        shown = [_shown(file, results.get(index)) for index, file in enumerate(found.files)]
    return _summary(found, shown)


def _summary(found: Scan, shown: Sequence[DatasetFile]) -> DatasetShown:
    real = [file for file in found.files if not file.is_folder]
    kinds = Counter(Path(file.path).suffix.lower() or "no ending" for file in real)
    return DatasetShown(
        files=len(real),
        folders_empty=len(found.files) - len(real),
        bytes=sum(file.size for file in real),
        newest=max((file.mtime_ms for file in real), default=0),
        kinds=tuple(kinds.most_common(_KINDS_SHOWN)),
        skipped=tuple((item.path, item.reason) for item in found.skipped),
        unread=sum(bool(file.reason) for file in shown),
        listed=tuple(shown),
    )


def _shown(file: ListedFile, result: FileHash | str | None) -> DatasetFile:
    base = DatasetFile(path=file.path, size=file.size, modified=file.mtime_ms)
    if result is None or file.is_folder:
        return base
    digest, reason = (result.sha256.hex(), "") if isinstance(result, FileHash) else ("", result)
    return DatasetFile(path=file.path, size=file.size, modified=file.mtime_ms, sha256=digest, reason=reason)


def _hashed(found: Scan, *, indices: Sequence[int] | None = None, advance: Advance | None = None) -> dict[int, FileHash | str]:
    groups = hash_files(found.sources, found.files, indices=indices, advance=advance)
    return {item.file: item.result for group in groups for item in group}


def total_bytes(paths: Sequence[Path]) -> int:
    """How much there is to read, for a progress bar."""
    return sum(file.size for file in scan(paths).files)


def read_sums(sums: Path) -> dict[str, str]:
    """Paths and SHA-256 digests of a list in the form of ``sha256sum`` or ``shasum --tag``.

    Raises:
        InputError: ``sums-malformed`` names the line; ``sums-twice``.
    """
    with mapping(str(sums)), sums.open("rb") as stream:
        text = stream.read(_SUMS_MAX_BYTES).decode("utf-8", errors="surrogateescape")
    out: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip() or line.startswith("#"):
            continue
        path, digest = _sum(line, number)
        if out.get(path, digest) != digest:
            raise InputError("sums-twice", f"Line {number} of the list gives “{escape(path, limit=200)}” a second digest.")
        out[path] = digest
    if not out:
        raise InputError("sums-malformed", "The list of digests is empty.")
    return out


def _sum(line: str, number: int) -> tuple[str, str]:
    if found := _GNU.fullmatch(line):
        mark, digest, name = found.groups()
    elif found := _BSD.fullmatch(line):
        mark, name, digest = found.groups()
    else:
        raise InputError(
            "sums-malformed",
            f"Line {number} of the list is not a SHA-256 digest and a name.",
            hint="The list has the form that `sha256sum` writes.",
        )
    if mark:
        name = re.sub(r"\\([\\nr])", lambda escaped: {"n": "\n", "r": "\r"}.get(escaped[1], escaped[1]), name)
    return name.removeprefix("./"), digest.lower()


def check_against_sums(folder: Path, sums: Path, *, advance: Advance | None = None) -> Report:
    """Read the files of ``folder`` and compare them with a list of digests; the list itself may lie in the folder.

    Raises:
        InputError: of ``read_sums`` and ``scan``; ``not-a-folder``.
    """
    if not folder.is_dir():
        raise InputError("not-a-folder", f"“{escape(str(folder))}” is not a folder.")
    wanted = read_sums(sums)
    scanned = scan([folder])
    places = {file.path: index for index, file in enumerate(scanned.files) if not file.is_folder}
    skipped = {item.path: item.reason for item in scanned.skipped}
    own = _inside(folder, sums)
    found = Findings()
    results = _hashed(scanned, indices=sorted(places[path] for path in wanted if path in places), advance=advance)
    for path, digest in sorted(wanted.items()):
        if path in places:
            file = scanned.files[places[path]]
            finding = _compare(path, digest, results[places[path]])
            found.add(finding) if finding else found.match(file.size)
        else:
            found.add(_absent(path, skipped))
    for path in places:
        if path not in wanted and path != own:
            found.add(Finding(path=path, kind=FindingKind.UNEXPECTED, text="It is not listed."))
    not_run = [
        NotRun("size of each file", "a list of digests has no sizes"),
        NotRun("place of the first difference in a file", "a list of digests has none for parts"),
    ]
    if scanned.skipped:
        not_run.append(NotRun("links and special files", f"they are not followed: {len(scanned.skipped):,} were passed over"))
    return found.report(
        checks_run=("every listed file is there", "SHA-256 of each file", "no file that is not listed"),
        checks_not_run=tuple(not_run),
    )


def _inside(folder: Path, sums: Path) -> str:
    try:
        return sums.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return ""


def _compare(path: str, expected: str, result: FileHash | str) -> Finding | None:
    if isinstance(result, str):
        return Finding(path=path, kind=FindingKind.ERROR, text=f"It could not be read: {result}.")
    got = result.sha256.hex()
    if got == expected:
        return None
    return Finding(path=path, kind=FindingKind.DIFFER, expected=expected, got=got, text="Its bytes differ (SHA-256).")


def _absent(path: str, skipped: dict[str, str]) -> Finding:
    shown = escape(path)
    if why := skipped.get(shown):
        return Finding(path=shown, kind=FindingKind.ERROR, text=f"It was not read: {why}.")
    if rule := broken_rule(path):
        return Finding(path=shown, kind=FindingKind.ERROR, text=f"Its name is refused: {rule}.")
    return Finding(path=shown, kind=FindingKind.MISSING, text="It is not there.")
