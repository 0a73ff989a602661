"""A disk that loses its power, rebuilt from a recording of a process's system calls (``strace -f -y -xx``).

The model is as strict as POSIX allows. A write is on the disk only once a later ``fsync``, ``fdatasync`` or ``syncfs`` of it
has returned; until then it may be there, be missing, or be torn at a sector, each apart from the others. A name is on the disk
only once its folder was synced. A rename is atomic; but after a move from folder to folder the new name is there once the new
folder was synced, and the old one may stay until after that the old folder is synced too. Times and modes are there only after
``fsync``. ``Recording.cuts`` replays the calls, and each ``Cut`` gives any number of disks that could be found after a power loss
at that moment.

A write to ``/dev/null`` of the recorded process is a mark: what the process vouched for by then, or the name of the place in the
source from which the next sync is called (``Recording`` can be told to ignore the syncs of one place, as if it were not there).
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CALLS = (
    "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,truncate,ftruncate,fallocate,fsync,fdatasync,syncfs,sync,"
    "sync_file_range,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,"
    "fchmod,chmod,fchmodat,utimensat,copy_file_range,sendfile"
)
STRACE = ("strace", "-f", "-y", "-xx", "-s", "1048576", "--seccomp-bpf", "-e", f"trace={CALLS}", "-e", "signal=none", "-qq")

_WHOLE = re.compile(r"(\d+) +(\w+)\((.*)\)\s+= (-?\d+|\?)")
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*?),? ?<unfinished \.\.\.>$")
_ENDED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>,? ?(.*)\)\s+= (-?\d+|\?)")
_ARGUMENT = re.compile(r'(?:(-?\d+|AT_FDCWD)<([^>]*)>)|"([^"]*)"|(\[.*?\](?= *[,)]|$))|([^,\s]+)')
_SYNCS = ("fsync", "fdatasync", "syncfs", "sync")


@dataclass(eq=False)
class Write:
    """A change of one file: bytes at an offset, a size, or what only ``fsync`` keeps (mode and time)."""

    file: File
    offset: int = 0
    data: bytes | None = None
    size: int | None = None
    mode: int | None = None
    mtime_ns: int | None = None
    done: bool = False


@dataclass(eq=False)
class Naming:
    """A change of names: ``gone`` and ``new`` are (folder, name); it is not on the disk before ``needs`` is."""

    gone: tuple[File, str] | None
    new: tuple[File, str] | None
    file: File
    needs: Naming | None = None
    done: bool = False

    def touches(self, folder: File) -> bool:
        return any(side is not None and side[0] is folder for side in (self.gone, self.new))


@dataclass(eq=False)
class File:
    """A file or folder: what the disk holds for sure, and what the system shows now."""

    is_folder: bool
    data: bytearray = field(default_factory=bytearray)
    mode: int = 0o600
    mtime_ns: int = 0
    names: dict[str, File] = field(default_factory=dict)
    live_names: dict[str, File] = field(default_factory=dict)
    live_size: int = 0
    pending: list[Write] = field(default_factory=list)


Change = Write | Naming
Keep = Callable[[Change], bool]


@dataclass(frozen=True)
class Call:
    """One system call: its thread, arguments as (descriptor's path or text), and result."""

    thread: int
    name: str
    arguments: list[tuple[str, str]]
    result: int


@dataclass(frozen=True)
class Event:
    """The beginning or the end of a call."""

    call: Call
    begins: bool
    ends: bool


def _decode(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode(errors="surrogateescape") if "\\x" in text else text


def _arguments(text: str) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for descriptor, path, string, group, word in _ARGUMENT.findall(text):
        if descriptor:
            out.append(("path", _decode(path)))
        elif string:
            out.append(("text", string))
        else:
            out.append(("word", group or word))
    return out


def events(path: Path) -> list[Event]:
    """All calls of a recording in the order in which they began and ended."""
    out: list[Event] = []
    open_calls: dict[tuple[int, str], tuple[int, str]] = {}
    with path.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            if found := _WHOLE.match(line):
                result = int(found[4]) if found[4] != "?" else -1
                out.append(Event(Call(int(found[1]), found[2], _arguments(found[3]), result), begins=True, ends=True))
            elif found := _BEGUN.match(line.rstrip()):
                open_calls[int(found[1]), found[2]] = (len(out), found[3])
                out.append(Event(Call(int(found[1]), found[2], [], -1), begins=True, ends=False))
            elif found := _ENDED.match(line):
                begun = open_calls.pop((int(found[1]), found[2]), None)
                if begun is None:
                    continue
                at, text = begun
                result = int(found[4]) if found[4] != "?" else -1
                call = Call(int(found[1]), found[2], _arguments(text + (", " + found[3] if found[3] else "")), result)
                out[at] = Event(call, begins=True, ends=False)
                out.append(Event(call, begins=False, ends=True))
    return out


class Cut:
    """The moment of a power loss: what is on the disk for sure, what may be, and what had been vouched for."""

    def __init__(
        self, number: int, root: File, namings: list[Naming], owed: set[Change], marks: list[dict[str, Any]], *, after: str
    ) -> None:
        self.number = number
        self.marks = marks
        self.after = after
        """``names``, ``bytes``, ``sync`` and its place, or ``mark`` and its first word."""
        self.owed = owed
        """What would be on the disk for sure, had no sync been left out."""
        self._root = root
        self._namings = namings

    def rebuild(self, target: Path, chance: random.Random | None) -> None:
        """Write one possible disk into ``target``: nothing unsynced without ``chance``, else what chance keeps, torn."""
        self._rebuild(target, (lambda change: False) if chance is None else _keeper(chance), chance)

    def rebuild_without(self, target: Path, lost: Collection[Change]) -> None:
        """Write the disk that holds all but what is ``lost``, though nothing of it may be synced."""
        self._rebuild(target, lambda change: change not in lost, None)

    def _rebuild(self, target: Path, keep: Keep, chance: random.Random | None) -> None:
        names: dict[File, dict[str, File]] = {}
        missing: set[Naming] = set()
        for naming in self._namings:
            if naming.needs in missing or not keep(naming):
                missing.add(naming)
                continue
            if naming.gone is not None:
                folder, name = naming.gone
                here = names.setdefault(folder, dict(folder.names))
                if here.get(name) is naming.file:
                    del here[name]
            if naming.new is not None:
                folder, name = naming.new
                names.setdefault(folder, dict(folder.names))[name] = naming.file
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700)
        self._write_folder(self._root, target, names, {}, keep, chance)

    def _write_folder(
        self,
        folder: File,
        target: Path,
        names: dict[File, dict[str, File]],
        written: dict[File, Path],
        keep: Keep,
        chance: random.Random | None,
    ) -> None:
        for name, file in names.get(folder, folder.names).items():
            path = target / name
            if file.is_folder:
                path.mkdir(mode=0o700)
                self._write_folder(file, path, names, written, keep, chance)
                path.chmod(file.mode & 0o777)
                continue
            if file in written:
                os.link(written[file], path)
                continue
            written[file] = path
            data, mode, mtime_ns = bytearray(file.data), file.mode, file.mtime_ns
            for write in file.pending:
                if not keep(write):
                    continue
                if write.size is not None:
                    _resize(data, write.size)
                elif write.data is not None:
                    for offset, piece in _torn(write, chance):
                        _put(data, offset, piece)
                else:
                    mode = write.mode if write.mode is not None else mode
                    mtime_ns = write.mtime_ns if write.mtime_ns is not None else mtime_ns
            path.write_bytes(data)
            path.chmod(mode)
            os.utime(path, ns=(mtime_ns, mtime_ns))


def _keeper(chance: random.Random) -> Keep:
    share = chance.choice((0.1, 0.5, 0.9))
    return lambda change: chance.random() < share


def _torn(write: Write, chance: random.Random | None) -> Iterator[tuple[int, bytes]]:
    """The sectors of a write that reached the disk."""
    assert write.data is not None
    if chance is None or chance.random() < 0.5:
        yield write.offset, write.data
        return
    sector, share = chance.choice((512, 4096)), chance.random()
    start = write.offset
    end = start + len(write.data)
    while start < end:
        stop = min(end, start - start % sector + sector)
        if chance.random() < share:
            yield start, write.data[start - write.offset : stop - write.offset]
        start = stop


def _resize(data: bytearray, size: int) -> None:
    if size < len(data):
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))


