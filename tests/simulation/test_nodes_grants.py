"""Grants over running transfers, on a simulated network: expiry, revocation, block, extension, slots, a doubted clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from labxchange.errors import InputError
from labxchange.node.node import Node
from labxchange.node.values import TransferInfo
from labxchange.sharing.exchange import Cut
from labxchange.store import statements, transfers
from labxchange.transfer import streams
from labxchange.transfer.intervals import Interval
from tests.support.nodes import befriend, ended, share, until, wait_for
from tests.support.world import (
    DAY_MS,
    Machine,
    World,
    check_exchange,
    check_released,
    check_slots,
    many_files,
    midway,
    now,
    receipts_of,
    settle,
    simulate,
    write_files,
)

RTT_S = 0.5
COUNT, SIZE = 120, 60_000
"""More than the sender may have under way at once, so a cut finds the transfer in the middle."""


def cuts(node: Node, transfer: str) -> dict[str, Cut]:
    """The cut statements of a transfer by side, as the node keeps them."""
    with node.core.database.begin() as tx:
        found = [envelope.body for envelope in statements.about(tx, transfer, Cut)]
    assert len({cut.side for cut in found}) == len(found), "a side signed two cuts"
    return {cut.side: cut for cut in found}


def journal(node: Node, transfer: str) -> list[Interval]:
    with node.core.database.begin() as tx:
        return transfers.arrived_chunks(tx, transfer)


async def begin(world: World, folder: Path, **terms: object) -> tuple[Machine, Machine, str, dict[str, bytes]]:
    """Ada shares a large folder with Bo, who is in the middle of receiving it."""
    ada, bo = await world.pair()
    files = write_files(folder, many_files(COUNT, SIZE))
    await share(ada.node, bo.node, folder, title="Trial", **terms)
    started = await bo.node.receive(share="Trial")
    await midway(bo.node, started.transfer)
    return ada, bo, started.transfer, files


async def check_cut(ada: Machine, bo: Machine, transfer: str, code: str, began: float) -> None:
    """Both sides stopped within a round trip and a second, and say exactly what had gone out and arrived."""
    stopped = await until(bo.node, transfer, "cut")
    assert stopped.reason == code
    assert now() - began <= RTT_S + 1.0, f"it took {now() - began:.2f} s"
    assert (await ada.node.transfer_show(transfer=transfer)).state == "cut"
    arrived = journal(bo.node, transfer)
    assert arrived
    sent = ada.node.serving.sent_bytes(transfer)
    await settle(ada, bo)
    assert ada.node.serving.sent_bytes(transfer) == sent == 0, "the sender has put it away"
    for machine in (ada, bo):
        found = cuts(machine.node, transfer)
        assert set(found) == {"sender", "recipient"}, f"{machine.name} does not hold both cuts"
        assert {cut.code for cut in found.values()} == {code}
        mine = found["recipient"]
        assert [tuple(item) for item in mine.arrived] == journal(bo.node, transfer) == arrived
        assert mine.more == 0
        assert mine.bytes == (await bo.node.transfer_show(transfer=transfer)).done_bytes
        went = {number for first, last in found["sender"].arrived for number in range(first, last + 1)}
        assert all(set(range(first, last + 1)) <= went for first, last in arrived), "more arrived than went out"
        told = [entry for entry in await machine.node.audit_list(event="transfer.cut") if entry.result_code == code]
        assert len(told) == 2, f"the trail of {machine.name} has {len(told)} entries about the two cuts"


def test_a_revocation_cuts_a_running_transfer_within_a_round_trip_and_a_second(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo, transfer, files = await begin(world, tmp_path / "data")
        began = now()
        await ada.node.share_revoke(share="Trial", reason="wrong cut")
        await check_cut(ada, bo, transfer, "grant-revoked", began)
        info = await bo.node.transfer_show(transfer=transfer)
        assert check_released(Path(info.destination), files) < COUNT
        with pytest.raises(InputError, match="revoked"):
            await bo.node.request_extension(share="Trial", until=info.started + 60 * DAY_MS)
        with pytest.raises(InputError) as none:
            await ada.node.share_extend(share="Trial", until=info.started + 60 * DAY_MS)
        assert none.value.code == "grant-none"
        held = info.done_bytes
        await bo.node.transfer_resume(transfer=transfer)
        again = await until(bo.node, transfer, "cut")
        assert (again.reason, again.done_bytes) == ("grant-revoked", held)
        assert (await ada.node.share_status(share="Trial")).recipients[0].state == "revoked"
        assert not receipts_of(bo.node)
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path, delay_s=RTT_S / 2)


def test_an_end_that_comes_cuts_a_running_transfer_and_an_extension_lets_it_go_on(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        files = write_files(tmp_path / "data", many_files(COUNT, SIZE))
        await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        started = await bo.node.receive(share="Trial")
        await midway(bo.node, started.transfer)
        end = ada.wall() + 200
        await ada.node.share_extend(share="Trial", until=end, reason="an earlier end")
        await wait_for(lambda: ada.wall() >= end)
        await check_cut(ada, bo, started.transfer, "grant-expired", now())

        async def written() -> bool:
            return [entry.fields["counterparty_name"] for entry in await ada.node.audit_list(event="grant.expired")] == ["Bo"]

        await wait_for(written, what="the entry about the end of the grant")
        held = (await bo.node.transfer_show(transfer=started.transfer)).done_bytes

        later = ada.wall() + DAY_MS
        await bo.node.request_extension(share="Trial", until=later, reason="slow line")

        async def asked() -> bool:
            found = (await ada.node.share_status(share="Trial")).recipients[0]
            return (found.asked_until, found.asked_reason) == (later, "slow line")

        await wait_for(asked, what="the request to be shown to the sender")
        assert (await bo.node.transfer_show(transfer=started.transfer)).state == "cut"
        await ada.node.share_extend(share="Trial", until=later, reason="agreed")
        done = await until(bo.node, started.transfer, "completed", timeout_s=60)
        assert done.done_bytes == COUNT * SIZE > held > 0
        assert check_released(Path(done.destination), files) == COUNT
        status = (await ada.node.share_status(share="Trial")).recipients[0]
        assert (status.state, status.used, status.reserved, status.asked_until) == ("verified", 1, 0, 0)
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path, delay_s=RTT_S / 2)


def test_an_extension_and_a_revocation_that_come_together_end_a_transfer(tmp_path: Path) -> None:
    """The extension begins the transfer anew and the revocation ends it before its task has run: it is cut, and does not wait."""

    async def story(world: World) -> None:
        ada, bo, transfer, _ = await begin(world, tmp_path / "data")
        end = ada.wall() + 200
        await ada.node.share_extend(share="Trial", until=end, reason="an earlier end")
        await until(bo.node, transfer, "cut")
        await settle(ada, bo)
        bo.host.asleep = True
        await ada.node.share_extend(share="Trial", until=ada.wall() + DAY_MS, reason="later after all")
        await ada.node.share_revoke(share="Trial", reason="or not")
        bo.host.asleep = False
        await settle(ada, bo)
        info = await bo.node.transfer_show(transfer=transfer)
        assert (info.state, info.reason) == ("cut", "grant-revoked")
        await check_exchange(ada, bo)

    simulate(story, tmp_path, delay_s=RTT_S / 2)


def test_blocking_a_contact_cuts_what_runs_at_once(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo, transfer, files = await begin(world, tmp_path / "data")
        sent = ada.node.serving.sent_bytes(transfer)
        began = now()
        await ada.node.contact_block(contact="Bo", reason="left the company")
        assert (await ada.node.transfer_show(transfer=transfer)).state == "cut"
        assert set(cuts(ada.node, transfer)) == {"sender"}
        assert cuts(ada.node, transfer)["sender"].code == "contact-blocked"
        await wait_for(lambda: ada.node.peers.connected(bo.node.core.me) is None)
        assert now() - began < 1
        assert sent

        async def refused_at_the_door() -> TransferInfo | None:
            info = await bo.node.transfer_show(transfer=transfer)
            return info if info.reason == "contact-blocked" else None

        stopped = await wait_for(refused_at_the_door, timeout_s=60)
        assert stopped is not None
        assert stopped.state == "waiting", "what the door says is not signed, so it ends nothing"
        held = stopped.done_bytes
        assert held < stopped.bytes
        with ada.node.core.database.begin() as tx:
            assert statements.count_posted(tx, bo.node.core.me) == 1, "Ada's cut waits"
        await wait_for(lambda: now() > began + 120, timeout_s=130)
        assert (await bo.node.transfer_show(transfer=transfer)).done_bytes == held
        check_released(Path(stopped.destination), files)
        denied = await ada.node.audit_list(event="access.denied")
        assert {entry.result_code for entry in denied} == {"contact-blocked"}
        assert len(denied) <= 4, "refusals of one contact are counted, not listed"
        assert ada.node.peers.connected(bo.node.core.me) is None

        words = [list((await machine.node.key_show()).words) for machine in (ada, bo)]
        await ada.node.contact_unblock(contact="Bo", reason="a mistake")
        await ada.node.contact_verify(contact="Bo", words=words[1])
        await bo.node.transfer_resume(transfer=transfer)
        done = await until(bo.node, transfer, "completed", timeout_s=180)
        assert check_released(Path(done.destination), files) == COUNT
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path, delay_s=RTT_S / 2)


def test_a_recipient_who_blocks_the_sender_stops_too(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo, transfer, _ = await begin(world, tmp_path / "data")
        await bo.node.contact_block(contact="Ada")
        stopped = await until(bo.node, transfer, "waiting", "cut", "paused", "failed")
        held = stopped.done_bytes
        began = now()
        await wait_for(lambda: now() > began + 120, timeout_s=130)
        after = await bo.node.transfer_show(transfer=transfer)
        assert (after.done_bytes, after.state in ("waiting", "cut", "failed")) == (held, True)
        assert bo.node.peers.connected(ada.node.core.me) is None

    simulate(story, tmp_path, delay_s=RTT_S / 2)


def test_download_slots(tmp_path: Path) -> None:
    """One download: reserved at the start, free to resume, used once the receipt is there, and then there is no other."""

    async def story(world: World) -> None:
        ada, bo = await world.pair()
        files = write_files(tmp_path / "data", many_files(40, 300_000))
        await share(ada.node, bo.node, tmp_path / "data", title="Trial", downloads=1)

        async def slots() -> tuple[int, int]:
            found = (await ada.node.share_status(share="Trial")).recipients[0]
            return found.reserved, found.used

        assert await slots() == (0, 0)
        started = await bo.node.receive(share="Trial")
        await midway(bo.node, started.transfer)
        assert await slots() == (1, 0)
        await bo.node.transfer_pause(transfer=started.transfer)
        await bo.node.transfer_resume(transfer=started.transfer)
        done = await ended(bo.node, started.transfer)
        assert done.state == "completed"
        assert await slots() == (0, 1)
        with pytest.raises(InputError) as already:
            await bo.node.receive(share="Trial")
        assert already.value.code == "already-received"

        # a recipient's node that forgot asks for a second transfer
        with bo.node.core.database.begin() as tx:
            row = transfers.transfer(tx, started.transfer)
            assert row is not None
            bo.node.receiving._running.pop(row.transfer, None)
            transfers.put_transfer(tx, _forgotten(row))
        second = await bo.node.receive(share="Trial", destination=str(tmp_path / "second"))
        refused = await ended(bo.node, second.transfer)
        assert (refused.state, refused.reason, refused.done_bytes) == ("failed", "downloads-exhausted", 0)
        assert await slots() == (0, 1)
        check_slots(ada.node)
        denied = await ada.node.audit_list(event="transfer.refused")
        assert [entry.result_code for entry in denied] == ["downloads-exhausted"]
        check_released(Path(done.destination), files)

    simulate(story, tmp_path, delay_s=0.1)


def _forgotten(row: transfers.TransferRow) -> transfers.TransferRow:
    from msgspec.structs import replace

    return replace(row, state="cancelled")


@pytest.mark.parametrize("whole_file_sent", [False, True])
def test_a_slot_returns_only_when_no_whole_file_went_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_file_sent: bool
) -> None:
    """One large file that is cut in its middle gives the slot back; many small ones do not."""
    monkeypatch.setattr(streams, "FETCH_BYTES", 1 << 20)  # what was asked for counts as sent

    async def story(world: World) -> None:
        ada, bo = await world.pair()
        files = many_files(COUNT, SIZE) if whole_file_sent else {"large": world.chance.randbytes(9 << 20)}
        write_files(tmp_path / "data", files)
        await share(ada.node, bo.node, tmp_path / "data", title="Trial", downloads=1)
        started = await bo.node.receive(share="Trial")
        await midway(bo.node, started.transfer)
        await ada.node.share_revoke(share="Trial", reason="test")
        await until(bo.node, started.transfer, "cut")
        await settle(ada, bo)
        status = (await ada.node.share_status(share="Trial")).recipients[0]
        assert (status.reserved, status.used) == (int(whole_file_sent), 0)
        assert len(await ada.node.audit_list(event="download.returned")) == int(not whole_file_sent)
        assert (cuts(ada.node, started.transfer)["sender"].files > 0) is whole_file_sent

    simulate(story, tmp_path, delay_s=RTT_S / 2)


def test_a_grant_that_has_not_begun_is_waited_for(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        files = write_files(tmp_path / "data", many_files(3, 1000))
        begins = ada.wall() + 600_000
        await share(ada.node, bo.node, tmp_path / "data", title="Trial", not_before=begins)
        started = await bo.node.receive(share="Trial")
        waiting = await until(bo.node, started.transfer, "waiting")

        async def told() -> bool:
            return (await bo.node.transfer_show(transfer=waiting.transfer)).reason == "grant-not-yet-valid"

        await wait_for(told)
        world.machines["Ada"].host.asleep = world.machines["Bo"].host.asleep = False
        await wait_for(lambda: ada.wall() > begins - 60_000, timeout_s=700)
        assert (await bo.node.transfer_show(transfer=waiting.transfer)).state == "waiting"
        done = await ended(bo.node, started.transfer, timeout_s=200)
        assert (done.state, done.done_files) == ("completed", 3)
        check_released(Path(done.destination), files)

    simulate(story, tmp_path)


def test_each_recipient_has_a_grant_of_their_own(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        cy = world.machine("Cy")
        await cy.boot()
        await befriend(ada.node, cy.node)
        files = write_files(tmp_path / "data", many_files(4, 1000))
        made = await ada.node.share_create(paths=[str(tmp_path / "data")], to=["Bo", "Cy"], title="Trial")
        await settle(ada, bo)
        await ada.node.share_revoke(share=made.share, contact="Bo", reason="only Cy")
        one = await bo.node.receive(share="Trial")
        other = await cy.node.receive(share="Trial")
        assert (await ended(bo.node, one.transfer)).reason == "grant-revoked"
        done = await ended(cy.node, other.transfer)
        assert done.state == "completed"
        check_released(Path(done.destination), files)
        states = {item.name: item.state for item in (await ada.node.share_status(share="Trial")).recipients}
        assert states == {"Bo": "revoked", "Cy": "verified"}
        await settle(ada, cy)
        await check_exchange(ada, cy)

    simulate(story, tmp_path)


def test_a_clock_in_doubt_makes_grants_wait_and_a_reset_undoes_it(tmp_path: Path) -> None:
    """The sender's clock jumps three years ahead while a transfer runs; later it is set right, by a person."""

    async def story(world: World) -> None:
        ada, bo, transfer, files = await begin(world, tmp_path / "data")
        ada.clock_ms += 3 * 365 * DAY_MS
        began = now()
        await wait_for(lambda: now() > began + 1 + RTT_S, timeout_s=5)
        stopped = (await bo.node.transfer_show(transfer=transfer)).done_bytes
        await until(bo.node, transfer, "waiting", "cut", timeout_s=5)  # asked for anew, and told why not
        assert (await ada.node.status()).clock_in_doubt
        held = (await bo.node.transfer_show(transfer=transfer)).done_bytes
        assert held == stopped
        await wait_for(lambda: now() > began + 200, timeout_s=300)
        info = await bo.node.transfer_show(transfer=transfer)
        assert (info.state, info.reason, info.done_bytes) == ("waiting", "clock-in-doubt", held)
        jumped = await ada.node.audit_list(event="clock.jumped")
        assert [(entry.result, entry.result_code) for entry in jumped] == [("denied", "clock-in-doubt")]
        assert not await ada.node.audit_list(event="grant.expired"), "no grant ends by a clock that is not believed"

        ada.clock_ms = 0
        with pytest.raises(InputError):
            await ada.node.clock_reset(reason="the battery was empty", passphrase="not the right one")
        status = await ada.node.clock_reset(reason="the battery was empty")
        assert not status.clock_in_doubt
        done = await ended(bo.node, transfer, timeout_s=180)
        assert done.state == "completed"
        check_released(Path(done.destination), files)
        reset = await ada.node.audit_list(event="clock.reset")
        assert reset[0].fields["reason_text"] == "the battery was empty"
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path, delay_s=RTT_S / 2)


