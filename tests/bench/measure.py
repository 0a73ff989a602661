"""Runs rows: makes the bytes, the path and the two sides, measures ours and the peers on them, and gives one value for each run.

Each run is alone: a fresh path, new processes, an empty destination on a tmpfs, and the comparison of every byte at the end. What
goes wrong in one run is written down there and the next one begins. Different repetitions lose different packets (the seed is
the repetition's number), the same ones for everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from labxchange.errors import LabxchangeError
from tests.bench import flow, payload
from tests.bench.memory import Held
from tests.bench.network import Network, socket_limits
from tests.bench.nodes import ROOT, BenchNode, Moved, Stuck, fetch, meet, offer, rate_at_the_end
from tests.bench.peers import Course, Peer
from tests.bench.processes import Account, Side, machine_busy_s, sample
from tests.bench.rows import GIB, MIB, TUNED_BYTES, Bar, Row, Verdict, bound_s, drops_allowed

OURS = "labxchange"
_SAMPLE_S = 0.25
_CUT_S = 5.0
_LARGE_PAGES = "huge=within_size"
"""Of a tmpfs: as large as a file has use for."""


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What one side used: CPU seconds for each GiB moved, and the highest memory of all its processes and of its largest one."""

    cpu_s_per_gib: float
    all_mib: float
    process_mib: float


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run. ``seconds`` is extrapolated where ``complete`` is false; ``busy`` and ``other`` are shares of all cores, ``other``
    being what neither side used (the emulator, the harness, other work). ``limited``: the socket buffers were the row's."""

    row: str
    what: str
    control: str
    repeat: int
    bytes: int
    files: int
    seconds: float = 0.0
    listed_s: float = 0.0
    complete: bool = False
    intact: bool = False
    goodput_mbit: float = 0.0
    sender: Use | None = None
    receiver: Use | None = None
    plane: str = ""
    plane_reason: str = ""
    datagrams_per_call: float | None = None
    spread: float | None = None
    share: float | None = None
    other_share: float | None = None
    limited: bool = False
    queue_drops: int | None = None
    late_packets: int | None = None
    busy: float = 0.0
    other: float = 0.0
    error: str = ""


def judge(row: Row, run: Run) -> list[Verdict]:
    """Every bar of the row against the run; a run that did not complete holds none of the bars on time."""
    bar: Bar = row.bar
    found: list[Verdict] = []

    def most(name: str, limit: float, got: float | None) -> None:
        if limit:
            found.append(Verdict(bar=name, limit=limit, got=got, holds=got is not None and got <= limit))

    def least(name: str, limit: float, got: float | None) -> None:
        if limit:
            found.append(Verdict(bar=name, limit=limit, got=got, holds=got is not None and got >= limit))

    sides = [use for use in (run.sender, run.receiver) if use is not None]
    most("seconds", bound_s(row.path, run.bytes) if bar.bound else 0.0, run.seconds)
    if run.queue_drops is not None:
        most("dropped by the queue", drops_allowed(row.path, run.bytes) if bar.bound else 0.0, run.queue_drops)
    least("of link", bar.of_link, run.goodput_mbit / row.path.rate_mbit if row.path.rate_mbit else None)
    least("Mbit/s", bar.goodput_mbit, run.goodput_mbit)
    most("seconds with listing", bar.seconds, run.seconds + run.listed_s)
    most("CPU s/GiB", bar.cpu_s_per_gib, max((use.cpu_s_per_gib for use in sides), default=None))
    most("MiB a process", bar.process_mib, max((use.process_mib for use in sides), default=None))
    least("datagrams a call", bar.datagrams_per_call, run.datagrams_per_call)
    most("spread", bar.spread, run.spread)
    least("share", bar.share, None if run.share is None or run.other_share is None else min(run.share, run.other_share))
    return found


