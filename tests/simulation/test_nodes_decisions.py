"""Accepted or rejected: a person's signed word on what arrived, on both sides, whoever is away or starts again meanwhile."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from labxchange.errors import InputError, IntegrityError, NodeLocked
from labxchange.node.receipt_file import check_file
from labxchange.node.receipt_page import render
from labxchange.node.values import RecipientStatus
from labxchange.sharing.exchange import DECISIONS_MAX
from tests.support.nodes import ended, share, wait_for
from tests.support.world import Machine, World, check_exchange, many_files, receipts_of, settle, simulate, write_files

TITLE = "SDTM <b>3</b> of 5"


async def received(world: World, folder: Path, *, state: str = "completed") -> tuple[Machine, Machine, str]:
    """Bo has what Ada shared; ``failed``: but for a file that changed after it was listed."""
    ada, bo = await world.pair()
    write_files(folder, many_files(3, 2000))
    await share(ada.node, bo.node, folder, title=TITLE)
    if state == "failed":
        (folder / "part-001.bin").write_bytes(b"other")
        os.utime(folder / "part-001.bin")
    started = await bo.node.receive(share=TITLE)
    assert (await ended(bo.node, started.transfer)).state == state
    await settle(ada, bo)
    return ada, bo, started.transfer


async def seen_by(sender: Machine) -> RecipientStatus:
    return (await sender.node.share_status(share=TITLE)).recipients[0]


def test_the_sender_sees_what_a_person_decided(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo, transfer = await received(world, tmp_path / "data")
        said = await bo.node.transfer_accept(transfer=transfer[:8], findings=" two\r\nlines \n")
        assert (said.level, said.findings, said.acknowledged) == ("accepted", "two\nlines", False)
        await settle(ada, bo)
        person = await seen_by(ada)
        assert (person.state, person.findings, person.receipt, person.acknowledged) == (
            "accepted",
            "two\nlines",
            said.receipt,
            True,
        )
        assert (await bo.node.receipt_show(transfer=transfer)).acknowledged
        assert sorted(receipts_of(ada.node).values()) == ["accepted", "delivered", "intact"]
        entry = (await bo.node.audit_list(event="transfer.receipt", about=said.receipt))[0]
        assert (entry.fields["reason_text"], entry.fields["actor"]) == ("two\nlines", "person")
        assert "accepted" in str((await ada.node.audit_list(event="transfer.receipt", about=said.receipt))[0].fields)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_a_decision_waits_for_a_sender_who_is_away_and_outlives_restarts(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo, transfer = await received(world, tmp_path / "data")
        await ada.stop()
        said = await bo.node.transfer_reject(transfer=transfer, findings="AGE is empty")
        bo.crash()
        await bo.boot()
        again = await bo.node.transfer_reject(transfer=transfer, findings="AGE is empty")
        assert (again.receipt, again.acknowledged) == (said.receipt, False)
        await ada.boot()
        await wait_for(lambda: said.receipt in receipts_of(ada.node), what="the decision", timeout_s=300)
        ada.crash()
        await ada.boot()
        await settle(ada, bo)
        person = await seen_by(ada)
        assert (person.state, person.findings, person.acknowledged) == ("rejected", "AGE is empty", True)
        assert (await bo.node.receipt_show(transfer=transfer)).acknowledged
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_a_decision_made_before_the_sender_heard_of_the_transfer_s_end_comes_after_its_receipts(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", many_files(2, 1000))
        await share(ada.node, bo.node, tmp_path / "data", title=TITLE)
        sign = bo.node.receipts.sign

        def then_away(*args: object, **given: object) -> None:
            sign(*args, **given)  # type: ignore[arg-type]
            world.cut_wire(ada, bo)

        bo.node.receipts.sign = then_away  # type: ignore[method-assign,assignment]
        started = await bo.node.receive(share=TITLE)
        await wait_for(lambda: len(receipts_of(bo.node)) == 2, what="the receipts")
        assert (await bo.node.transfer_accept(transfer=started.transfer)).level == "accepted"
        assert not receipts_of(ada.node)
        world.mend_wire(ada, bo)
        await settle(ada, bo)
        assert (await bo.node.transfer_show(transfer=started.transfer)).state == "completed"
        assert ((await seen_by(ada)).state, (await seen_by(ada)).acknowledged) == ("accepted", True)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_the_same_decision_changes_nothing_and_another_replaces_it_a_few_times(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo, transfer = await received(world, tmp_path / "data")
        first = await bo.node.transfer_accept(transfer=transfer)
        assert (await bo.node.transfer_accept(transfer=transfer, findings="\n")).receipt == first.receipt
        for number in range(DECISIONS_MAX - 1):
            said = await bo.node.transfer_reject(transfer=transfer, findings=f"finding {number}")
        with pytest.raises(InputError) as caught:
            await bo.node.transfer_accept(transfer=transfer)
        assert caught.value.code == "decided-too-often"
        assert (await bo.node.transfer_reject(transfer=transfer, findings=said.findings)).receipt == said.receipt
        await settle(ada, bo)
        assert ((await seen_by(ada)).state, (await seen_by(ada)).findings) == ("rejected", said.findings)
        assert len(receipts_of(ada.node)) == 2 + DECISIONS_MAX
        assert (await bo.node.transfer_show(transfer=transfer)).state == "completed"
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_what_does_not_match_is_rejected_only(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo, transfer = await received(world, tmp_path / "data", state="failed")
        with pytest.raises(InputError) as caught:
            await bo.node.transfer_accept(transfer=transfer)
        assert caught.value.code == "accept-not-intact"
        assert (await seen_by(ada)).state == "not intact"
        said = await bo.node.transfer_reject(transfer=transfer, findings="a file is missing")
        assert (said.level, said.verdict) == ("rejected", "mismatch")
        await settle(ada, bo)
        assert (await seen_by(ada)).state == "rejected"
        assert (await ada.node.transfer_show(transfer=transfer)).state == "failed"
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_who_decides_and_when(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", many_files(2, 1000))
        await share(ada.node, bo.node, tmp_path / "data", title=TITLE)
        world.cut_wire(ada, bo)
        started = await bo.node.receive(share=TITLE)
        for findings, code in (
            ("early", "not-received"),
            (" \n", "findings-missing"),
            ("x" * 4001, "findings-malformed"),
            ("a\x1bb", "findings-malformed"),
        ):
            with pytest.raises(InputError) as caught:
                await bo.node.transfer_reject(transfer=started.transfer, findings=findings)
            assert caught.value.code == code
        world.mend_wire(ada, bo)
        with pytest.raises(InputError) as caught:
            await bo.node.transfer_accept(transfer="00" * 8)
        assert caught.value.code == "transfer-unknown"
        await ended(bo.node, started.transfer, timeout_s=120)
        await settle(ada, bo)
        with pytest.raises(InputError) as caught:
            await ada.node.transfer_accept(transfer=started.transfer)
        assert caught.value.code == "transfer-foreign"
        assert sorted(receipts_of(bo.node).values()) == ["delivered", "intact"], "a refused decision signs nothing"
        await bo.stop()
        await bo.boot(unlock=False)
        with pytest.raises(NodeLocked):
            await bo.node.transfer_accept(transfer=started.transfer)

    simulate(story, tmp_path)


def test_the_saved_receipt_shows_every_level_and_verifies_with_nobody_s_node(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo, transfer = await received(world, tmp_path / "data")
        await bo.node.transfer_reject(transfer=transfer, findings="<script>alert(1)</script>\nsecond \u202e line")
        await bo.node.transfer_accept(transfer=transfer)
        await settle(ada, bo)
        trust = [(await machine.node.key_show()).fingerprint for machine in (ada, bo)]
        for machine in (ada, bo):
            saved = (await machine.node.receipt_show(transfer=transfer)).file
            page = render(json.loads(saved))
            assert (await machine.node.receipt_page(transfer=transfer)).page.encode() == page
            for data in (saved.encode(), page):
                checked = check_file(data, trust)
                assert (checked.level, checked.verdict, checked.title) == ("accepted", "match", TITLE)
                assert (checked.countersigned, checked.trusted) == (True, ("Ada", "Bo"))
            text = page.decode()
            assert text.count("<script") == 1
            assert "&lt;script&gt;alert(1)&lt;/script&gt;\nsecond \\u{202e} line" in text
            assert "SDTM &lt;b&gt;3&lt;/b&gt; of 5" in text
            assert all(f"<td>{level}<br>" in text for level in ("delivered", "intact", "rejected", "accepted"))
            assert all(own in text for own in trust)
            with pytest.raises(IntegrityError) as caught:
                check_file(page.replace(b"Accepted. What arrived", b"Rejected. What arrived"), [])
            assert caught.value.code == "receipt-page-altered"

    simulate(story, tmp_path)
