"""Rows 3 and 4 of the reliability campaign: system calls that fail, and disks that are full.

Each call with which the recipient writes (``files.quarantine``), the sender reads, and keys and exports are written fails once
with each error, or writes less than it was given: the transfer pauses, or names the file, says why with a code that stands in
the trail too, and goes on afterwards; an action is refused as a whole. The database's own calls fail by strace. A full disk, of
the trail or of the data, on either side, loses nothing and can be freed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from labxchange.errors import LabxchangeError
from labxchange.files import keyfile, newfile, quarantine
from labxchange.node import peers, receiving
from labxchange.node.node import Node
from labxchange.transfer import send
from tests.crash.judge import NoNetwork, judge
from tests.crash.scenario import Recorded, Story, few, strace
from tests.support.nodes import befriend, ended, make_node, share, start, until

SEED = os.environ.get("LABXCHANGE_SEED", "1")
EIO, ENOSPC, EDQUOT, EMFILE, EINTR = errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EINTR
SHORT = -1
"""Not an error: the call does a part of its work."""


class FaultyOs:
    """The module ``os`` as one module of ours sees it, in which call number ``at`` of one function fails."""

    def __init__(self, name: str, code: int, at: int) -> None:
        self.failed = 0
        self._name = name
        self._code = code
        self._left = at

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._faulty(real) if name == self._name else real

    def _faulty(self, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left != 0:
                return real(*args, **kwargs)
            self.failed += 1
            if self._code == SHORT:
                return real(args[0], args[1][: max(len(args[1]) // 3, 1)], *args[2:], **kwargs)
            raise OSError(self._code, os.strerror(self._code))

        return call


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (peers, receiving):
        monkeypatch.setattr(module, "RETRY_FIRST_S", 0.1)


@asynccontextmanager
async def pair(folder: Path, *, ada: Path | None = None, bo: Path | None = None) -> AsyncIterator[tuple[Node, Node]]:
    """Two befriended nodes; the home of either may lie on another disk."""
    nodes = make_node(ada or folder, "Ada"), make_node(bo or folder, "Bo")
    try:
        for node in nodes:
            await start(node)
        await befriend(*nodes)
        yield nodes
    finally:
        for node in nodes:
            await node.close()


def _holds(folder: Path, source: dict[str, bytes]) -> None:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == source


async def _told(node: Node, event: str, code: str) -> bool:
    return any(entry.result_code == code for entry in await node.audit_list(event=event, limit=20))


# --- row 3: the recipient ------------------------------------------------------------------------------------------------
RECIPIENT = [
    *(("pwrite", code, at) for code in (EIO, ENOSPC, EDQUOT, SHORT) for at in (1, 3)),
    *(("fdatasync", code, 1) for code in (EIO, ENOSPC)),
    *(("fsync", code, at) for code in (EIO, ENOSPC) for at in (1, 2, 4)),
    *(("open", code, at) for code in (EMFILE, ENOSPC, EIO) for at in (1, 3)),
    *(("mkdir", code, 1) for code in (ENOSPC, EIO)),
    ("utime", EIO, 1),
    ("fchmod", EIO, 1),
    ("preadv", EIO, 1),
    ("fstatvfs", EIO, 1),
    ("fstat", EIO, 2),
    ("stat", EIO, 1),
    ("unlink", EIO, 1),
    ("rmdir", EIO, 1),
    ("scandir", EIO, 1),
    *((("rename_no_replace"), code, 1) for code in (EIO, ENOSPC, EDQUOT)),
]


def test_each_call_of_the_recipient_fails_once(tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(_recipient(tmp_path, monkeypatch))


async def _recipient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: dict[str, int] = {}
    async with pair(tmp_path) as (ada, bo):
        source = few(tmp_path / "source", random.Random(SEED))
        made = await share(ada, bo, tmp_path / "source", title="it", downloads=1000)
        for number, (name, code, at) in enumerate(RECIPIENT):
            what = f"{name} number {at} failing with {errno.errorcode.get(code, 'a short write')}"
            destination = tmp_path / f"received {number}"
            with monkeypatch.context() as patched:
                fault = _break(patched, name, code, at)
                begun = await bo.receive(share=made.share, destination=str(destination))
                info = await until(bo, begun.transfer, "completed", "paused", "failed", "cut")
            assert fault.failed, f"{what}: it was never called"
            assert (await bo.status()).locked is False, what
            if info.state != "completed":
                assert info.reason, f"{what}: {info.state} without a reason"
                assert await _told(bo, "transfer.", info.reason), f"{what}: {info.reason} is not in the trail"
                await bo.transfer_resume(transfer=begun.transfer)
                info = await ended(bo, begun.transfer)
            assert info.state == "completed", f"{what}: {info.state} {info.reason}"
            _holds(destination, source)
            await until(ada, begun.transfer, "completed")
            ends[name] = ends.get(name, 0) + 1
            _forget(bo, begun.transfer)
    print(f"{len(RECIPIENT)} faults: {ends}")


def _forget(node: Node, transfer: str) -> None:
    """So that the same offer can be received again."""
    from msgspec.structs import replace

    from labxchange.store import transfers

    with node.core.database.begin() as tx:
        row = transfers.transfer(tx, transfer)
        assert row is not None
        transfers.put_transfer(tx, replace(row, state="cancelled"))


def _break(patched: pytest.MonkeyPatch, name: str, code: int, at: int) -> FaultyOs:
    if name == "rename_no_replace":
        fault = FaultyOs("rename", code, at)

        def rename(*args: Any, **kwargs: Any) -> None:
            fault._faulty(real)(*args, **kwargs)

        real = quarantine.rename_no_replace
        patched.setattr(quarantine, "rename_no_replace", rename)
        return fault
    fault = FaultyOs(name, code, at)
    patched.setattr(quarantine, "os", fault)
    return fault


# --- row 3: the sender, keys, exports ------------------------------------------------------------------------------------
def test_a_source_that_cannot_be_read_is_named(tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with pair(tmp_path) as (ada, bo):
            few(tmp_path / "source", random.Random(SEED))
            for number, code in enumerate((EIO, EMFILE)):
                made = await share(ada, bo, tmp_path / "source", title=f"it {number}")
                with monkeypatch.context() as patched:
                    fault = FaultyOs("pread", code, 1)
                    patched.setattr(send, "os", fault)
                    begun = await bo.receive(share=made.share, destination=str(tmp_path / f"received {number}"))
                    info = await ended(bo, begun.transfer)
                assert fault.failed
                assert (info.state, info.reason) == ("failed", "not-intact")
                report = (await bo.transfer_report(transfer=begun.transfer)).report
                assert (report.missing, report.matched) == (1, report.matched)
                assert await _told(ada, "transfer.source-changed", "unreadable")

    asyncio.run(story())


@pytest.mark.parametrize("name", ["open", "write", "fsync", "rename", "fchmod"])
def test_a_key_that_cannot_be_written_is_no_identity(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for the credential, not for the identity: the action is refused, and can be done again."""

    async def story() -> None:
        for at in (1, 2, 3):
            folder = tmp_path / str(at)
            folder.mkdir()
            with monkeypatch.context() as patched:
                fault = FaultyOs(name, ENOSPC, at)
                patched.setattr(keyfile, "os", fault)
                node = make_node(folder, "Ada", network=NoNetwork())
                await node.open()
                given = {"name": "Ada", "organisation": "Ada Ltd", "credential_file": str(folder / "credential")}
                failed = ""
                try:
                    await node.key_create(**given)
                except LabxchangeError as error:
                    failed = error.code
                assert (failed == "disk-full") == bool(fault.failed)
            await node.close()
            node = make_node(folder, "Ada", network=NoNetwork())
            await node.open()
            if not node.core.public:
                await node.key_create(**given)
            assert node.core.identity is not None
            await node.close()

    asyncio.run(story())