def extrapolated_s(seconds: float, *, samples: Sequence[tuple[float, int]], wanted: int) -> float:
    """When it would have been done at the rate of the second half; infinite when nothing moved."""
    rate = rate_at_the_end(samples)
    return seconds + max(wanted - samples[-1][1], 0) / rate if rate > 0 else float("inf")


def patience_s(row: Row, count_bytes: int) -> float:
    """How long a run that reaches its bars takes, where one of them says it; 0 where none does."""
    return max(bound_s(row.path, count_bytes) if row.bar.bound else 0.0, row.bar.seconds)


@contextlib.contextmanager
def workspace(*, large_pages: bool) -> Iterator[Path]:
    """A folder on a tmpfs where there is one, gone afterwards; in ``large_pages`` where root asks and the system has them: in
    pages of 4 KiB it takes twice to four times the processor's time that the page cache of a file system on a disk takes, which
    on a path without a limit would be measured as everybody's."""
    tmpfs = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=tmpfs if tmpfs.is_dir() else None) as name:
        mount = ["mount", "-t", "tmpfs", "-o", f"{_LARGE_PAGES},size=100%", "bench", name]
        wanted = large_pages and os.geteuid() == 0
        mounted = wanted and subprocess.run(mount, capture_output=True, check=False).returncode == 0
        try:
            Path(name).chmod(0o755)
            yield Path(name)
        finally:
            if mounted:
                subprocess.run(["umount", name], check=True)