def _put(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


class Recording:
    """The calls of one process below one folder.

    Args:
        root: the folder as the process named it; it was there, and empty, when the recording began.
        without: the place (as a mark names it) whose syncs are left out.
    """

    def __init__(self, calls: list[Event], root: Path, *, without: str = "") -> None:
        self.sites: dict[str, int] = {}
        self._events = calls
        self._prefix = str(root)
        self._without = without
        self._root = File(is_folder=True, mode=0o700)
        self._files: set[File] = set()
        self._namings: list[Naming] = []
        self._marks: list[dict[str, Any]] = []
        self._site: dict[int, str] = {}
        self._running: dict[tuple[int, str], Any] = {}
        self._synced = ""
        self._owed: set[Change] = set()

    def cuts(self) -> Iterator[Cut]:
        """The moment after each call that changes or syncs something, and after each mark."""
        number = 0
        for event in self._events:
            marks, namings = len(self._marks), len(self._namings)
            if self._take(event):
                number += 1
                after = "names" if len(self._namings) > namings else "bytes"
                after = f"sync {self._synced}" if event.call.name in _SYNCS else after
                after = f"mark {next(iter(self._marks[-1]))}" if len(self._marks) > marks else after
                yield Cut(number, self._root, self._namings, self._owed, self._marks, after=after)

    # --- replay -------------------------------------------------------------------------------------------------------
    def _take(self, event: Event) -> bool:
        call = event.call
        if call.name in _SYNCS:
            return self._sync(event)
        if event.begins and event.ends:
            changes = self._apply(call)
            for change in changes or ():
                change.done = True
            return changes is not None
        if event.begins:
            changes = self._apply(call)
            self._running[call.thread, call.name] = changes
            return changes is not None
        for change in self._running.pop((call.thread, call.name), None) or ():
            change.done = True
        return False

    def _inside(self, path: str) -> list[str] | None:
        if path == self._prefix:
            return []
        return path[len(self._prefix) + 1 :].split("/") if path.startswith(self._prefix + "/") else None

    def _find(self, path: str) -> File | None:
        parts = self._inside(os.path.normpath(path)) if path.startswith("/") else None
        if parts is None:
            return None
        file: File | None = self._root
        for part in parts:
            file = file.live_names.get(part) if file is not None else None
        return file

    def _place(self, call: Call, at: int) -> tuple[File, str] | None:
        """Folder and name of a path argument; ``at`` is the index of the text, after its folder's descriptor if it has one."""
        arguments = [item for item in call.arguments if item[0] in ("path", "text")]
        texts = [number for number, item in enumerate(arguments) if item[0] == "text"]
        number = texts[at]
        name = _decode(arguments[number][1])
        if not name.startswith("/"):
            if number == 0 or arguments[number - 1][0] != "path":
                return None
            name = f"{arguments[number - 1][1]}/{name}"
        folder = self._find(os.path.dirname(os.path.normpath(name)))
        return (folder, os.path.basename(os.path.normpath(name))) if folder is not None else None

    def _apply(self, call: Call) -> list[Any] | None:
        """Take the effect of a call into what the system shows; returns its unsynced changes, None when it is not ours."""
        if call.result < 0 and call.name != "write":
            return None
        name = call.name
        if name in ("write", "pwrite64"):
            return self._write(call)
        if name in ("openat", "open", "creat"):
            return self._open(call)
        if name in ("mkdir", "mkdirat"):
            return self._mkdir(call)
        if name in ("rename", "renameat", "renameat2"):
            return self._rename(call)
        if name in ("unlink", "unlinkat", "rmdir"):
            return self._unlink(call)
        if name in ("link", "linkat"):
            return self._link(call)
        if name in ("ftruncate", "truncate"):
            return self._truncate(call)
        if name in ("fchmod", "chmod", "fchmodat", "utimensat"):
            return self._settle(call)
        path = next((text for kind, text in call.arguments if kind == "path"), "")
        assert self._find(path) is None, f"the model does not know {name}, which changed {path}"
        return None

    def _change(self, file: File, **what: Any) -> list[Any]:
        write = Write(file, **what)
        file.pending.append(write)
        self._files.add(file)
        return [write]

    def _name(self, gone: tuple[File, str] | None, new: tuple[File, str] | None, file: File) -> list[Any]:
        if gone is not None:
            del gone[0].live_names[gone[1]]
        if new is not None:
            new[0].live_names[new[1]] = file
        if gone is None or new is None or gone[0] is new[0]:
            namings = [Naming(gone, new, file)]
        else:
            there = Naming(None, new, file)
            namings = [there, Naming(gone, None, file, needs=there)]
        self._namings += namings
        return list(namings)

    def _write(self, call: Call) -> list[Any] | None:
        kind, path = call.arguments[0]
        if path == "/dev/null":
            return self._mark(call)
        file = self._find(path) if kind == "path" else None
        if file is None:
            return None
        text = call.arguments[1][1]
        data = bytes.fromhex(text.replace("\\x", ""))
        assert call.result == len(data), "a short write"
        offset = int(call.arguments[3][1]) if call.name == "pwrite64" else file.live_size
        file.live_size = max(file.live_size, offset + len(data))
        return self._change(file, offset=offset, data=data)

    def _mark(self, call: Call) -> list[Any]:
        mark = json.loads(bytes.fromhex(call.arguments[1][1].replace("\\x", "")))
        if "site" in mark:
            self._site[call.thread] = mark["site"]
        else:
            self._marks.append(mark)
        return []

    def _open(self, call: Call) -> list[Any] | None:
        flags = next((text for kind, text in call.arguments if kind == "word" and "O_" in text), "")
        place = self._place(call, 0)
        if place is None:
            return None
        folder, name = place
        file = folder.live_names.get(name)
        if file is None:
            if "O_CREAT" not in flags:
                return None
            mode = int(call.arguments[-1][1], 8) & 0o777
            return self._name(None, place, File(is_folder=False, mode=mode & ~0o022))
        if "O_TRUNC" in flags:
            file.live_size = 0
            return self._change(file, size=0)
        return None

    def _mkdir(self, call: Call) -> list[Any] | None:
        place = self._place(call, 0)
        mode = int(call.arguments[-1][1], 8) & 0o777 & ~0o022
        return self._name(None, place, File(is_folder=True, mode=mode)) if place is not None else None

    def _rename(self, call: Call) -> list[Any] | None:
        old, new = self._place(call, 0), self._place(call, 1)
        if old is None or new is None:
            assert old is None
            assert new is None
            return None
        return self._name(old, new, old[0].live_names[old[1]])

    def _unlink(self, call: Call) -> list[Any] | None:
        place = self._place(call, 0)
        return self._name(place, None, place[0].live_names[place[1]]) if place is not None else None

    def _link(self, call: Call) -> list[Any] | None:
        old, new = self._place(call, 0), self._place(call, 1)
        return self._name(None, new, old[0].live_names[old[1]]) if old is not None and new is not None else None

    def _truncate(self, call: Call) -> list[Any] | None:
        kind, path = call.arguments[0]
        file = self._find(path if kind == "path" else _decode(path))
        if file is None:
            return None
        file.live_size = int(call.arguments[1][1])
        return self._change(file, size=file.live_size)

    def _settle(self, call: Call) -> list[Any] | None:
        kind, path = call.arguments[0]
        if call.name == "fchmodat" or (call.name == "utimensat" and call.arguments[1][1] != "NULL"):
            place = self._place(call, 0)
            file = place[0].live_names.get(place[1]) if place is not None else None
        else:
            file = self._find(path if kind == "path" else _decode(path))
        if file is None:
            return None
        if call.name == "utimensat":
            whole = " ".join(text for _, text in call.arguments)
            times = re.findall(r"tv_sec=(\d+)\D+tv_nsec=(\d+)", whole)
            assert times, f"a time that the model cannot read: {whole}"
            return self._change(file, mtime_ns=int(times[-1][0]) * 10**9 + int(times[-1][1]))
        mode = int(next(text for kind, text in reversed(call.arguments) if kind == "word" and text.startswith("0")), 8)
        if file.is_folder:
            file.mode = mode
            return []
        return self._change(file, mode=mode)

    # --- syncs --------------------------------------------------------------------------------------------------------
    def _sync(self, event: Event) -> bool:
        call = event.call
        if event.begins:
            self._running[call.thread, call.name] = self._covered(call)
        if not event.ends:
            return False
        covered = self._running.pop((call.thread, call.name), None)
        if covered is None or call.result != 0:
            return False
        site, writes, namings = covered
        self.sites[site] = self.sites.get(site, 0) + 1
        self._synced = site
        if site == self._without:
            self._owed |= {write for write in writes if write in write.file.pending}
            self._owed |= {naming for naming in namings if naming in self._namings}
            return True
        self._owed -= {*writes, *namings}
        for write in writes:
            if write in write.file.pending:
                write.file.pending.remove(write)
                self._keep(write)
        for naming in namings:
            if naming in self._namings:
                self._namings.remove(naming)
                if naming.gone is not None and naming.gone[0].names.get(naming.gone[1]) is naming.file:
                    del naming.gone[0].names[naming.gone[1]]
                if naming.new is not None:
                    naming.new[0].names[naming.new[1]] = naming.file
        return True

    def _covered(self, call: Call) -> tuple[str, list[Write], list[Naming]] | None:
        """What a sync that begins now makes durable: changes whose calls have returned."""
        site = self._site.pop(call.thread, "")
        kind, path = call.arguments[0] if call.arguments else ("path", self._prefix)
        file = self._find(path) if kind == "path" else None
        if file is None:
            return None
        site = site or f"sqlite {os.path.basename(path)}"
        if call.name in ("syncfs", "sync"):
            writes = [write for file in self._files for write in file.pending if write.done]
            return site, writes, [naming for naming in self._namings if naming.done]
        if file.is_folder:
            here = (naming for naming in self._namings if naming.done and naming.touches(file))
            return site, [], [naming for naming in here if naming.needs not in self._namings]
        contents = (write for write in file.pending if write.done)
        writes = [write for write in contents if call.name == "fsync" or write.mode is write.mtime_ns is None]
        return site, writes, []

    def _keep(self, write: Write) -> None:
        file = write.file
        if write.size is not None:
            _resize(file.data, write.size)
        elif write.data is not None:
            _put(file.data, write.offset, write.data)
        else:
            file.mode = write.mode if write.mode is not None else file.mode
            file.mtime_ns = write.mtime_ns if write.mtime_ns is not None else file.mtime_ns
