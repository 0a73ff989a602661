"""Row 4 of the reliability campaign, bit rot: what is damaged on the disk is named, not taken for good, and not made worse."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import sqlite3
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from labxchange.audit.verifier import Verdict, verify
from labxchange.errors import IntegrityError, LabxchangeError
from labxchange.files import quarantine
from labxchange.files.quarantine import Quarantine
from tests.crash.judge import NoNetwork
from tests.crash.test_faults import pair
from tests.support.nodes import PASSPHRASE, ended, make_node, share, start, until, wait_for

SEED = os.environ.get("LABXCHANGE_SEED", "1")
_ROTTEN = {"database-damaged", "database-newer", "unsupported-version", "transfer-unknown", "receipt-none", "report-none"}
"""Codes that a flipped bit may give: an id or a state can become another one that is possible."""


async def _grown(folder: Path) -> None:
    """A node with something in its database, stopped."""
    node = make_node(folder, "Ada", network=NoNetwork())
    await start(node)
    for _ in range(30):
        await node.contact_invite()
    await node.close()


def _flip(path: Path, chance: random.Random, *, first: int, last: int) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(first, min(last, len(data)))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def test_a_damaged_database_is_refused_or_its_trail_says_so(tmp_path: Path) -> None:
    asyncio.run(_rot(tmp_path, f"rot {SEED}", flips=20))


@pytest.mark.campaign
@pytest.mark.parametrize("part", range(2))
def test_a_thousand_flips_of_each_database(tmp_path: Path, part: int) -> None:
    asyncio.run(_rot(tmp_path, f"rot {SEED}/{part}", flips=500))


async def _rot(folder: Path, seed: str, *, flips: int) -> None:
    """A flipped bit either breaks the database's form, which is named at the start, or is in what it holds: then the trail, whose
    every byte is hashed, does not verify, or what is read says that the database is damaged, or the bit was in something that
    nothing reads. Whatever is asked for, an error of ours is the answer."""
    transfer, chance = await _exchanged(folder), random.Random(seed)
    said: Counter[str] = Counter()
    for name in ("Ada", "Bo"):
        path = folder / name / "node.db"
        good = path.read_bytes()
        for number in range(flips):
            _flip(path, chance, first=4096 if number % 8 else 0, last=len(good))
            said[await _asked(folder, name, transfer, said)] += 1
            path.write_bytes(good)
    print(f"{2 * flips} flipped bits: {dict(said)}")
    assert said["refused"] + said["UNANCHORED"] + said["INVALID"] == 2 * flips
    assert set(said) <= {"refused", "UNANCHORED", "INVALID", *_ROTTEN}, said


async def _exchanged(folder: Path) -> str:
    """Two nodes that have shared, received, and countersigned it all, stopped; returns the transfer."""
    (folder / "data").mkdir()
    (folder / "data" / "a.csv").write_bytes(b"1,2\n" * 5000)
    async with pair(folder) as (ada, bo):
        made = await share(ada, bo, folder / "data", study="CDISC-01")
        started = await bo.receive(share=made.share)
        await ended(bo, started.transfer)
        await bo.transfer_accept(transfer=started.transfer)
        await wait_for(lambda: bo.receipts.show(started.transfer).acknowledged)
    return started.transfer


async def _asked(folder: Path, name: str, transfer: str, said: Counter[str]) -> str:
    """Start on the damaged database, export the trail and ask for all there is; returns what became of the export, and counts
    the codes of the rest in ``said``."""
    try:
        node = make_node(folder, name, network=NoNetwork())
    except LabxchangeError as error:
        said[error.code] += 1
        return "refused"
    bundle, became = folder / "trail", "refused"
    try:
        await node.open()
        await node.unlock(passphrase=PASSPHRASE)
        await node.audit_export(path=str(bundle))
        became = verify(bundle).verdict.name
    except LabxchangeError as error:
        said[error.code] += 1
    reads = (
        node.contact_list,
        node.contact_invitations,
        node.share_list,
        node.inbox_list,
        node.transfer_list,
        node.audit_list,
        node.contact_invite,
        node.status,
        partial(node.receipt_page, transfer=transfer),
    )
    of_recipient = (partial(node.transfer_report, transfer=transfer), partial(node.dataset_verify, transfer=transfer))
    for read in (*reads, *(of_recipient if name == "Bo" else ())) if node.core.identity is not None else ():
        try:
            await read()
        except LabxchangeError as error:
            said[error.code] += 1
    with contextlib.suppress(LabxchangeError):
        await node.close()
    bundle.unlink(missing_ok=True)
    return became


def test_a_destroyed_database_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    async def story() -> None:
        await _grown(tmp_path)
        path = tmp_path / "Ada" / "node.db"
        data = bytearray(path.read_bytes())
        for page in range(1, len(data) // 4096, 2):
            data[page * 4096 : page * 4096 + 512] = os.urandom(512)
        path.write_bytes(data)
        with pytest.raises(IntegrityError) as caught:
            make_node(tmp_path, "Ada", network=NoNetwork())
        assert caught.value.code == "database-damaged"
        assert "restore" in caught.value.hint
        assert path.read_bytes() == bytes(data)

    asyncio.run(story())


def test_a_damaged_key_file_is_named(tmp_path: Path) -> None:
    """Each flip is an error of ours, and the file stays as it is."""

    async def story() -> None:
        await _grown(tmp_path)
        path, chance = tmp_path / "Ada" / "identity.json", random.Random(f"key {SEED}")
        good, codes = path.read_bytes(), set()
        for _ in range(40):
            path.write_bytes(good)
            _flip(path, chance, first=0, last=len(good))
            damaged = path.read_bytes()
            node = make_node(tmp_path, "Ada", network=NoNetwork())
            try:
                await node.open()
                await node.unlock(passphrase=PASSPHRASE)
            except LabxchangeError as error:
                codes.add(error.code)
            finally:
                await node.close()
            assert path.read_bytes() == damaged
        print(codes)
        assert "key-file-damaged" in codes
        assert codes <= {"key-file-damaged", "passphrase-wrong", "no-identity", "no-unlock-method"}, codes

    asyncio.run(story())


def test_a_damaged_bundle_is_invalid(tmp_path: Path) -> None:
    async def story() -> None:
        node = make_node(tmp_path, "Ada", network=NoNetwork())
        await start(node)
        path = tmp_path / "trail"
        await node.audit_export(path=str(path))
        await node.close()
        good, chance = path.read_bytes(), random.Random(f"bundle {SEED}")
        for _ in range(200):
            path.write_bytes(good)
            _flip(path, chance, first=0, last=len(good))
            assert verify(path).verdict is Verdict.INVALID

    asyncio.run(story())


def test_a_part_that_rots_before_its_file_is_whole_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal says that a chunk is there, the disk gives other bytes: that chunk comes again, and only then has the file its
    name."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    async def story() -> None:
        async with pair(tmp_path) as (ada, bo):
            source = tmp_path / "source"
            source.mkdir()
            (source / "large.bin").write_bytes(random.Random(SEED).randbytes((1 << 20) + 5000))
            made = await share(ada, bo, source, title="it")
            destination = tmp_path / "received"
            with monkeypatch.context() as patched:
                patched.setattr(quarantine, "rename_no_replace", full)
                begun = await bo.receive(share=made.share, destination=str(destination))
                info = await until(bo, begun.transfer, "paused", "completed")
            assert (info.state, info.done_bytes) == ("paused", info.bytes)
            _flip(destination / f".labxchange-{begun.transfer}" / "0.part", random.Random(SEED), first=0, last=1 << 20)
            await bo.transfer_resume(transfer=begun.transfer)
            info = await ended(bo, begun.transfer)
            assert (info.state, info.reason) == ("completed", "")
            assert (destination / "large.bin").read_bytes() == (source / "large.bin").read_bytes()

    asyncio.run(story())


def test_a_journal_that_lost_its_parts_says_so(tmp_path: Path) -> None:
    """Rows of the journal without the parts they speak of."""
    (tmp_path / "there").mkdir()
    with Quarantine(tmp_path / "there", "0" * 32) as opened, pytest.raises(IntegrityError) as caught:
        opened.read(0, 0, 1)
    assert caught.value.code == "part-missing"


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "Ada"
    home.mkdir()
    with sqlite3.connect(home / "node.db") as other:
        other.execute("CREATE TABLE settings (a)")
    with pytest.raises(LabxchangeError):
        make_node(tmp_path, "Ada", network=NoNetwork())