class Bench:
    """Runs on one network, as one account, in one workspace."""

    def __init__(self, network: Network, *, account: Account, place: Path, window_s: float) -> None:
        self._network, self._account, self._place = network, account, place
        self._window_s = window_s
        self._held = Held()

    def row(
        self, row: Row, *, peers: Sequence[Peer], controls: Sequence[str], repeat: int, told: Callable[[Run], None]
    ) -> list[Run]:
        """All runs of a row, ours and the peers' in turn."""
        source = self._place / "src"
        source.mkdir(mode=0o755)
        total = payload.make(row, source)
        runs = []
        try:
            for number in range(1, repeat + 1):
                blank = Run(row=row.name, what=OURS, control=row.beside, repeat=number, bytes=total, files=row.files)
                runs.append(self._guarded(row, blank, lambda run: asyncio.run(self._ours(row, source, run)), told))
                for peer in peers:
                    for control in controls if peer.tcp else ("",):
                        empty = msgspec.structs.replace(blank, what=peer.name, control=control)
                        runs.append(self._guarded(row, empty, partial(self._peer, peer, row, source), told))
        finally:
            self._held.release()
            shutil.rmtree(source)
        return runs

    def _guarded(self, row: Row, blank: Run, act: Callable[[Run], Run], told: Callable[[Run], None]) -> Run:
        """One run on its own path; whatever happens, the path goes away and there is a value."""
        run, counters = blank, []
        try:
            self._network.up(row.path, control=blank.control, seed=blank.repeat)
            with socket_limits(0 if row.path.rate_mbit else TUNED_BYTES):
                run = act(blank)
        except (OSError, Stuck, LabxchangeError, subprocess.SubprocessError) as error:
            run = msgspec.structs.replace(blank, error=f"{type(error).__name__}: {error}"[:500])
        finally:
            counters = self._network.down()
        if counters:
            drops = sum(int(line.get("queue_drop", 0)) for line in counters)
            late = sum(int(line.get("lag_over_1ms", 0)) for line in counters)
            run = msgspec.structs.replace(run, queue_drops=drops, late_packets=late)
        told(run)
        return run

    # --- ours ---------------------------------------------------------------------------------------------------------
    async def _ours(self, row: Row, source: Path, blank: Run) -> Run:
        sides = {"a": Side(), "b": Side(), "beside": Side()}
        place = Path(tempfile.mkdtemp(prefix="ours-", dir=self._place))
        place.chmod(0o755)
        nodes = [BenchNode(place, host, side=sides[host], network=self._network, account=self._account) for host in ("a", "b")]
        try:
            with socket_limits(row.socket_bytes) as limited:
                await meet(*nodes)
                run = await self._moved(row, source, blank, nodes, sides)
                return msgspec.structs.replace(run, limited=limited)
        finally:
            for node in nodes:
                await node.close()
            for side in sides.values():
                side.stop()
            shutil.rmtree(place, ignore_errors=True)

    async def _moved(self, row: Row, source: Path, blank: Run, nodes: list[BenchNode], sides: dict[str, Side]) -> Run:
        a, b = nodes
        with contextlib.ExitStack() as memory:
            if not row.known:  # later it would be hashed meanwhile
                memory.enter_context(self._held.at_hand())
            async with sampling(sides, whole=bool(row.bar.seconds)) as begin:
                began = time.monotonic()
                shared = payload.shared(row, source)
                offers = [await offer(a, b, item, title=str(number), known=row.known) for number, item in enumerate(shared)]
                listed_s = time.monotonic() - began
                if row.known:
                    memory.enter_context(self._held.at_hand())
                busy_before, began = begin(), time.monotonic()
                beside = self._beside(row, sides["beside"]) if row.kind == "flow" else None
                window_s = row.duration_s or max(self._window_s, 2 * patience_s(row, blank.bytes))
                moved = await asyncio.gather(*(fetch(b, item, window_s=window_s) for item in offers))
                watched_s = time.monotonic() - began
                busy_s = machine_busy_s() - busy_before
        done = sum(item.done_bytes for item in moved)
        run = self._used(blank, sides, done=done, watched_s=watched_s, busy_s=busy_s)
        run = msgspec.structs.replace(run, listed_s=round(listed_s, 3), **_planes(moved))
        if beside is not None:
            return self._shares(row, run, done=done, other=_counted(beside), watched_s=watched_s)
        run = msgspec.structs.replace(run, **_times(blank.bytes, moved))
        if row.kind == "ten":
            rates = [item.done_bytes / item.seconds for item in moved]
            run = msgspec.structs.replace(run, spread=round(1 - min(rates) / max(rates), 4))
        if run.complete:
            pairs = zip(shared, moved, strict=True)
            intact = all(payload.same(item, _where(item, Path(one.destination))) for item, one in pairs)
            run = msgspec.structs.replace(run, intact=intact, error="" if intact else "the bytes differ")
        return run

    def _beside(self, row: Row, side: Side) -> Path:
        """Start the other flow; its sink writes into the file that is returned, at the end, how much came."""
        python = [sys.executable, "-m", "tests.bench.flow"]
        where = [self._network.address("b"), str(flow.PORT)]
        told = Path(tempfile.mkstemp(dir=self._place, prefix="sink-")[1])
        side.start(self._network.command("b", [*python, "sink", *where]), log=told, cwd=ROOT)
        wait = ["sh", "-c", f"until ss -Hltn sport = :{flow.PORT} | grep -q .; do sleep 0.02; done"]
        subprocess.run(self._network.command("b", wait), check=True, timeout=20)
        source = self._network.command("a", [*python, "source", *where, str(row.duration_s)])
        side.start(source, log=told.with_suffix(".source"), cwd=ROOT)
        return told

    @staticmethod
    def _shares(row: Row, run: Run, *, done: int, other: int, watched_s: float) -> Run:
        """What each had of what the link can carry."""
        whole = row.path.ceiling_mbit * 1e6 / 8
        return msgspec.structs.replace(
            run,
            share=round(done / watched_s / whole, 4),
            other_share=round(other / row.duration_s / whole, 4),
            goodput_mbit=round(done * 8 / watched_s / 1e6, 2),
            seconds=round(watched_s, 3),
        )

    # --- peers --------------------------------------------------------------------------------------------------------
    def _peer(self, peer: Peer, row: Row, source: Path, blank: Run) -> Run:
        sides = {"a": Side(), "b": Side()}
        place = Path(tempfile.mkdtemp(prefix="peer-", dir=self._place))
        place.chmod(0o755)
        try:
            course = Course(peer, row, source, place=place, network=self._network)
            with self._held.at_hand():
                outcome = course.run(sides, window_s=self._window_s)
            run = self._used(blank, sides, done=outcome.done_bytes(blank.bytes), watched_s=outcome.seconds, busy_s=outcome.busy_s)
            seconds = outcome.seconds
            if not outcome.complete and not outcome.error:
                seconds = extrapolated_s(seconds, samples=outcome.samples, wanted=course.wanted)
            return msgspec.structs.replace(
                run,
                complete=outcome.complete,
                intact=outcome.intact,
                **_rate(blank.bytes, seconds) | ({"error": outcome.error} if outcome.error else {}),
            )
        finally:
            for side in sides.values():
                side.stop()
            shutil.rmtree(place, ignore_errors=True)

    @staticmethod
    def _used(run: Run, sides: dict[str, Side], *, done: int, watched_s: float, busy_s: float) -> Run:
        cores = (os.cpu_count() or 1) * max(watched_s, 1e-3)
        spent = {host: side.cpu_s() for host, side in sides.items()}
        uses = {
            host: Use(
                cpu_s_per_gib=round(spent[host] / max(done / GIB, 1e-9), 2),
                all_mib=round(side.peak_sum_bytes / MIB, 1),
                process_mib=round(side.peak_process_bytes / MIB, 1),
            )
            for host, side in sides.items()
        }
        return msgspec.structs.replace(
            run,
            sender=uses["a"],
            receiver=uses["b"],
            busy=round(busy_s / cores, 3),
            other=round(max(busy_s - sum(spent.values()), 0) / cores, 3),
        )


