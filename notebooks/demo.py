"""The main job, told as a story: a sponsor shares trial data with a CRO, and both can prove it afterwards.

Three real nodes run on this machine, each a process of its own with its own home; they speak over real UDP sockets on the
loopback address. Everything printed was asked of the nodes; the script stops with an error when anything is not as told.
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
from collections.abc import Awaitable, Callable
from pathlib import Path

from labxchange.errors import LabxchangeError
from labxchange.node.client import Client
from labxchange.node.home import Home
from labxchange.node.values import ShareInfo, TransferInfo
from labxchange.node.verbs import Verbs

DATA = Path(__file__).parent / "data" / "cdisc-pilot"
OVER = ("completed", "failed", "cut", "cancelled")


class NotAsTold(Exception):
    """Something went otherwise than the story says."""


def say(text: str = "") -> None:
    print(text, flush=True)


def check(holds: bool, what: str) -> None:
    if not holds:
        raise NotAsTold(what)


async def until(what: str, ask: Callable[[], Awaitable[bool]], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not await ask():
        check(time.monotonic() < deadline, f"{what} did not happen within {timeout_s:.0f} s")
        await asyncio.sleep(0.1)


async def person(folder: Path, name: str, organisation: str, role: str) -> Client:
    """A node with an identity; its credential file lies beside its home, as a service would keep it."""
    client = Client(Home(folder / "home"))
    made = await client.call(
        Verbs.key_create, name=name, organisation=organisation, role=role, credential_file=str(folder / "credential")
    )
    say(f"  {name} ({role}, {organisation})")
    say(f"    fingerprint {made.fingerprint}")
    return client


async def refused(work: Awaitable[object], code: str) -> LabxchangeError:
    try:
        await work
    except LabxchangeError as error:
        check(error.code == code, f"refused with {error.code!r} instead of {code!r}: {error.message}")
        return error
    raise NotAsTold(f"{code} was expected, but the action was allowed")


async def watch(cro: Client, transfer: str) -> TransferInfo:
    """Show progress until the transfer is over."""
    shown = ""
    lanes = 0
    while True:
        info = await cro.call(Verbs.transfer_show, transfer=transfer)
        percent = 100 * info.done_bytes // max(info.bytes, 1)
        line = f"    {percent:3d} %  {info.done_files}/{info.files} files  {info.state}"
        if line != shown:
            say(line)
            shown = line
        lanes = max(lanes, info.path.lanes)
        if info.state in OVER:
            if lanes:
                say(f"    over {lanes} lane{'' if lanes == 1 else 's'}")
            return info
        await asyncio.sleep(0.1)


async def exchange(sponsor: Client, cro: Client, folder: Path, title: str, study: str) -> TransferInfo:
    made: ShareInfo = await sponsor.call(
        Verbs.share_create, paths=[str(folder)], to=["Ben Okafor"], title=title, study=study, purpose="independent re-analysis"
    )
    say(f"  Ada shares “{title}” with Ben: {made.files} files, {made.bytes:,} bytes, for 30 days.")

    async def offered() -> bool:
        return any(item.share == made.share for item in await cro.call(Verbs.inbox_list))

    await until("the offer reaching the CRO", offered)
    started = await cro.call(Verbs.receive, share=made.share)
    done = await watch(cro, started.transfer)
    check(done.state == "completed", f"the transfer ended as {done.state} ({done.reason})")
    report = (await cro.call(Verbs.transfer_report, transfer=done.transfer)).report
    check(report.verdict == "intact", f"the verdict is {report.verdict}")
    say(f"  Ben's node verified it: {report.matched} files match, {report.differ} differ, {report.missing} are missing.")
    for name in report.checks_run:
        say(f"    checked: {name}")
    for item in report.checks_not_run:
        say(f"    not checked: {item.name} ({item.why})")
    same = all((Path(done.destination) / file.relative_to(folder)).read_bytes() == file.read_bytes() for file in folder.rglob("*") if file.is_file())
    check(same, "a received file differs from its source")
    receipt = await cro.call(Verbs.receipt_show, transfer=done.transfer)
    check(receipt.acknowledged and receipt.verdict == "match", "the receipt is not countersigned")
    say(f"  Receipt {receipt.receipt[:16]}…: {receipt.level}, {receipt.verdict}, countersigned by Ada's node.")
    say(f"    path: {receipt.path}")
    check(done.path.plane == "lanes", f"the data fell back to {done.path.plane} ({done.path.reason})")
    return done


async def story(root: Path) -> None:
    say("1. Three people, three nodes, no server and no account.")
    sponsor = await person(root / "sponsor", "Ada Lindqvist", "Northwind Pharma", "data manager")
    cro = await person(root / "cro", "Ben Okafor", "Meridian CRO", "biostatistician")
    third = await person(root / "third", "Mallory Finch", "Elsewhere", "nobody they know")
    people = [sponsor, cro, third]
    try:
        say("\n2. Ada invites Ben. The invitation lets two nodes meet once; it opens no data.")
        invitation = await sponsor.call(Verbs.contact_invite)
        say(f"    {invitation.text[:60]}…")
        await cro.call(Verbs.contact_accept, text=invitation.text)
        error = await refused(third.call(Verbs.contact_accept, text=invitation.text), "invitation-used")
        say(f"  Mallory got hold of the same text and is refused: {error.message} [{error.code}]")
        alert = (await sponsor.call(Verbs.contact_list))[0].alert
        check(bool(alert), "the sponsor was not told of the second use")
        say(f"  Ada is told: {alert}")

        say("\n3. On the telephone they read each other six words, and each types what they heard.")
        ada, ben = await sponsor.call(Verbs.key_show), await cro.call(Verbs.key_show)
        say(f"  Ada reads: {' '.join(ada.words)}")
        say(f"  Ben reads: {' '.join(ben.words)}")
        await sponsor.call(Verbs.contact_verify, contact="Ben Okafor", words=list(ben.words))
        await cro.call(Verbs.contact_verify, contact="Ada Lindqvist", words=list(ada.words))
        say("  Both have verified each other.")

        say("\n4. Real trial data: three ADaM datasets of the CDISC pilot study.")
        await exchange(sponsor, cro, DATA, "CDISC pilot ADaM", "CDISCPILOT01")

        say("\n5. Images: the DICOM files that pydicom ships.")
        images = root / "dicom"
        import pydicom.data

        source = Path(pydicom.data.__file__).parent / "test_files"
        images.mkdir()
        for file in sorted(source.glob("*.dcm")):
            shutil.copy2(file, images / file.name)
        await exchange(sponsor, cro, images, "DICOM series", "CDISCPILOT01")

        say("\n6. Ada shares something else and changes her mind.")
        draft = await sponsor.call(Verbs.share_create, paths=[str(DATA / "adsl.xpt")], to=["Ben Okafor"], title="Draft adsl")

        async def here() -> bool:
            return any(item.share == draft.share for item in await cro.call(Verbs.inbox_list))

        await until("the offer reaching the CRO", here)
        await sponsor.call(Verbs.share_revoke, share="Draft adsl", reason="wrong cut of the data")

        async def revoked() -> bool:
            return any(item.share == draft.share and item.state == "revoked" for item in await cro.call(Verbs.inbox_list))

        await until("the revocation reaching the CRO", revoked)
        late = await cro.call(Verbs.receive, share=draft.share)
        done = await watch(cro, late.transfer)
        check(done.state == "cut" and done.reason == "grant-revoked", f"the transfer ended as {done.state} ({done.reason})")
        say(f"  Ben's node asks all the same and is refused: {done.reason}; {done.done_bytes} bytes arrived.")

        say("\n7. Both export their audit trails; anybody can verify them offline.")
        await cosigned(sponsor, cro)
        for client, name in ((sponsor, "sponsor"), (cro, "cro")):
            bundle = root / f"{name}.labxtrail"
            told = await client.call(Verbs.audit_export, path=str(bundle))
            say(f"  {name}: {told.entries} entries, {told.cosigned} checkpoints cosigned by the other side -> {bundle.name}")
        verify(root, ada.fingerprint, ben.fingerprint)
    finally:
        for client in people:
            with contextlib.suppress(LabxchangeError):
                await client.stop_node()
            await client.close()
        await asyncio.gather(*(gone(client) for client in people))


async def cosigned(*clients: Client) -> None:
    """The last receipts are cosigned within a moment of being exchanged."""
    for client in clients:

        completed = (await client.call(Verbs.audit_list, event="transfer.completed", limit=1))[0].seq

        async def done(client: Client = client, completed: int = completed) -> bool:
            newest = await client.call(Verbs.audit_list, event="trail.cosigned", limit=1)
            return newest[0].seq > completed

        await until("the cosignature over the receipts", done)


async def gone(client: Client) -> None:
    async def stopped() -> bool:
        return not (client.home.root / "node.lock").exists()

    await until("the node stopping", stopped)


def verify(root: Path, *fingerprints: str) -> None:
    trust = [word for text in fingerprints for word in ("--trust", text)]
    for name, other in (("sponsor", "cro"), ("cro", "sponsor")):
        command = [sys.executable, "-m", "labxchange.audit.verifier", f"{name}.labxtrail", "--with", f"{other}.labxtrail", *trust]
        told = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        lines = told.stdout.strip().splitlines()
        check(told.returncode == 0 and lines[:1] == ["VALID"], f"the {name}'s trail: {told.stdout}{told.stderr}")
        say(f"  {name}.labxtrail: {lines[0]}; {lines[-1]}")


def main() -> int:
    began = time.monotonic()
    os.environ["LABXCHANGE_LISTEN"] = "127.0.0.1"
    with tempfile.TemporaryDirectory(prefix="labxchange-demo-") as folder:
        for name in ("sponsor", "cro", "third"):
            (Path(folder) / name).mkdir()
        os.environ["XDG_RUNTIME_DIR"] = folder
        try:
            asyncio.run(story(Path(folder)))
        except (NotAsTold, LabxchangeError) as error:
            say(f"\nNOT AS TOLD: {error}")
            return 1
    say(f"\nAll of it happened as told, in {time.monotonic() - began:.0f} seconds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
