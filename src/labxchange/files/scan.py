"""Reading a folder, or some files and folders, into a sorted list of files - fast, and without following links.

One folder gives its contents; several files and folders are listed by their names. Links, sockets, FIFOs and devices are not
followed: they are named in ``skipped``, like names that no receiver would take (``dataset.names``) and names that would meet in
one place. A name in decomposed form (macOS) is listed in form NFC and found again under its own. A folder or file that the
person may not read is an error that names it. Hashing is left to ``hashing``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from unicodedata import is_normalized, normalize

import msgspec

from labxchange.dataset.listing import ListedFile, listed_file
from labxchange.dataset.names import PATH_MAX_BYTES, PATH_MAX_PARTS, broken_part, broken_rule, collisions, escape
from labxchange.errors import InputError, LabxchangeError
from labxchange.files.confined import FOLDER_FLAGS, Folders
from labxchange.files.disk_errors import check_place, mapped, mapping

_KINDS: Final = {
    stat.S_IFLNK: "it is a link",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFIFO: "it is a FIFO",
    stat.S_IFBLK: "it is a device",
    stat.S_IFCHR: "it is a device",
}
_PROGRESS_FILES: Final = 10_000


class Skipped(NamedTuple):
    """Something that is not in the listing: its path in printable form, and why, as the end of a sentence."""

    path: str
    reason: str


class Sources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where listed files lie on this disk; plain text, so that a store can keep it.

    Attributes:
        folder: the one folder whose contents are listed; empty when ``items`` are.
        items: first part of a listed path -> absolute path of that file or folder.
        renamed: listed path -> path below its root, for the few names whose form differs.
    """

    folder: str = ""
    items: dict[str, str] = {}
    renamed: dict[str, str] = {}

    def locate(self, path: str) -> tuple[str, str]:
        """(absolute root folder, path below it) of a listed path; raises KeyError."""
        if self.folder:
            return self.folder, self.renamed.get(path, path)
        first, _, rest = path.partition("/")
        item = self.items[first]
        if rest:
            return item, self.renamed.get(path, rest)
        folder, _, name = item.rpartition("/")
        return folder or "/", name


class Scan(NamedTuple):
    """What a scan found: files in listing order, where they are, and what was not taken."""

    files: list[ListedFile]
    sources: Sources
    skipped: list[Skipped]


def scan(paths: Sequence[Path], *, progress: Callable[[int], None] | None = None) -> Scan:
    """Read ``paths``: one folder (its contents), or files and folders (by their names).

    Args:
        paths: what a person chose; a link among them is resolved, links below are not.
        progress: called with the number of files found so far, each 10,000.

    Raises:
        InputError: ``nothing-to-share``, ``not-permitted``, ``not-a-file``, ``same-name``, ``hostile-name``.
        UnavailableError: ``file-missing``, ``disk-error``.
    """
    if not paths:
        raise InputError("nothing-to-share", "Name at least one file or folder.")
    walk = _Walk(progress)
    resolved = [(_resolve(path), path) for path in paths]
    if len(resolved) == 1 and resolved[0][0].is_dir():
        root = resolved[0][0]
        walk.folder(root, "")
        sources = Sources(folder=str(root), renamed=walk.renamed)
    else:
        items: dict[str, str] = {}
        for absolute, given in resolved:
            name = normalize("NFC", Path(os.path.abspath(given.expanduser())).name or absolute.name)
            if rule := broken_rule(name):
                raise InputError("hostile-name", f"“{escape(name, limit=200)}” cannot be shared: {rule}.", hint="Rename it.")
            if name in items:
                raise InputError("same-name", f"Two of the things to share are named “{escape(name)}”.", hint="Share a folder.")
            items[name] = str(absolute)
            if absolute.is_dir():
                walk.folder(absolute, name + "/")
            else:
                walk.single(absolute, name)
        sources = Sources(items=items, renamed=walk.renamed)
    walk.files.sort(key=_path)
    return Scan(_without_collisions(walk.files, walk.skipped), sources, walk.skipped)


def open_source(sources: Sources, path: str) -> int:
    """Open a listed file for reading, confined to its root; the descriptor is the caller's.

    Raises:
        InputError: ``not-permitted``, ``is-a-link``, ``not-a-file``.
        UnavailableError: ``file-missing``, ``disk-error``.
    """
    try:
        root, relative = sources.locate(path)
    except KeyError:
        raise InputError("not-listed", f"“{escape(path, limit=300)}” is not among what is shared.") from None
    with mapping(path):
        top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with Folders(top) as folders:
                descriptor = folders.open_file(relative)
        finally:
            os.close(top)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError("not-a-file", f"“{escape(path, limit=300)}” is not a regular file.")
    return descriptor


def _path(file: ListedFile) -> str:
    return file.path


def _resolve(path: Path) -> Path:
    check_place(path)
    with mapping(str(path)):
        try:
            absolute = path.expanduser().resolve(strict=True)
        except RuntimeError:  # a loop of links, or a home that nobody has
            raise InputError("is-a-link", f"“{escape(str(path), limit=300)}” leads nowhere.") from None
    try:
        str(absolute).encode()
    except UnicodeEncodeError:
        raise InputError("hostile-name", f"The path of “{escape(str(path))}” is not UTF-8 text.", hint="Rename it.") from None
    return absolute


