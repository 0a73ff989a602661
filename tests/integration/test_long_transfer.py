"""A long transfer over lanes that is killed again and again - either node, both, a worker of either - and still ends right.

The small one runs always; ``pytest -s -m campaign tests/integration/test_long_transfer.py`` moves ``LABXCHANGE_LONG_GIB`` (20) on
the disk that pytest's folder is on, which needs three times as much room.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from hashlib import sha256
from pathlib import Path

import pytest

from labxchange.node.values import TransferInfo
from labxchange.node.verbs import Verbs
from labxchange.settings import JOURNAL_BYTES
from tests.integration.conftest import Person, gone
from tests.integration.test_two_nodes import agreed, ended, leave, offered, pair, run, state

MIB, GIB = 1 << 20, 1 << 30
LONG_GIB = float(os.environ.get("LABXCHANGE_LONG_GIB", "20"))
VICTIMS = ("recipient's node", "sender's node", "recipient's worker", "sender's worker", "both nodes")


def make_file(path: Path, size: int) -> bytes:
    """Bytes that no other MiB of it has; its SHA-256."""
    block, digest = random.Random(size).randbytes(MIB), sha256()
    path.parent.mkdir()
    with open(path, "wb") as file:
        for number in range(size // MIB):
            piece = number.to_bytes(8, "big") + block[8:]
            file.write(piece)
            digest.update(piece)
    return digest.digest()


def digest_of(path: Path) -> bytes:
    with open(path, "rb") as file:
        digest = sha256()
        while data := file.read(MIB):
            digest.update(data)
    return digest.digest()


def workers(node: int) -> list[int]:
    """The lane workers that a node started."""
    children = Path(f"/proc/{node}/task/{node}/children").read_text().split()
    return [int(pid) for pid in children if b"lanes.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def strike(victim: str, ada: Person, bo: Person) -> None:
    """kill -9; a node that was killed is started again by who asks it next."""
    people = {"recipient": [bo], "sender": [ada], "both": [ada, bo]}[victim.split()[0].removesuffix("'s")]
    for who in people:
        if "worker" in victim:
            for pid in workers(who.pid):
                os.kill(pid, signal.SIGKILL)
                gone(pid)
        else:
            who.kill()
            await who.client.call(Verbs.key_show)


async def killed_and_right(place: Path, *, size: int, kills: int, rate: int) -> None:
    ada, bo = await pair(place)
    want = make_file(place / "data" / "long.bin", size)
    made = await ada.client.call(Verbs.share_create, paths=[str(place / "data")], to=["Bo"], title="Long")
    await offered(bo, made)
    begun = time.monotonic()
    started = await bo.client.call(Verbs.receive, share="Long", rate=rate)
    for number in range(kills):

        def far_enough(info: TransferInfo, goal: float = size * (number + 0.5) / (kills + 0.5)) -> bool:
            assert info.state not in ("completed", "failed", "cut", "cancelled"), info
            return info.done_bytes >= goal

        before = await state(bo, started.transfer, far_enough, timeout_s=600 + size / 20e6)
        victim = VICTIMS[number % len(VICTIMS)]
        await strike(victim, ada, bo)
        after = await bo.client.call(Verbs.transfer_show, transfer=started.transfer)
        shares = f"{before.done_bytes / size:.1%}; after it {after.done_bytes / size:.1%}"
        print(f"{time.monotonic() - begun:7.1f} s  {victim} at {shares}")
        assert after.done_bytes >= before.done_bytes, "what was verified never comes again"
    done = await ended(bo, started.transfer, timeout_s=600 + size / 20e6)
    took = time.monotonic() - begun
    assert (done.state, done.done_files, done.done_bytes) == ("completed", 1, size)
    assert digest_of(Path(done.destination) / "long.bin") == want
    report = (await bo.client.call(Verbs.transfer_report, transfer=done.transfer)).report
    assert (report.verdict, report.matched) == ("intact", 1)
    assert "lanes" in (await bo.client.call(Verbs.receipt_show, transfer=done.transfer)).path
    assert not await bo.client.call(Verbs.audit_list, event="transfer.fallback", limit=10)
    print(f"{size / GIB:g} GiB, {kills} kills: {took:.0f} s, {size * 8 / took / 1e6:.0f} Mbit/s")
    await agreed(place, ada, bo)
    await leave(ada, bo)


def test_a_transfer_that_is_killed_five_times(place: Path) -> None:
    """Each kind of kill once; held to a rate, so that there is a middle to kill it in."""
    run(killed_and_right(place, size=4 * JOURNAL_BYTES, kills=5, rate=32 * MIB))


@pytest.mark.campaign
def test_twenty_gib_killed_ten_times(place: Path) -> None:
    asyncio.run(killed_and_right(place, size=int(LONG_GIB * GIB), kills=10, rate=0))
