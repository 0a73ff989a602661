"""Processes of one side of a measurement: start them where they belong, add up their CPU time and memory, end them.

CPU time is user and system time of the whole tree below each started process, ended and reaped children included (what ``/proc``
says while it runs, what ``wait4`` said when it ended). Memory is anonymous and file pages (RssAnon + RssFile): pages of a tmpfs
that a program maps are data, not its memory. Only processes that were started here are ever signalled.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

_TICKS = os.sysconf("SC_CLK_TCK")
_END_S = 5.0


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Whom processes run as: ``prefix`` before a command makes it so."""

    uid: int
    gid: int
    prefix: tuple[str, ...]
    said: str


def _table() -> dict[int, tuple[int, float]]:
    """pid -> (parent, CPU seconds with its reaped children)."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
                found[int(name)] = (int(fields[1]), sum(map(int, fields[11:15])) / _TICKS)
    return found


def _below(roots: Sequence[int], table: dict[int, tuple[int, float]]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found, left = [], [pid for pid in roots if pid in table]
    while left:
        pid = left.pop()
        found.append(pid)
        left += children.get(pid, [])
    return found


def resident_bytes(pid: int) -> int:
    """Memory of one process; 0 when it has ended."""
    total = 0
    with contextlib.suppress(OSError):
        for line in Path("/proc", str(pid), "status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssFile:")):
                total += int(line.split()[1]) << 10
    return total


def machine_busy_s() -> float:
    """Seconds that all cores together have worked since the machine started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS


class Process:
    """One started command; ``code`` when it has ended."""

    def __init__(self, words: Sequence[str], *, log: Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd, env=env, start_new_session=True
            )
        self.pid = self._popen.pid
        self.code: int | None = None
        self.cpu_s = 0.0
        """Of the whole tree, once it has ended."""

    def ended(self) -> bool:
        if self.code is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.code = self._popen.returncode = os.waitstatus_to_exitcode(status)
                self.cpu_s = usage.ru_utime + usage.ru_stime
        return self.code is not None

    def wait(self, timeout_s: float) -> None:
        """Until it ends, to the millisecond, or until the time is over."""
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            try:
                select.select([descriptor], [], [], timeout_s)
            finally:
                os.close(descriptor)

    def stop(self) -> None:
        """SIGTERM to its session, SIGKILL to what stays, and wait."""
        members = _below([self.pid], _table())
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + _END_S
            while not self.ended() and time.monotonic() < deadline:
                time.sleep(0.02)
            members = [pid for pid in members if Path("/proc", str(pid)).exists()]


class Side:
    """The processes of one host, and what they have used since ``begin``."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self._before_s = 0.0
        self.peak_sum_bytes = 0
        self.peak_process_bytes = 0

    def start(self, words: Sequence[str], *, log: Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> Process:
        process = Process(words, log=log, cwd=cwd, env=env)
        self.processes.append(process)
        return process

    def begin(self) -> None:
        """The clock starts: what was used until now does not count."""
        self._before_s = self._cpu_s()
        self.peak_sum_bytes = self.peak_process_bytes = 0

    def look(self, table: dict[int, tuple[int, float]]) -> None:
        """Remember the memory, if it is the highest."""
        sizes = [resident_bytes(pid) for pid in _below([process.pid for process in self.processes], table)]
        self.peak_sum_bytes = max(self.peak_sum_bytes, sum(sizes))
        self.peak_process_bytes = max(self.peak_process_bytes, max(sizes, default=0))

    def cpu_s(self) -> float:
        """CPU seconds since ``begin``."""
        return max(self._cpu_s() - self._before_s, 0.0)

    def _cpu_s(self) -> float:
        ended = sum(process.cpu_s for process in self.processes if process.ended())
        table = _table()
        live = _below([process.pid for process in self.processes if process.code is None], table)
        return ended + sum(table[pid][1] for pid in live)

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()


def sample(sides: Iterable[Side]) -> None:
    """Look at the memory of all sides; to be called a few times a second."""
    table = _table()
    for side in sides:
        side.look(table)