def _readable(info: os.stat_result, name: str, folder: int) -> bool:
    """False when the person surely may not read the file; the bits are asked first, they cost nothing."""
    if info.st_uid == os.geteuid() and info.st_mode & stat.S_IRUSR:
        return True
    return os.access(name, os.R_OK, dir_fd=folder, effective_ids=os.access in os.supports_effective_ids)


def _without_collisions(files: list[ListedFile], skipped: list[Skipped]) -> list[ListedFile]:
    """Leave out both of a pair that would be one name elsewhere: to take one of them silently would be worse."""
    pairs = collisions([file.path for file in files])
    if not pairs:
        return files
    bad: dict[str, str] = {}
    for first, second in pairs:
        bad[first], bad[second] = second, first
    folders = tuple(name for name in bad if name.endswith("/"))
    kept = []
    for file in files:
        name = file.path if file.path in bad else next((folder for folder in folders if file.path.startswith(folder)), None)
        if name is None:
            kept.append(file)
        else:
            skipped.append(Skipped(escape(file.path), f"“{escape(name)}” and “{escape(bad[name])}” would be one on some systems"))
    return kept


class _Walk:
    """Collects files folder by folder; folders wait on a stack as relative paths, so few descriptors are open at a time."""

    def __init__(self, progress: Callable[[int], None] | None) -> None:
        self.files: list[ListedFile] = []
        self.skipped: list[Skipped] = []
        self.renamed: dict[str, str] = {}
        self._progress = progress
        self._prefix = ""

    def single(self, absolute: Path, listed: str) -> None:
        with mapping(str(absolute)):
            folder = os.open(absolute.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                info = os.stat(absolute.name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISREG(info.st_mode):
                    raise InputError("not-a-file", f"“{escape(str(absolute))}” is neither a file nor a folder.")
                self._take(listed, info, absolute.name, folder)
            finally:
                os.close(folder)

    def folder(self, root: Path, prefix: str) -> None:
        """Walk ``root``; listed paths begin with ``prefix``, paths on disk are below ``root``."""
        self._prefix = prefix
        with mapping(str(root)):
            top = os.open(root, FOLDER_FLAGS)
        try:
            with Folders(top) as folders:
                stack = [("", prefix)]
                while stack:
                    below, listed = stack.pop()
                    try:
                        self._one(folders.descriptor(below), below, listed, stack)
                    except OSError as error:
                        self._failed(error, listed, str(root) + "/" + below)
        finally:
            os.close(top)

    def _failed(self, error: OSError, listed: str, place: str) -> None:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            self.skipped.append(Skipped(escape(listed), "it was removed during the scan"))
            return
        raise mapped(error, place) from error

    def _one(self, folder: int, below: str, listed: str, stack: list[tuple[str, str]]) -> None:
        """One folder: its files to the list, its folders to the stack."""
        empty = True
        on_disk = below + "/" if below else ""
        with os.scandir(folder) as entries:
            for entry in entries:
                empty = False
                name = entry.name
                if not name.isascii() and not is_normalized("NFC", name):
                    name = normalize("NFC", name)
                path = listed + name
                # The folder's name is judged already; 1,024 characters are at most 4,096 bytes.
                if rule := broken_part(name) or (broken_rule(path) if len(path) > PATH_MAX_BYTES // 4 else None):
                    self.skipped.append(Skipped(escape(path), rule))
                elif entry.is_dir(follow_symlinks=False):
                    if path.count("/") + 1 >= PATH_MAX_PARTS:
                        self.skipped.append(Skipped(escape(path), f"it has more than {PATH_MAX_PARTS} parts"))
                    else:
                        stack.append((on_disk + entry.name, path + "/"))
                else:
                    self._file(entry, path, on_disk + entry.name, folder)
        if empty and listed:
            if listed != self._prefix + on_disk:
                self.renamed[listed] = below
            self.files.append(listed_file(listed, 0, max(0, os.fstat(folder).st_mtime_ns // 1_000_000)))

    def _file(self, entry: os.DirEntry[str], path: str, on_disk: str, folder: int) -> None:
        try:
            info = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            self.skipped.append(Skipped(escape(path), "it was removed during the scan"))
            return
        if not stat.S_ISREG(info.st_mode):
            self.skipped.append(Skipped(escape(path), _KINDS.get(stat.S_IFMT(info.st_mode), "it is not a file")))
            return
        self._take(path, info, entry.name, folder)
        if path != self._prefix + on_disk:
            self.renamed[path] = on_disk

    def _take(self, path: str, info: os.stat_result, name: str, folder: int) -> None:
        if not _readable(info, name, folder):
            raise _denied(path)
        self.files.append(listed_file(path, info.st_size, info.st_mtime_ns // 1_000_000))
        if self._progress is not None and len(self.files) % _PROGRESS_FILES == 0:
            self._progress(len(self.files))


def _denied(path: str) -> LabxchangeError:
    return InputError("not-permitted", f"You may not read “{escape(path, limit=300)}”.", hint="Check its owner and permissions.")