@pytest.mark.parametrize("name", ["fsync", "link", "open"])
def test_an_export_that_cannot_be_written_is_not_there(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        node = make_node(tmp_path, "Ada", network=NoNetwork())
        await start(node)
        for code in (EIO, ENOSPC):
            target = tmp_path / f"trail {code}"
            with monkeypatch.context() as patched:
                fault = FaultyOs(name, code, 1)
                patched.setattr(newfile, "os", fault)
                with pytest.raises(LabxchangeError) as caught:
                    await node.audit_export(path=str(target))
                assert caught.value.code == ("disk-full" if code == ENOSPC else "disk-error")
            there = {path.name for path in tmp_path.iterdir()} - {"Ada"}
            assert not there or (name == "fsync" and there <= {target.name}), there
        await node.close()

    asyncio.run(story())


# --- row 3: the database -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "code"),
    [("pwrite64", "ENOSPC"), ("pwrite64", "EIO"), ("pwrite64", "EDQUOT"), ("fdatasync", "EIO"), ("pwrite64", "EINTR")],
)
def test_a_failing_database_refuses_the_action_and_loses_nothing(tmp_path: Path, call: str, code: str) -> None:
    asyncio.run(_database(tmp_path, call, code))


async def _database(tmp_path: Path, call: str, code: str) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    wal = root / "Ada" / "node.db-wal"
    when = "150+41" if call == "pwrite64" else "9+7"
    inject = ["-P", str(wal), "-e", f"trace={call}", "-e", f"inject={call}:error={code}:when={when}"]
    ada = await Recorded.begin(tmp_path / "calls", root, "Ada", options=inject)
    refused, told = [], []
    try:
        while "error" in (answer := await ada.call("start", may_fail=True)):
            refused.append(answer["error"])
        await ada.call("key_create", name="Ada", organisation="A", credential_file=str(root / "Ada.credential"), may_fail=True)
        for _ in range(12):
            answer = await ada.call("contact_invite", may_fail=True)
            (refused if "error" in answer else told).append(answer.get("error", ""))
    finally:
        await ada.end()
    assert refused or code == "EINTR", "no call failed"
    assert set(refused) <= {"disk-full", "no-identity", "no-address"}, refused
    marks = [item for item in ada.heard if "answer" in item]
    story = Story("Ada", root, [], {}, [])
    await judge(story, marks)
    print(f"{call} {code}: {len(refused)} refused, {len(told)} done")


