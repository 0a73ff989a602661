"""A new version of a share moves only what changed: whole nodes on the simulated network, and what the sender believes of it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from labxchange.errors import PeerError
from labxchange.identity.statement import sign
from labxchange.node.home import Home
from labxchange.node.node import Node
from labxchange.node.restoring import restore_backup
from labxchange.node.values import TransferInfo
from labxchange.sharing.exchange import Progress, Receipt
from labxchange.store import statements, transfers
from labxchange.store.transfers import TransferRow
from labxchange.transfer.intervals import count
from tests.simulation.test_nodes_hashing import count_sent
from tests.support.nodes import ended, share, until, wait_for
from tests.support.world import World, check_exchange, check_released, midway, settle, simulate, write_files

MIB = 1 << 20


def dataset(seed: int = 1) -> dict[str, bytes]:
    chance = random.Random(f"versions {seed}")
    files = {f"small-{number}": chance.randbytes(20_000) for number in range(8)}
    return files | {"image": chance.randbytes(4 * MIB + 1000), "kept/deep": chance.randbytes(MIB), "empty": b""}


def changed(files: dict[str, bytes]) -> dict[str, bytes]:
    """One chunk of the image and one small file are others, a file is new, one has another name, one is gone."""
    image = bytearray(files["image"])
    image[2 * MIB + 5] ^= 1
    fresh = dict(files) | {"image": bytes(image), "small-1": b"!" * 20_000, "added": b"?" * 5_000}
    fresh["kept/renamed"] = fresh.pop("kept/deep")
    del fresh["small-2"]
    return fresh


MOVED = MIB + 20_000 + 5_000


async def two_versions(world: World, data: Path, *, receive: bool = True) -> tuple[dict[str, bytes], str]:
    """Bo has version 1; version 2 is on offer. Its files, and the share's id."""
    ada, bo = world.machines["Ada"], world.machines["Bo"]
    first = dataset()
    write_files(data, first)
    made = await share(ada.node, bo.node, data, title="Trial")
    if receive:
        done = await ended(bo.node, (await bo.node.receive(share="Trial")).transfer, timeout_s=60)
        assert (done.state, done.reused_bytes) == ("completed", 0)
    shutil.rmtree(data)
    second = write_files(data, changed(first))
    await share(ada.node, bo.node, data, share=made.share)
    return second, made.share


def row_of(node: Node, transfer: str) -> TransferRow:
    with node.core.database.begin() as tx:
        found = transfers.transfer(tx, transfer)
    assert found is not None
    return found


def test_a_new_version_moves_only_what_changed_and_every_book_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        files, share_id = await two_versions(world, tmp_path / "data")
        sent = count_sent(monkeypatch)
        done = await ended(bo.node, (await bo.node.receive(share=f"{share_id}/2")).transfer, timeout_s=60)
        assert (done.state, done.version) == ("completed", 2)
        total = sum(map(len, files.values()))
        assert check_released(Path(done.destination), files) == len(files)
        assert sum(sent) == MOVED
        assert (done.done_bytes, done.reused_bytes) == (total, total - MOVED)
        await settle(ada, bo)
        await check_exchange(ada, bo)
        report = (await bo.node.transfer_report(transfer=done.transfer)).report
        assert (report.verdict, report.bytes, report.reused_bytes) == ("intact", total, total - MOVED)
        for node in (ada.node, bo.node):
            receipt = await node.receipt_show(transfer=done.transfer)
            assert (receipt.bytes, receipt.reused_bytes, receipt.acknowledged) == (total, total - MOVED, True)
            assert row_of(node, done.transfer).reused_bytes == total - MOVED
        assert (await ada.node.share_status(share=share_id)).recipients[0].used == 1
        told = (await bo.node.audit_list(event="transfer.verified", limit=1))[0]
        assert str(total - MOVED) in str(told.fields)
        with ada.node.core.database.begin() as tx:
            progress = [found.body for found in statements.about(tx, done.transfer, Progress)]
        assert [(item.bytes, item.reused) for item in progress] == [(total, total - MOVED)]

    simulate(story, tmp_path)


