"""Very many small files between two real nodes: how long, how much memory, and how often the disk is flushed (by strace).

For the seconds, run it on a machine that has nothing else to do: ``pytest -s -m campaign tests/integration/test_many_files.py``.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labxchange.node.client import Client
from labxchange.node.home import HOME_VARIABLE
from labxchange.node.starting import answers
from labxchange.node.verbs import Verbs
from tests.crash.scenario import strace
from tests.integration.conftest import Person
from tests.integration.test_two_nodes import ended, leave, offered, pair
from tests.support.nodes import wait_for

FILES = 100_000
FILE_BYTES = 1024
FLUSHES = "fsync,fdatasync,syncfs,sync,sync_file_range,msync"
LIMIT_S, LIMIT_MIB, FILES_PER_FLUSH = 120, 500, 500


def make_files(folder: Path) -> None:
    chance = random.Random(1)
    for number in range(FILES):
        if number % 1000 == 0:
            place = folder / f"{number // 1000:03}"
            place.mkdir(parents=True)
        (place / f"{number:06}.dat").write_bytes(chance.randbytes(FILE_BYTES))


class Traced:
    """A person's node, started anew under strace, which writes down each flush."""

    def __init__(self, who: Person, log: Path) -> None:
        self.who = who
        self._log = log
        command = [strace(), "-f", "--seccomp-bpf", "-ttt", "-e", f"trace={FLUSHES}", "-e", "signal=none", "-qq", "-o", str(log)]
        self.process = subprocess.Popen(
            [*command, sys.executable, "-m", "labxchange.node.daemon"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {HOME_VARIABLE: str(who.home.root)},
            start_new_session=True,
        )

    def peak_mib(self) -> int:
        status = Path(f"/proc/{self.who.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) // 1024

    def flushes(self, since: float, until: float) -> dict[str, int]:
        out: dict[str, int] = {}
        for line in self._log.read_text().splitlines():
            found = re.match(r"\d+\s+(\d+\.\d+) (\w+)\(", line)
            if found and since <= float(found[1]) <= until:
                out[found[2]] = out.get(found[2], 0) + 1
        return out


async def traced(who: Person, place: Path) -> Traced:
    await who.stop()
    made = Traced(who, place / f"{who.name}.strace")
    await wait_for(lambda: answers(who.home), what="the traced node", timeout_s=60)
    who.client = Client(who.home)
    return made


@pytest.mark.campaign
def test_a_hundred_thousand_files(place: Path) -> None:
    async def story() -> None:
        ada, bo = await pair(place)
        make_files(place / "data")
        nodes = [await traced(ada, place), await traced(bo, place)]
        begun, wall = time.monotonic(), time.time()
        made = await ada.client.call(Verbs.share_create, paths=[str(place / "data")], to=["Bo"], title="Many")
        await offered(bo, made)
        listed = time.monotonic() - begun
        started = await bo.client.call(Verbs.receive, share="Many")
        done = await ended(bo, started.transfer, timeout_s=1200)
        took, until = time.monotonic() - begun, time.time()
        assert (done.state, done.done_files) == ("completed", FILES)
        report = (await bo.client.call(Verbs.transfer_report, transfer=done.transfer)).report
        assert (report.verdict, report.matched) == ("intact", done.files)
        peaks = [node.peak_mib() for node in nodes]
        counts = [node.flushes(wall, until) for node in nodes]
        print(f"{FILES} files of {FILE_BYTES} bytes: offered {listed:.1f} s, verified {took:.1f} s, load {os.getloadavg()}")
        for node, peak, count in zip(nodes, peaks, counts, strict=True):
            print(f"{node.who.name}: {peak} MiB at most, flushes {count}")
        await leave(ada, bo)
        for node in nodes:
            node.process.wait(30)
        assert max(peaks) < LIMIT_MIB
        for count in counts:
            assert sum(count.values()) * FILES_PER_FLUSH <= FILES
        assert took < LIMIT_S

    asyncio.run(story())
