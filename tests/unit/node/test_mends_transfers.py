"""Transfers that end and begin again: only a signed word ends one, a failure leaves no holes, receipts claim what was sent."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import delete

from labxchange.errors import PeerError
from labxchange.identity.statement import sign
from labxchange.net.channel import Channel
from labxchange.node.node import Node
from labxchange.sharing.exchange import Cut, Receipt
from labxchange.store import statements, tables, transfers
from labxchange.store.shares import ShareRow
from labxchange.store.transfers import TransferRow
from labxchange.transfer import receive, streams
from tests.support.nodes import ended, share, until, wait_for
from tests.support.world import (
    World,
    check_exchange,
    check_released,
    many_files,
    midway,
    receipts_of,
    settle,
    simulate,
    write_files,
)


def row_of(node: Node, transfer: str) -> TransferRow:
    with node.core.database.begin() as tx:
        row = transfers.transfer(tx, transfer)
    assert row is not None
    return row


def cuts_of(node: Node, transfer: str) -> list[Cut]:
    with node.core.database.begin() as tx:
        return [found.body for found in statements.about(tx, transfer, Cut)]


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """One file of 1 MiB asked for at a time."""
    monkeypatch.setattr(streams, "FETCH_BYTES", 1 << 20)
    monkeypatch.setattr(streams, "FETCH_PARALLEL", 1)
    monkeypatch.setattr(receive, "JOURNAL_BYTES", 1 << 18)


@pytest.mark.usefixtures("small_steps")
def test_a_connection_that_is_closed_with_the_code_of_a_rule_ends_nothing(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        files = write_files(tmp_path / "data", many_files(120, 60_000))
        await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        started = await bo.node.receive(share="Trial")
        await midway(bo.node, started.transfer)
        channel = ada.node.peers.connected(bo.node.core.me)
        assert channel is not None
        channel.close("grant-revoked")
        await wait_for(lambda: row_of(bo.node, started.transfer).reason == "grant-revoked", what="the wait")
        assert row_of(bo.node, started.transfer).state == "waiting"
        done = await ended(bo.node, started.transfer, timeout_s=120)
        assert done.state == "completed"
        assert not cuts_of(bo.node, started.transfer)
        check_released(Path(done.destination), files)
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_trouble_that_nobody_foresaw_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", many_files(2, 1000))
        await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        real, left = bo.node.receiving._attempts._asking._start, [RuntimeError("a bug"), KeyError("another")]

        async def begin(channel: Channel, *rows: object) -> ShareRow:
            if left:
                raise left.pop(0)
            return await real(channel, *rows)

        monkeypatch.setattr(bo.node.receiving._attempts._asking, "_start", begin)
        started = await bo.node.receive(share="Trial")
        assert (await ended(bo.node, started.transfer, timeout_s=60)).state == "completed"
        await settle(ada, bo)

    simulate(story, tmp_path)


def test_a_name_that_is_taken_keeps_the_part_and_a_resume_makes_it_whole(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        files = write_files(tmp_path / "data", many_files(3, 50_000))
        await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        place = tmp_path / "place"
        write_files(place, {"part-001.bin": b"something of Bo's"})
        started = await bo.node.receive(share="Trial", destination=str(place))
        failed = await ended(bo.node, started.transfer)
        assert (failed.state, failed.reason) == ("failed", "not-intact")
        assert [part.name for part in (place / f".labxchange-{started.transfer}").iterdir()] == ["1.part"]
        assert (place / "part-001.bin").read_bytes() == b"something of Bo's"
        await settle(ada, bo)

        (place / "part-001.bin").rename(tmp_path / "moved away")
        again = await bo.node.receive(share="Trial", destination=str(place))
        assert again.transfer == started.transfer
        assert (await ended(bo.node, started.transfer)).state == "completed"
        assert check_released(place, files) == 3
        assert sum(path.name.startswith(".labxchange") for path in place.iterdir()) == 0
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


@pytest.mark.usefixtures("small_steps")
def test_after_a_cancel_the_same_place_takes_the_share_again(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        files = write_files(tmp_path / "data", many_files(8, 1 << 20))
        await share(ada.node, bo.node, tmp_path / "data", title="Trial", downloads=2)
        started = await bo.node.receive(share="Trial")
        await wait_for(lambda: row_of(bo.node, started.transfer).done_files, what="a file in place")
        cancelled = await bo.node.transfer_cancel(transfer=started.transfer)
        assert cancelled.state == "cancelled"
        entry = (await bo.node.audit_list(event="transfer.failed"))[0]
        with bo.node.core.database.begin() as tx:
            assert statements.get(tx, entry.fields["object_digest"]), "the entry names the signed cut"
        await until(ada.node, started.transfer, "cancelled")
        assert row_of(ada.node, started.transfer).slot == "reserved", "a whole file was sent"
        again = await bo.node.receive(share="Trial")
        assert again.transfer != started.transfer
        done = await ended(bo.node, again.transfer)
        assert done.state == "completed"
        assert check_released(Path(done.destination), files) == 8
        await settle(ada, bo)

    simulate(story, tmp_path)


@pytest.mark.usefixtures("small_steps")
def test_a_cancel_before_a_whole_file_went_out_gives_the_slot_back(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", many_files(1, 6 << 20))
        await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        started = await bo.node.receive(share="Trial")
        await wait_for(lambda: row_of(bo.node, started.transfer).state == "running", what="the start")
        await bo.node.transfer_cancel(transfer=started.transfer)
        await until(ada.node, started.transfer, "cancelled")
        assert row_of(ada.node, started.transfer).slot == "returned"
        assert len(await ada.node.audit_list(event="download.returned")) == 1
        await settle(ada, bo)

    simulate(story, tmp_path)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("how", ["expired", "revoked"])
def test_a_grant_that_ends_while_the_other_side_is_away_ends_the_transfer_on_both(tmp_path: Path, how: str) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", many_files(120, 60_000))
        terms = {"not_after": ada.wall() + 300_000} if how == "expired" else {}
        await share(ada.node, bo.node, tmp_path / "data", title="Trial", **terms)
        started = await bo.node.receive(share="Trial")
        await midway(bo.node, started.transfer)
        world.cut_wire(ada, bo)
        await until(ada.node, started.transfer, "waiting", timeout_s=60)
        if how == "revoked":
            await ada.node.share_revoke(share="Trial", reason="a mistake")
        assert (await until(ada.node, started.transfer, "cut", timeout_s=400)).reason == f"grant-{how}"
        assert [cut.side for cut in cuts_of(ada.node, started.transfer)] == ["sender"]
        if how == "revoked":
            world.mend_wire(ada, bo)
        assert (await until(bo.node, started.transfer, "cut", timeout_s=400)).reason == f"grant-{how}"
        assert "recipient" in [cut.side for cut in cuts_of(bo.node, started.transfer)]
        world.mend_wire(ada, bo)
        await settle(ada, bo)

    simulate(story, tmp_path)


def test_receipts_must_fit_what_was_sent_and_are_entered_once(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", many_files(3, 1000))
        await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        started = await bo.node.receive(share="Trial")
        assert (await ended(bo.node, started.transfer)).state == "completed"
        await settle(ada, bo)
        with bo.node.core.database.begin() as tx:
            receipts = statements.about(tx, started.transfer, Receipt)
        intact = next(item for item in receipts if item.body.level == "intact")
        bo_identity = bo.node.core.require()
        for wrong in (
            {"counts": replace(intact.body.counts, matched=2)},
            {"counts": replace(intact.body.counts, matched=2, missing=1)},
            {"bytes": 2999},
            {"verdict": "complete"},
            {"root": "00" * 32},
        ):
            forged = sign(replace(intact.body, issued=intact.body.issued + 1, **wrong), bo_identity)
            with pytest.raises(PeerError) as caught:
                ada.node.receipts.countersign(forged)
            assert caught.value.code == "receipt-wrong"

        with ada.node.core.database.begin() as tx:  # as after a crash between receipt and countersignature
            tx.execute(delete(tables.statements).where(tables.statements.c.kind == "receipt-ack"))
        told = len(await ada.node.audit_list(event="transfer.receipt"))
        answer = ada.node.receipts.countersign(intact)
        assert ada.node.receipts.countersign(intact) == answer
        assert len(await ada.node.audit_list(event="transfer.receipt")) == told

        with ada.node.core.database.begin() as tx:
            transfers.drop_arrived(tx, started.transfer)
        with pytest.raises(PeerError) as caught:
            ada.node.receipts.countersign(sign(replace(intact.body, issued=intact.body.issued + 1), bo_identity))
        assert caught.value.code == "receipt-wrong"
        assert row_of(ada.node, started.transfer).state == "completed"
        assert len(receipts_of(ada.node)) == 2

    simulate(story, tmp_path)


def test_refusals_beyond_the_many_are_of_one_kind(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada = world.machine("Ada")
        await ada.boot()
        for number in range(1500):
            ada.node.denials.note(f"made-up-{number}", f"stranger {number}", stranger=True)
        denied = await ada.node.audit_list(event="access.denied", limit=1000)
        assert len(denied) <= 31
        assert "various" in {entry.result_code for entry in denied}

    simulate(story, tmp_path)


def test_a_transfer_that_is_over_holds_no_memory(tmp_path: Path) -> None:
    """Its lists of files and digests can be large, and a node runs for months."""

    async def story(world: World) -> None:
        ada, bo = await world.pair()
        held = []
        for number in range(3):
            write_files(tmp_path / f"data {number}", many_files(20, 500))
            await share(ada.node, bo.node, tmp_path / f"data {number}", title=f"Trial {number}")
            started = await bo.node.receive(share=f"Trial {number}")
            held.append(weakref.ref(bo.node.receiving._running[started.transfer].task))
            done = await ended(bo.node, started.transfer, timeout_s=120)
            assert (done.state, done.done_files, done.done_bytes) == ("completed", done.files, done.bytes)
        await wait_for(lambda: not bo.node.receiving._running, what="the tasks to end")
        again = await bo.node.transfer_show(transfer=started.transfer)
        assert (again.done_files, again.done_bytes) == (again.files, again.bytes)
        gc.collect()
        assert [ref() for ref in held] == [None] * 3
        assert not ada.node.serving._active

    simulate(story, tmp_path)