def test_what_was_changed_on_the_recipients_disk_travels_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        files, share_id = await two_versions(world, tmp_path / "data")
        old = next(Path(item.destination) for item in await bo.node.transfer_list())
        with (old / "image").open("r+b") as image:
            image.write(b"edited")
        (old / "small-3").unlink()
        (old / "small-4").unlink()
        (old / "small-4").symlink_to(old / "small-5")
        sent = count_sent(monkeypatch)
        done = await ended(bo.node, (await bo.node.receive(share=f"{share_id}/2")).transfer, timeout_s=60)
        assert done.state == "completed"
        assert check_released(Path(done.destination), files) == len(files)
        assert sum(sent) == MOVED + MIB + 2 * 20_000
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_parts_of_a_cancelled_or_unfinished_version_are_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        files, share_id = await two_versions(world, tmp_path / "data", receive=False)
        started = await bo.node.receive(share=f"{share_id}/2")
        await midway(bo.node, started.transfer, least_bytes=MIB)
        paused = await bo.node.transfer_pause(transfer=started.transfer)
        shutil.rmtree(tmp_path / "data")
        third = write_files(tmp_path / "data", files | {"new": b"3"})
        await share(ada.node, bo.node, tmp_path / "data", share=share_id)
        done = await ended(bo.node, (await bo.node.receive(share=f"{share_id}/3")).transfer, timeout_s=60)
        assert done.state == "completed"
        assert done.reused_bytes == paused.done_bytes > MIB
        assert check_released(Path(done.destination), third) == len(third)
        await bo.node.transfer_cancel(transfer=started.transfer)
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path, delay_s=0.2)


def test_a_crash_between_copying_and_fetching_keeps_both_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        files, share_id = await two_versions(world, tmp_path / "data")
        world.cut_wire(ada, bo)
        started = await bo.node.receive(share=f"{share_id}/2")
        await until(bo.node, started.transfer, "waiting", timeout_s=60)
        world.mend_wire(ada, bo)
        total = sum(map(len, files.values()))
        await wait_for(lambda: row_of(bo.node, started.transfer).reused_bytes > MIB, what="copies", timeout_s=120)
        bo.crash()
        await bo.boot()
        done = await ended(bo.node, started.transfer, timeout_s=120)
        assert (done.state, done.done_bytes) == ("completed", total)
        assert MIB < done.reused_bytes <= total - MOVED
        assert check_released(Path(done.destination), files) == len(files)
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path, delay_s=0.2)


# --- what the sender believes -----------------------------------------------------------------------------------------
async def forged(world: World, done: TransferInfo, **wrong: object) -> Receipt:
    """Bo's intact receipt, said otherwise."""
    bo = world.machines["Bo"].node
    with bo.core.database.begin() as tx:
        receipts = [found.body for found in statements.about(tx, done.transfer, Receipt)]
    intact = next(item for item in receipts if item.level == "intact")
    return replace(intact, issued=intact.issued + 1, **wrong)