@contextlib.asynccontextmanager
async def sampling(sides: dict[str, Side], *, whole: bool) -> AsyncIterator[Callable[[], float]]:
    """Look at memory while the body runs. It gets a function that starts the counting anew (not with ``whole``) and gives the
    machine's busy seconds."""

    def begin() -> float:
        if not whole:
            for side in sides.values():
                side.begin()
        return machine_busy_s()

    async def look() -> None:
        while True:
            sample(sides.values())
            await asyncio.sleep(_SAMPLE_S)

    for side in sides.values():
        side.begin()
    task = asyncio.ensure_future(look())
    try:
        yield begin
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _times(wanted: int, moved: Sequence[Moved]) -> dict[str, object]:
    """Seconds and goodput of transfers that ran together: until the last one is done."""
    each = wanted // len(moved)
    seconds = max(one.seconds if one.complete else extrapolated_s(one.seconds, samples=one.samples, wanted=each) for one in moved)
    told = [one.datagrams_per_call for one in moved if one.datagrams_per_call is not None]
    return {
        **_rate(wanted, seconds),
        "complete": all(one.complete for one in moved),
        "datagrams_per_call": min(told, default=None),
    }


def _planes(moved: Sequence[Moved]) -> dict[str, str]:
    """What carried the transfers, each kind once."""
    return {name: ", ".join(sorted({getattr(one, name) for one in moved} - {""})) for name in ("plane", "plane_reason")}


def _rate(wanted: int, seconds: float) -> dict[str, object]:
    if seconds == float("inf"):
        return {"error": "nothing arrived within the window"}
    return {"seconds": round(seconds, 3), "goodput_mbit": round(wanted * 8 / seconds / 1e6, 2) if seconds else 0.0}


def _counted(told: Path) -> int:
    """What the sink of the other flow says when it is cut, which is a moment after the end of its time."""
    deadline = time.monotonic() + _CUT_S
    while not (text := told.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return int(text or 0)


def _where(source: Path, destination: Path) -> Path:
    """Where a shared file or folder is in the destination: a folder's files lie in it directly."""
    return destination / source.name if source.is_file() else destination
