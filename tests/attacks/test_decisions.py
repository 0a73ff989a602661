"""Decisions and receipts that lie: a recipient who signs what they may not, and pages that show what nobody signed.

Mallory is a recipient whose node signs anything; Ada's judges it. What a person writes, hostile or long, is text on every screen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from labxchange.errors import InputError, IntegrityError, LabxchangeError, PeerError
from labxchange.identity.statement import Signed, sign
from labxchange.node.node import Node
from labxchange.node.receipt_file import check_file
from labxchange.node.receipt_page import render
from labxchange.sharing.exchange import DECISIONS_MAX, Receipt
from labxchange.store import statements
from tests.support.nodes import befriend, ended, share
from tests.support.world import Machine, World, receipts_of, settle, simulate, write_files

HOSTILE = "</script><script>alert('x')</script>"
TITLE = f"T {HOSTILE} <img src=x onerror=y> &amp; \u202e"


async def delivered(
    world: World, folder: Path, *, title: str = TITLE
) -> tuple[Machine, Machine, dict[str, Signed[Receipt]], str]:
    """Mallory has what Ada shared; the receipts by level, and the transfer."""
    ada, mallory = world.machine("Ada"), world.machine("Mallory")
    for machine in (ada, mallory):
        await machine.boot()
    await befriend(ada.node, mallory.node)
    write_files(folder, {"adsl.csv": b"1,2\n" * 900})
    made = await share(ada.node, mallory.node, folder, title=TITLE, purpose=HOSTILE)
    started = await mallory.node.receive(share=made.share)
    assert (await ended(mallory.node, started.transfer)).state == "completed"
    await settle(ada, mallory)
    return ada, mallory, kept(mallory.node, started.transfer), started.transfer


def kept(node: Node, transfer: str) -> dict[str, Signed[Receipt]]:
    with node.core.database.begin() as tx:
        found = statements.about(tx, transfer, Receipt)
    return {item.body.level: item for item in found}


def refused(victim: Node, attempt: Callable[[], object]) -> str:
    """The code of a refusal that changed nothing."""
    before = receipts_of(victim)
    with pytest.raises((PeerError, IntegrityError)) as caught:
        attempt()
    assert receipts_of(victim) == before
    return caught.value.code


def test_a_decision_must_be_about_the_intact_receipt_and_repeat_it(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, mallory, receipts, _ = await delivered(world, tmp_path / "data")
        identity, intact = mallory.node.core.require(), receipts["intact"]
        good = replace(intact.body, level="accepted", follows=intact.id, issued=intact.body.issued + 5)
        lies: list[dict[str, Any]] = [
            {"follows": ""},
            {"follows": receipts["delivered"].id},
            {"follows": "00" * 32},
            {"level": "rejected"},
            {"level": "rejected", "findings": " \n"},
            {"level": "intact"},
            {"level": "intact", "follows": "", "findings": "by the way"},
            {"verdict": "mismatch"},
            {"root": "00" * 32},
            {"bytes": intact.body.bytes - 1},
            {"counts": replace(intact.body.counts, matched=0)},
            {"grant": "00" * 32},
            {"finished": intact.body.finished + 1},
            {"software": "another"},
        ]
        for lie in lies:
            forged = sign(replace(good, **lie), identity)
            assert refused(ada.node, lambda forged=forged: ada.node.receipts.countersign(forged)) == "receipt-wrong", lie
        elsewhere = sign(replace(good, transfer="00" * 16), identity)
        assert refused(ada.node, lambda: ada.node.receipts.countersign(elsewhere)) == "receipt-unknown"
        assert (await ada.node.share_list())[0].recipients[0].state == "verified"
        ada.node.receipts.countersign(sign(good, identity))
        assert (await ada.node.share_list())[0].recipients[0].state == "accepted"
        assert (await ada.node.transfer_list())[0].state == "completed"

    simulate(story, tmp_path)


def test_nothing_is_accepted_that_was_not_received(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, mallory, receipts, transfer = await delivered(world, tmp_path / "data")
        intact = receipts["intact"]
        with ada.node.core.database.begin() as tx:  # as if the last receipt had never come
            for kind in ("receipt", "receipt-ack"):
                for item in statements.ids(tx, kind, about=transfer):
                    tx.exec_driver_sql("DELETE FROM statements WHERE id = ?", (item,))
        early = sign(replace(intact.body, level="accepted", follows=intact.id), mallory.node.core.require())
        assert refused(ada.node, lambda: ada.node.receipts.countersign(early)) == "receipt-wrong"

    simulate(story, tmp_path)


def test_nobody_decides_on_the_transfer_of_another(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, mallory, receipts, _ = await delivered(world, tmp_path / "data")
        carol = world.machine("Carol")
        await carol.boot()
        await befriend(ada.node, carol.node)
        intact = receipts["intact"]
        key = carol.node.core.me
        stolen = sign(replace(intact.body, level="accepted", follows=intact.id, issuer=key), carol.node.core.require())
        assert refused(ada.node, lambda: ada.node.receipts.countersign(stolen)) == "receipt-unknown"
        genuine = sign(replace(intact.body, level="accepted", follows=intact.id), mallory.node.core.require())
        answer = ada.node.taking.take(key, genuine.envelope)  # what Mallory signed, in Carol's name
        assert len(answer) == 1
        assert "accepted" not in receipts_of(ada.node).values()
        ada.node.denials.flush()
        denied = await ada.node.audit_list(event="security.protocol-violation")
        assert denied[0].result_code == "foreign-statement"

    simulate(story, tmp_path)


def test_decisions_come_to_an_end_also_for_who_signs_more(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, mallory, receipts, _ = await delivered(world, tmp_path / "data")
        holds = receipts["intact"]
        for number in range(DECISIONS_MAX + 1):
            body = replace(holds.body, level="rejected", findings=f"finding {number}", follows=holds.id)
            holds = sign(body, mallory.node.core.require())
            if number < DECISIONS_MAX:
                ada.node.receipts.countersign(holds)
        assert refused(ada.node, lambda: ada.node.receipts.countersign(holds)) == "receipt-repeated"

    simulate(story, tmp_path)


@pytest.mark.parametrize("findings", ["x" * 4001, "a\x1b[31mb", "a\x00"])
def test_oversized_findings_and_control_characters_are_no_statement(findings: str, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        _, mallory, receipts, _ = await delivered(world, tmp_path / "data")
        body = replace(receipts["intact"].body, level="rejected", findings=findings, follows=receipts["intact"].id)
        with pytest.raises(InputError) as caught:
            sign(body, mallory.node.core.require())
        assert caught.value.code == "statement-invalid"

    simulate(story, tmp_path)


def test_the_longest_findings_pass_whatever_they_are_of(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, mallory, _, transfer = await delivered(world, tmp_path / "data")
        for findings in ("\\" * 4000, "\U0001f9ea" * 4000, "<&>'\"" * 800):
            said = await mallory.node.transfer_reject(transfer=transfer, findings=findings)
            assert check_file(render(json.loads(said.file)), []).findings == findings
        await settle(ada, mallory)
        assert (await ada.node.share_list())[0].recipients[0].findings == findings

    simulate(story, tmp_path)


def test_a_page_shows_hostile_texts_and_obeys_none(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        _, mallory, _, transfer = await delivered(world, tmp_path / "data")
        await mallory.node.transfer_reject(transfer=transfer, findings=f"{HOSTILE}\n<!-- \u202e --> ]]>")
        page = render(json.loads((await mallory.node.receipt_show(transfer=transfer)).file)).decode()
        assert page.count("<script") == page.count("</script>") == 1
        assert "<img" not in page
        assert "<!--" not in page
        assert not [c for c in page if c in "\u202e\x1b"]
        assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
        assert "default-src 'none'" in page
        assert check_file(page.encode(), []).findings.startswith(HOSTILE)

    simulate(story, tmp_path)


def test_a_page_that_was_altered_or_a_file_that_was_put_together_is_told(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, mallory, receipts, transfer = await delivered(world, tmp_path / "data")
        carol = world.machine("Carol")
        await carol.boot()
        await befriend(ada.node, carol.node)
        await share(ada.node, carol.node, tmp_path / "data", title="Other")
        other = await carol.node.receive(share="Other")
        await ended(carol.node, other.transfer)
        await settle(ada, carol)
        document = json.loads((await mallory.node.receipt_show(transfer=transfer)).file)
        foreign = json.loads((await carol.node.receipt_show(transfer=other.transfer)).file)
        page = render(document)
        for changed, code in (
            (page.replace(b"Intact. What", b"Accepted. What"), "receipt-page-altered"),
            (page.replace(b"</body>", b"<p>Paid in full</p></body>"), "receipt-page-altered"),
            (page.replace(b"<style>", b"<style>td{display:none}"), "receipt-page-altered"),
            (b"\n" + page, "receipt-page-altered"),
            (page.replace(b'page" content="1"', b'page" content="2"'), "receipt-page-unknown"),
            (page.replace(b"labxchange-receipt", b"labxchange-other"), "receipt-unreadable"),
            (page[: page.index(b"</script>")], "receipt-unreadable"),
            (b"<!DOCTYPE html>", "receipt-unreadable"),
        ):
            assert changed != page
            with pytest.raises(LabxchangeError) as caught:
                check_file(changed, [])
            assert caught.value.code == code
        for statement in (*foreign["statements"], foreign["receipt"], foreign["receipt-ack"], document["cards"][0]):
            for form in (render, lambda document: check_file(json.dumps(document).encode(), [])):
                mixed = document | {"statements": [*document["statements"], statement]}
                with pytest.raises(IntegrityError) as caught:
                    form(mixed)
                assert caught.value.code == "receipt-inconsistent"
        with pytest.raises(IntegrityError) as caught:
            check_file(json.dumps(document | {"receipt": json.loads(receipts["delivered"].envelope)}).encode(), [])
        assert caught.value.code == "receipt-inconsistent", "the countersignature is of the other level"

    simulate(story, tmp_path)


@pytest.mark.parametrize(
    "wrong", [[], {}, 3, {"cards": 1}, {"cards": [1]}, {"cards": [], "receipt": {}, "statements": 1}, "x", None]
)
def test_what_is_no_receipt_is_said_to_be_none(wrong: object) -> None:
    for data in (json.dumps(wrong), f'<script type="application/json" id="labxchange-receipt">{json.dumps(wrong)}</script>'):
        with pytest.raises(LabxchangeError):
            check_file(data.encode(), [])
