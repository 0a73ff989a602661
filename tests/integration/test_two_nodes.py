"""Two nodes as real processes over loopback sockets, through the client that every face uses."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from labxchange.audit.verifier import Verdict, verify
from labxchange.errors import InputError, NodeLocked, RefusedError, UnavailableError
from labxchange.node.client import Client
from labxchange.node.home import Home
from labxchange.node.values import Me, ShareInfo, TransferInfo
from labxchange.node.verbs import Verbs
from tests.integration.conftest import Person
from tests.support.nodes import wait_for
from tests.support.world import check_released, many_files, write_files

OVER = ("completed", "failed", "cut", "cancelled")


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(150):
            await work

    asyncio.run(bounded())


async def person(place: Path, name: str) -> tuple[Person, Me]:
    made = Person(place, name)
    me = await made.client.call(Verbs.key_create, name=name, organisation=f"{name} Ltd", credential_file=str(made.credential))
    return made, me


async def pair(place: Path) -> tuple[Person, Person]:
    """Ada and Bo, who have verified each other."""
    (ada, one), (bo, other) = await asyncio.gather(person(place, "Ada"), person(place, "Bo"))
    made = await ada.client.call(Verbs.contact_invite)
    await bo.client.call(Verbs.contact_accept, text=made.text)
    await wait_for(lambda: known(ada, other.key), what="Ada to know Bo")
    await ada.client.call(Verbs.contact_verify, contact=other.key, words=list(other.words))
    await bo.client.call(Verbs.contact_verify, contact=one.key, words=list(one.words))
    return ada, bo


async def known(who: Person, key: str) -> bool:
    return any(item.key == key for item in await who.client.call(Verbs.contact_list))


async def offered(who: Person, made: ShareInfo) -> None:
    async def there() -> bool:
        return any(item.share == made.share for item in await who.client.call(Verbs.inbox_list))

    await wait_for(there, what="the offer", timeout_s=40)


async def state(who: Person, transfer: str, reached: Callable[[TransferInfo], bool], *, timeout_s: float = 60) -> TransferInfo:
    last: TransferInfo | None = None

    async def there() -> TransferInfo | None:
        nonlocal last
        last = await who.client.call(Verbs.transfer_show, transfer=transfer)
        return last if reached(last) else None

    try:
        found = await wait_for(there, what="the transfer", timeout_s=timeout_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {last}") from None
    assert found is not None
    return found


async def ended(who: Person, transfer: str, *, timeout_s: float = 90) -> TransferInfo:
    return await state(who, transfer, lambda info: info.state in OVER, timeout_s=timeout_s)


async def agreed(place: Path, *people: Person) -> None:
    """Both trails are cosigned to their receipts, and valid offline."""
    for who in people:

        async def anchored(who: Person = who) -> bool:
            told = await who.client.call(Verbs.audit_list, event="transfer.receipt", limit=1)
            cosigned = await who.client.call(Verbs.audit_list, event="trail.cosigned", limit=1)
            return bool(told and cosigned) and cosigned[0].seq > told[0].seq

        await wait_for(anchored, what="the cosignature", timeout_s=60)
    trust = [(await who.client.call(Verbs.key_show)).fingerprint for who in people]
    for who in people:
        bundle = place / f"{who.name}-{time.monotonic_ns()}.labxtrail"
        await who.client.call(Verbs.audit_export, path=str(bundle))
        result = verify(bundle, trust=trust)
        assert result.verdict is Verdict.VALID, result.reasons


async def leave(*people: Person) -> None:
    for who in people:
        await who.stop()


def test_the_story_through_the_client(place: Path) -> None:
    async def story() -> None:
        ada, bo = await pair(place)
        files = write_files(place / "data", many_files(50, 20_000) | {"empty": b"", "deep/er/name": b"x", "folder/": b""})
        notices: list[str] = []

        async def listen() -> None:
            async with Client(bo.home) as client:
                async for notice in client.notices():
                    notices.append(notice.kind)

        listener = asyncio.ensure_future(listen())
        made = await ada.client.call(
            Verbs.share_create, paths=[str(place / "data")], to=["Bo"], title="Trial", study="S1", purpose="analysis"
        )
        await offered(bo, made)
        started = await bo.client.call(Verbs.receive, share="Trial")
        done = await ended(bo, started.transfer)
        assert (done.state, done.done_files) == ("completed", 53)
        assert check_released(Path(done.destination), files) == 52
        report = (await bo.client.call(Verbs.transfer_report, transfer=done.transfer)).report
        assert (report.verdict, report.matched) == ("intact", 53)
        receipt = await bo.client.call(Verbs.receipt_show, transfer=done.transfer)
        assert receipt.acknowledged
        (place / "receipt.json").write_text(receipt.file)
        status = (await ada.client.call(Verbs.share_status, share="Trial")).recipients[0]
        assert (status.state, status.used, status.acknowledged) == ("verified", 1, True)
        await agreed(place, ada, bo)
        listener.cancel()
        assert {"inbox", "transfer", "trail"} <= set(notices)
        with pytest.raises(RefusedError) as refused:
            await _third(place, (await ada.client.call(Verbs.contact_invite)).text, ada)
        assert refused.value.code == "invitation-used"
        await leave(ada, bo)
        assert not (ada.home.root / "node.lock").exists()

    run(story())


async def _third(place: Path, text: str, ada: Person) -> None:
    """Two more people use one invitation."""
    (cy, _), (eve, _) = await asyncio.gather(person(place, "Cy"), person(place, "Eve"))
    await cy.client.call(Verbs.contact_accept, text=text)
    try:
        await eve.client.call(Verbs.contact_accept, text=text)
    finally:
        await leave(cy, eve)


@pytest.mark.parametrize("victim", ["sender", "recipient", "both"])
def test_a_kill_in_the_middle_of_a_transfer(place: Path, victim: str) -> None:
    """kill -9; whoever asks the node next starts it, and it goes on by itself; nothing verified comes again."""

    async def story() -> None:
        ada, bo = await pair(place)
        files = write_files(place / "data", many_files(40, 20_000) | {"large": many_files(1, 48 << 20)["part-000.bin"]})
        made = await ada.client.call(Verbs.share_create, paths=[str(place / "data")], to=["Bo"], title="Trial")
        await offered(bo, made)
        started = await bo.client.call(Verbs.receive, share="Trial", rate=12_000_000)  # so that there is a middle
        before = await state(bo, started.transfer, lambda info: 0 < info.done_bytes < info.bytes)
        if victim in ("sender", "both"):
            ada.kill()
        if victim in ("recipient", "both"):
            bo.kill()
        if victim == "sender":
            await state(bo, started.transfer, lambda info: info.state == "waiting")
        after = await bo.client.call(Verbs.transfer_show, transfer=started.transfer)
        assert after.done_bytes >= before.done_bytes
        await ada.client.call(Verbs.status)
        done = await ended(bo, started.transfer)
        assert done.state == "completed"
        assert check_released(Path(done.destination), files) == 41
        await agreed(place, ada, bo)
        for who, killed in ((ada, victim != "recipient"), (bo, victim != "sender")):
            recovered = await who.client.call(Verbs.audit_list, event="system.recovered")
            assert len(recovered) == int(killed), who.name
        await leave(ada, bo)

    run(story())


def test_faces_that_start_the_node_at_once_get_one_node(place: Path) -> None:
    async def story() -> None:
        people = [Client(Home(place / "Ada")) for _ in range(6)]
        shown = await asyncio.gather(*(client.call(Verbs.status) for client in people))
        assert len({item.pid for item in shown}) == 1
        code = (
            "import asyncio; from labxchange.node.client import Client; from labxchange.node.verbs import Verbs\n"
            "async def main():\n"
            "    async with Client() as node: print((await node.call(Verbs.status)).pid)\n"
            "asyncio.run(main())"
        )
        import os

        env = os.environ | {"LABXCHANGE_HOME": str(place / "Bo")}
        faces = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=env, stdout=subprocess.PIPE) for _ in range(4)
        ]
        told = {(await face.communicate())[0].strip() for face in faces}
        assert len(told) == 1
        assert told != {b""}
        for client in people:
            await client.close()
        for name in ("Ada", "Bo"):
            await Person(place, name).stop()

    run(story())


def test_stop_and_start(place: Path) -> None:
    async def story() -> None:
        ada, me = await person(place, "Ada")
        first = ada.pid
        await ada.stop()
        quiet = Client(ada.home, start=False)
        with pytest.raises(UnavailableError) as off:
            await quiet.call(Verbs.status)
        assert off.value.code == "node-not-running"
        await quiet.close()
        again = await ada.client.call(Verbs.key_show)
        assert (again.key, again.locked, again.addresses) == (me.key, False, me.addresses)
        assert ada.pid != first
        events = [item.event for item in await ada.client.call(Verbs.audit_list, event="system.", limit=10)]
        assert events == ["system.started", "system.stopped"] or events[:2] == ["system.started", "system.stopped"]
        ada.kill()
        assert (await ada.client.call(Verbs.key_show)).key == me.key
        events = [item.event for item in await ada.client.call(Verbs.audit_list, event="system.", limit=10)]
        assert events.count("system.recovered") == 1
        await ada.stop()

    run(story())


def test_a_locked_node_a_wrong_passphrase_and_the_right_one(place: Path) -> None:
    async def story() -> None:
        ada = Person(place, "Ada")
        me = await ada.client.call(Verbs.key_create, name="Ada", organisation="A", passphrase="correct horse battery")
        assert not me.locked
        await ada.stop()
        assert (await ada.client.call(Verbs.key_show)).locked
        with pytest.raises(NodeLocked):
            await ada.client.call(Verbs.contact_invite)
        with pytest.raises(NodeLocked):
            await ada.client.call(Verbs.inbox_list)
        with pytest.raises(InputError) as wrong:
            await ada.client.call(Verbs.unlock, passphrase="incorrect horse")
        assert wrong.value.code == "passphrase-wrong"
        with pytest.raises(InputError) as none:
            await ada.client.call(Verbs.unlock)
        assert none.value.code == "no-unlock-method"
        assert not (await ada.client.call(Verbs.unlock, passphrase="correct horse battery")).locked
        await ada.client.call(Verbs.contact_invite)
        failed = await ada.client.call(Verbs.audit_list, event="identity.unlock-failed")
        assert [item.result_code for item in failed] == ["passphrase-wrong"]
        with pytest.raises(InputError) as second:
            await ada.client.call(Verbs.key_create, name="Eve", organisation="E", passphrase="correct horse battery")
        assert second.value.code == "identity-exists"
        await ada.stop()

    run(story())


def test_key_backup_and_restore_on_another_machine(place: Path) -> None:
    async def story() -> None:
        ada, me = await person(place, "Ada")
        saved = place / "ada.key"
        await ada.client.call(Verbs.key_backup, path=str(saved), backup_passphrase="paper in the safe")
        assert saved.stat().st_mode & 0o777 == 0o600
        with pytest.raises(InputError) as exists:
            await ada.client.call(Verbs.key_backup, path=str(saved), backup_passphrase="paper in the safe")
        assert exists.value.code == "file-exists"
        await ada.stop()
        new = Person(place / "new machine", "Ada")
        with pytest.raises(InputError) as wrong:
            await new.client.call(
                Verbs.key_restore, path=str(saved), backup_passphrase="something else", passphrase="correct horse"
            )
        assert wrong.value.code == "passphrase-wrong"
        back = await new.client.call(
            Verbs.key_restore, path=str(saved), backup_passphrase="paper in the safe", passphrase="correct horse"
        )
        assert (back.key, back.words, back.name) == (me.key, me.words, me.name)
        assert len(await new.client.call(Verbs.audit_list, event="trail.restored")) == 1
        await new.stop()

    run(story())


def test_node_backup_wipe_and_restore(place: Path) -> None:
    """The drill: back up, go on, lose the machine, restore by the command line, go on; the other side says what is missing."""

    async def story() -> None:
        ada, bo = await pair(place)
        write_files(place / "data", many_files(3, 5000))
        first = await ada.client.call(Verbs.share_create, paths=[str(place / "data")], to=["Bo"], title="first")
        await offered(bo, first)
        started = await bo.client.call(Verbs.receive, share="first")
        assert (await ended(bo, started.transfer)).state == "completed"
        await agreed(place, ada, bo)
        saved = place / "ada.node"
        await ada.client.call(Verbs.node_backup, path=str(saved))
        lost = await ada.client.call(Verbs.share_create, paths=[str(place / "data")], to=["Bo"], title="lost")
        await offered(bo, lost)
        await ada.stop()  # a new session shows the later trail
        await wait_for(lambda: _witnessed_after(ada), what="Bo to see the later trail", timeout_s=60)
        await ada.stop()
        import os
        import shutil

        shutil.rmtree(ada.home.root)
        restored = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "labxchange.cli.main", "node", "restore", str(saved)],
            env=os.environ | {"LABXCHANGE_HOME": str(ada.home.root)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert restored.returncode == 0, restored.stdout + restored.stderr
        back = Person(place, "Ada")
        assert (await back.client.call(Verbs.key_show)).locked
        await back.client.call(Verbs.unlock, credential_file=str(ada.credential))
        assert [item.title for item in await back.client.call(Verbs.share_list)] == ["first"]

        async def told() -> bool:
            return any("entries missing" in item.trail for item in await bo.client.call(Verbs.contact_list))

        await wait_for(told, what="Bo to be told", timeout_s=60)
        again = await back.client.call(Verbs.share_create, paths=[str(place / "data")], to=["Bo"], title="again")
        await offered(bo, again)
        taken = await bo.client.call(Verbs.receive, share="again")
        assert (await ended(bo, taken.transfer)).state == "completed"
        bundle = place / "restored.labxtrail"
        await back.client.call(Verbs.audit_export, path=str(bundle))
        trust = [(await who.client.call(Verbs.key_show)).fingerprint for who in (back, bo)]
        assert verify(bundle, trust=trust).verdict is Verdict.INCOMPLETE
        await leave(back, bo)

    run(story())


async def _witnessed_after(who: Person) -> bool:
    offered_at = (await who.client.call(Verbs.audit_list, event="transfer.offered", limit=1))[0].seq
    cosigned = await who.client.call(Verbs.audit_list, event="trail.cosigned", limit=1)
    return cosigned[0].seq > offered_at


def test_only_the_recipient_can_be_called(place: Path) -> None:
    """The sender's own port is not told to anybody; it dials, and its share is fetched over that connection."""

    async def story() -> None:
        (ada, one), (bo, other) = await asyncio.gather(person(place, "Ada"), person(place, "Bo"))
        await ada.client.call(Verbs.node_configure, addresses=["192.0.2.1"])  # where nobody answers
        await ada.stop()
        await ada.client.call(Verbs.key_show)
        made = await bo.client.call(Verbs.contact_invite)
        await ada.client.call(Verbs.contact_accept, text=made.text)
        await wait_for(lambda: known(bo, one.key))
        await ada.client.call(Verbs.contact_verify, contact=other.key, words=list(other.words))
        await bo.client.call(Verbs.contact_verify, contact=one.key, words=list(one.words))
        files = write_files(place / "data", many_files(10, 50_000))
        share = await ada.client.call(Verbs.share_create, paths=[str(place / "data")], to=["Bo"], title="Trial")
        await offered(bo, share)
        started = await bo.client.call(Verbs.receive, share="Trial")
        done = await ended(bo, started.transfer)
        assert done.state == "completed"
        assert check_released(Path(done.destination), files) == 10
        ada.kill()
        more = write_files(place / "more", many_files(3, 1000, seed=2))
        await ada.client.call(Verbs.status)
        second = await ada.client.call(Verbs.share_create, paths=[str(place / "more")], to=["Bo"], title="More")
        await offered(bo, second)
        taken = await bo.client.call(Verbs.receive, share="More")
        done = await ended(bo, taken.transfer)
        assert check_released(Path(done.destination), more) == 3
        await agreed(place, ada, bo)
        await leave(ada, bo)

    run(story())