def test_a_clock_that_was_wrong_from_the_start_can_be_set_back(tmp_path: Path) -> None:
    """A node whose first time was ten years ahead: the reset goes back, visibly, and work goes on."""

    async def story(world: World) -> None:
        ada, bo = world.machine("Ada"), world.machine("Bo")
        ada.clock_ms = 3650 * DAY_MS
        await ada.boot()
        await bo.boot()
        ada.clock_ms = 0
        assert not (await ada.node.status()).clock_in_doubt
        await ada.node.clock_reset(reason="wrong year")
        assert ada.node.core.clock.now() == ada.wall()
        await befriend(ada.node, bo.node)
        files = write_files(tmp_path / "data", many_files(3, 1000))
        await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        started = await bo.node.receive(share="Trial")
        done = await ended(bo.node, started.transfer)
        assert done.state == "completed"
        check_released(Path(done.destination), files)
        await settle(ada, bo)
        await check_exchange(ada, bo)
        await ada.stop()
        await ada.boot()
        assert abs(ada.node.core.clock.now() - ada.wall()) < 1000
        assert not ada.node.core.clock.in_doubt

    simulate(story, tmp_path)


@pytest.mark.parametrize("years", [-10, -1, 1, 10])
def test_a_clock_that_jumps_between_two_runs(tmp_path: Path, years: int) -> None:
    """Set forward: doubted, grants wait. Set back: an ended grant stays ended."""

    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", many_files(3, 1000))
        await share(ada.node, bo.node, tmp_path / "data", title="Ends", not_after=ada.wall() + 60_000)
        await share(ada.node, bo.node, tmp_path / "data", title="Runs")
        await wait_for(lambda: now() > 1100, timeout_s=200)
        await ada.stop()
        ada.clock_ms = years * 365 * DAY_MS
        await ada.boot()
        assert (await ada.node.status()).clock_in_doubt is (years > 0)
        over = await bo.node.receive(share="Ends")
        runs = await bo.node.receive(share="Runs")
        if years < 0:
            assert (await until(bo.node, over.transfer, "cut")).reason == "grant-expired"
            assert (await ended(bo.node, runs.transfer)).state == "completed"
        else:

            async def waits() -> bool:
                found = await bo.node.transfer_show(transfer=runs.transfer)
                return (found.state, found.reason) == ("waiting", "clock-in-doubt")

            await wait_for(waits)
            assert (await until(bo.node, over.transfer, "cut")).reason == "grant-expired", "by Bo's own clock"
            ada.clock_ms = 0
            await ada.node.clock_reset(reason="set right")
            assert (await ended(bo.node, runs.transfer, timeout_s=120)).state == "completed"
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)