def test_a_receipt_over_chunks_that_never_went_out_is_refused(tmp_path: Path) -> None:
    """Reuse is believed only of what this person was sent: in another transfer of the share, by the sender's own notes."""

    async def story(world: World) -> None:
        ada, bo = await world.pair()
        _, share_id = await two_versions(world, tmp_path / "data")
        done = await ended(bo.node, (await bo.node.receive(share=f"{share_id}/2")).transfer, timeout_s=60)
        await settle(ada, bo)
        first = next(item for item in await ada.node.transfer_list() if item.version == 1)
        identity = bo.node.core.require()

        def refused(body: Receipt) -> bool:
            with pytest.raises(PeerError) as caught:
                ada.node.receipts.countersign(sign(body, identity))
            return caught.value.code == "receipt-wrong"

        assert ada.node.receipts.countersign(sign(await forged(world, done), identity)), "as it is it holds"
        assert refused(await forged(world, done, reused=0)), "it says that more travelled than was sent"
        assert refused(await forged(world, done, reused=done.bytes + 1))
        with ada.node.core.database.begin() as tx:
            kept = transfers.arrived_chunks(tx, first.transfer)
            transfers.drop_arrived(tx, first.transfer)
        assert refused(await forged(world, done, reused=done.reused_bytes + 1)), "the first version was never sent"
        with ada.node.core.database.begin() as tx:
            transfers.replace_arrived(tx, first.transfer, [*kept[:-1], (kept[-1][0], kept[-1][1] - 1)])
        assert refused(await forged(world, done, reused=done.reused_bytes + 2)), "not all of it was"

    simulate(story, tmp_path)


def test_a_slot_does_not_return_when_little_was_sent_and_much_was_there(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        _, share_id = await two_versions(world, tmp_path / "data")
        started = await bo.node.receive(share=f"{share_id}/2")
        await ended(bo.node, started.transfer, timeout_s=60)
        row = row_of(ada.node, started.transfer)
        loaded = ada.node.catalog.load(ada.node.shares.find(f"{share_id}/2"))
        image = next(number for number, file in enumerate(loaded.files) if file.path == "image")
        changed_chunk = loaded.line.chunks_of(image)[2]
        books = ada.node.books

        def noted(chunks: list[tuple[int, int]]) -> bool:
            with ada.node.core.database.begin() as tx:
                transfers.replace_arrived(tx, row.transfer, chunks)
            return books.nothing_whole_sent(row)

        assert noted([]), "a file of which nothing was sent is no download"
        assert not noted([(changed_chunk, changed_chunk)]), "with it the image is whole at the recipient"
        first = next(item for item in await ada.node.transfer_list() if item.version == 1)
        with ada.node.core.database.begin() as tx:
            transfers.drop_arrived(tx, first.transfer)
        assert noted([(changed_chunk, changed_chunk)]), "without the first version one chunk makes no file"

    simulate(story, tmp_path)


def test_a_sender_restored_from_a_backup_takes_the_receipt_of_what_it_forgot(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        data, backup = tmp_path / "data", tmp_path / "ada.backup"
        files = write_files(data, dataset())
        made = await share(ada.node, bo.node, data, title="Trial")
        await ada.node.node_backup(path=str(backup))
        started = await bo.node.receive(share="Trial")
        await midway(bo.node, started.transfer, least_bytes=MIB)
        await ada.stop()
        shutil.move(ada.home, tmp_path / "lost")
        restore_backup(backup, Home(ada.home))
        await ada.boot(unlock=False)
        await ada.node.unlock(credential_file=str(ada.home.with_suffix(".credential")))
        done = await ended(bo.node, started.transfer, timeout_s=300)
        assert done.state == "completed"
        assert check_released(Path(done.destination), files) == len(files)
        with ada.node.core.database.begin() as tx:
            noted = count(transfers.arrived_chunks(tx, started.transfer))
        assert noted < 15, "it knows only what it sent after the backup"
        await settle(ada, bo)
        told = await ada.node.audit_list(event="transfer.receipt")
        assert {entry.result_code for entry in told if entry.object_type == "receipt"} == {"notes-short"}
        assert not ada.node.books.nothing_whole_sent(row_of(ada.node, started.transfer)), "notes that are short free no slot"

        shutil.rmtree(data)
        write_files(data, changed(files))
        await share(ada.node, bo.node, data, share=made.share)
        later = await ended(bo.node, (await bo.node.receive(share=f"{made.share}/2")).transfer, timeout_s=60)
        assert not ada.node.books.may_be_short(row_of(ada.node, later.transfer)), "a grant that is younger than the backup"
        assert later.state in ("completed", "verified")

    simulate(story, tmp_path, delay_s=0.2)
