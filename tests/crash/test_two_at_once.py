"""Whole nodes as processes: two faces that start one at once, what a crash leaves behind, and kills of real nodes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from labxchange.audit.verifier import Verdict, verify
from labxchange.errors import LabxchangeError, UnavailableError
from labxchange.node.client import Client
from labxchange.node.home import Home
from labxchange.node.verbs import Verbs
from tests.crash.pair import check_released, make_source
from tests.support.nodes import wait_for

# A node outlives the face that started it, also these.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
SEED = os.environ.get("LABXCHANGE_SEED", "1")
_PATIENCE_S = 60.0


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A short folder for homes and sockets; the nodes in it are gone when the test ends."""
    made = Path(tempfile.mkdtemp(prefix="lx-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(made))
    monkeypatch.setenv("LABXCHANGE_LISTEN", f"127.{os.getpid() % 250 + 1}.{random.SystemRandom().randint(1, 254)}.1")
    yield made
    for lock in made.glob("*/node.lock"):
        with contextlib.suppress(OSError, ValueError):
            os.kill(json.loads(lock.read_text())["pid"], signal.SIGKILL)
    shutil.rmtree(made)


def _pid(home: Home) -> int:
    return int(json.loads((home.root / "node.lock").read_text())["pid"])


async def _kill(client: Client) -> int:
    """kill -9; returns the process id once the process is gone."""
    pid = _pid(client.home)
    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        await asyncio.to_thread(os.waitpid, pid, 0)

    def gone() -> bool:
        with contextlib.suppress(OSError):
            os.kill(pid, 0)
            return False
        return True

    await wait_for(gone, what="the process to be gone", timeout_s=_PATIENCE_S)
    await client.close()
    return pid


@asynccontextmanager
async def client(home: Home) -> AsyncIterator[Client]:
    made = Client(home)
    try:
        yield made
    finally:
        with contextlib.suppress(LabxchangeError):
            await made.stop_node()
        await made.close()


def test_many_faces_start_one_node(folder: Path) -> None:
    """Eight at once: one process, and all get its answer."""

    async def story() -> None:
        home = Home(folder / "Ada")
        faces = [Client(home) for _ in range(8)]
        found = await asyncio.gather(*(face.call(Verbs.status) for face in faces))
        assert len({status.pid for status in found}) == 1
        assert found[0].pid == _pid(home)
        await faces[0].stop_node()
        for face in faces:
            await face.close()
        await wait_for(lambda: not (home.root / "node.lock").exists(), what="the node to stop", timeout_s=_PATIENCE_S)

    asyncio.run(story())


def test_what_a_crash_leaves_behind_heals(folder: Path) -> None:
    """A dead socket, a lock file of a dead process, one of garbage, one of a process that is somebody else."""

    async def story() -> None:
        home = Home(folder / "Ada")
        async with client(home) as face:
            await face.call(Verbs.key_create, name="Ada", organisation="Ada", credential_file=str(folder / "credential"))
            first = await _kill(face)
            assert home.socket.exists()
            assert (home.root / "node.lock").exists()
            assert (await face.call(Verbs.status)).pid != first
            for left in (b"", b"{", b"\xff\xfe", json.dumps({"pid": os.getpid(), "host": "x", "since": ""}).encode()):
                await _kill(face)
                (home.root / "node.lock").write_bytes(left)
                status = await face.call(Verbs.status)
                assert not status.locked
            await _kill(face)
            home.socket.unlink()
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(home.socket))
            assert not (await face.call(Verbs.status)).locked

    asyncio.run(story())


def test_a_node_of_another_process_is_named(folder: Path) -> None:
    """A second node on the same home does not start, and says which one has it."""

    async def story() -> None:
        from labxchange.store.database import Database

        home = Home(folder / "Ada")
        async with client(home) as face:
            pid = (await face.call(Verbs.status)).pid
            with pytest.raises(UnavailableError) as caught:
                Database(home.database)
            assert caught.value.code == "node-already-running"
            assert str(pid) in caught.value.message
            assert (await face.call(Verbs.status)).pid == pid

    asyncio.run(story())


def test_a_face_that_listens_hears_the_end(folder: Path) -> None:
    """A node killed under a listening face: the face is told; once it has ended, a new node answers the next call."""

    async def story() -> None:
        home = Home(folder / "Ada")
        async with client(home) as face:
            await face.call(Verbs.key_create, name="Ada", organisation="Ada", credential_file=str(folder / "credential"))
            heard = asyncio.Event()

            async def listen() -> None:
                async for _ in face.notices():
                    heard.set()

            listening = asyncio.ensure_future(listen())

            async def said() -> bool:
                await face.call(Verbs.audit_list)
                return heard.is_set()

            await wait_for(said, what="a notice", timeout_s=_PATIENCE_S)
            await _kill(face)
            async with asyncio.timeout(_PATIENCE_S):
                with contextlib.suppress(UnavailableError):
                    await listening
            assert not (await face.call(Verbs.status)).locked

    asyncio.run(story())


def test_kills_of_whole_nodes(folder: Path) -> None:
    asyncio.run(_kills(folder, kills=40))


@pytest.mark.campaign
def test_kills_of_whole_nodes_at_length(folder: Path) -> None:
    asyncio.run(_kills(folder, kills=400))


async def _kills(folder: Path, *, kills: int) -> None:
    """Real processes, started by their faces; sender and recipient are killed in turn, at random moments of many transfers."""
    chance, began, done, rounds = random.Random(f"nodes {SEED}"), time.monotonic(), 0, 0
    print(f"seed {SEED!r}")
    async with client(Home(folder / "Ada")) as ada, client(Home(folder / "Bo")) as bo:
        for face in (ada, bo):
            name = face.home.root.name
            await face.call(Verbs.key_create, name=name, organisation=name, credential_file=str(folder / f"{name}.credential"))
        invitation = await ada.call(Verbs.contact_invite)
        await bo.call(Verbs.contact_accept, text=invitation.text)
        me, you = await ada.call(Verbs.key_show), await bo.call(Verbs.key_show)
        await ada.call(Verbs.contact_verify, contact="Bo", words=list(you.words))
        await bo.call(Verbs.contact_verify, contact="Ada", words=list(me.words))
        while done < kills:
            rounds += 1
            source = make_source(folder / f"source {rounds}", chance, small=200, large=4)
            title, destination = f"round {rounds}", folder / f"received {rounds}"
            made = await ada.call(Verbs.share_create, paths=[str(folder / f"source {rounds}")], to=["Bo"], title=title)
            if chance.random() < 0.5:
                done += 1
                await _kill(ada)

            async def offered(share: str = made.share) -> bool:
                await ada.call(Verbs.status)
                return any(item.share == share for item in await bo.call(Verbs.inbox_list))

            await wait_for(offered, what="the offer", timeout_s=_PATIENCE_S)
            transfer = (await bo.call(Verbs.receive, share=made.share, destination=str(destination))).transfer

            async def over(transfer: str = transfer) -> bool:
                await ada.call(Verbs.status)
                info = await bo.call(Verbs.transfer_show, transfer=transfer)
                assert info.state not in ("failed", "cut", "paused", "cancelled"), f"{info.state} {info.reason}"
                return info.state == "completed"

            for _ in range(8):
                if await over():
                    break
                await asyncio.sleep(chance.uniform(0, 0.8))
                victim = chance.choice((ada, bo))
                sizes = [(await face.call(Verbs.status)).trail_size for face in (ada, bo)]
                await _kill(victim)
                done += 1
                check_released(destination, source)
                for face, size in zip((ada, bo), sizes, strict=True):
                    assert (await face.call(Verbs.status)).trail_size >= size, "an entry that a face was told of is lost"
            await wait_for(over, what=f"{title} to complete", timeout_s=_PATIENCE_S)
            check_released(destination, source, complete=True)
            for place in (destination, folder / f"source {rounds}"):
                shutil.rmtree(place)
        for face in (ada, bo):
            path = folder / f"{face.home.root.name}.labxtrail"
            await face.call(Verbs.audit_export, path=str(path))
            result = verify(path, trust=[me.fingerprint, you.fingerprint])
            assert result.verdict is Verdict.VALID, result.reasons[:3]
    print(f"{done} kills of whole nodes in {rounds} rounds, {time.monotonic() - began:.0f} s; both trails VALID")