# --- row 4: full disks ---------------------------------------------------------------------------------------------------
@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m,mode=0700", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not let its user mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _fill_up(place: Path, *, leave: int) -> Path:
    """Take the space of a disk but for ``leave`` bytes."""
    info = os.statvfs(place)
    ballast = place / "ballast"
    ballast.write_bytes(bytes(max(info.f_bavail * info.f_frsize - leave, 0)))
    return ballast


@pytest.mark.parametrize("leave", [0, 300_000, 1_000_000])
def test_a_full_disk_for_data(tmp_path: Path, small_disk: Path, impatient: None, leave: int) -> None:
    async def story() -> None:
        async with pair(tmp_path) as (ada, bo):
            source = few(tmp_path / "source", random.Random(SEED))
            made = await share(ada, bo, tmp_path / "source", title="it")
            ballast = _fill_up(small_disk, leave=leave)
            begun = await bo.receive(share=made.share, destination=str(small_disk / "received"))
            info = await until(bo, begun.transfer, "paused", "failed", "completed")
            assert (info.state, info.reason) == ("paused", "disk-full")
            assert await _told(bo, "transfer.paused", "disk-full")
            ballast.unlink()
            await bo.transfer_resume(transfer=begun.transfer)
            assert (await ended(bo, begun.transfer)).state == "completed"
            _holds(small_disk / "received", source)

    asyncio.run(story())


@pytest.mark.parametrize("side", ["Ada", "Bo"])
def test_a_full_disk_for_the_trail(tmp_path: Path, small_disk: Path, impatient: None, side: str) -> None:
    """What cannot be written down does not happen; what was acknowledged stays; once there is space, all goes on."""

    async def story() -> None:
        places = {side.lower(): small_disk}
        async with pair(tmp_path, **places) as (ada, bo):
            source = few(tmp_path / "source", random.Random(SEED))
            made = await share(ada, bo, tmp_path / "source", title="it")
            full = ada if side == "Ada" else bo
            before = (await full.status()).trail_size
            ballast = _fill_up(small_disk, leave=0)
            codes = []
            for _ in range(200):
                try:
                    await full.contact_invite()
                except LabxchangeError as error:
                    codes.append(error.code)
                    if len(codes) == 3:
                        break
            assert codes == ["disk-full"] * 3
            size = (await full.status()).trail_size
            assert size >= before
            if side == "Bo":
                with pytest.raises(LabxchangeError) as caught:
                    await bo.receive(share=made.share, destination=str(tmp_path / "received"))
                assert caught.value.code == "disk-full"
            else:
                begun = await bo.receive(share=made.share, destination=str(tmp_path / "received"))
                info = await until(bo, begun.transfer, "waiting", "paused", "failed")
                assert info.done_bytes == 0
                assert not [item for item in await bo.transfer_list() if item.done_bytes], "served without being written down"
            ballast.unlink()
            transfer = (await bo.receive(share=made.share, destination=str(tmp_path / "received"))).transfer
            assert (await ended(bo, transfer)).state == "completed"
            _holds(tmp_path / "received", source)
            assert (await full.status()).trail_size > size

    asyncio.run(story())


def test_strace_is_here() -> None:
    strace()
