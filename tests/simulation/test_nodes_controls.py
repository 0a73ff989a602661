"""What people choose for a transfer, on the simulated network: rates over QUIC on a virtual clock, and what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from labxchange.audit.events import Event
from labxchange.errors import InputError
from labxchange.node.node import Node
from labxchange.node.values import EntryInfo, LimitsInfo
from labxchange.store import transfers
from tests.support.nodes import ended, share, until, wait_for
from tests.support.world import World, many_files, midway, now, simulate, write_files

RATE = 100_000
FILES = many_files(40, 50_000)
TOTAL = sum(map(len, FILES.values()))


async def changes(node: Node) -> list[EntryInfo]:
    """What people changed of transfers, newest first."""
    found = await node.audit_list(event="config.changed", limit=100)
    return [entry for entry in found if entry.object_type == "transfer"]


@pytest.mark.parametrize("side", ["recipient", "sender"])
def test_a_rate_holds_on_either_side_and_lifting_it_acts_at_once(tmp_path: Path, side: str) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", FILES)
        await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        started = await bo.node.receive(share="Trial", rate=RATE if side == "recipient" else 0)
        chooser = bo.node if side == "recipient" else ada.node
        if side == "sender":
            await wait_for(lambda: ada.node.serving._active, what="the sender to know of it")
            await chooser.transfer_limit(transfer=started.transfer, rate=RATE)
        before, began = (await midway(bo.node, started.transfer)).done_bytes, now()
        await wait_for(lambda: now() > began + 8, what="eight seconds", timeout_s=30)
        info = await bo.node.transfer_show(transfer=started.transfer)
        moved = (info.done_bytes - before) / (now() - began)
        assert 0.5 * RATE < moved < 1.5 * RATE
        assert (info.path.plane, info.path.reason) == ("quic-stream", "no-lanes")
        told = await chooser.transfer_show(transfer=started.transfer)
        assert told.path.limit == "cap"
        assert 0.4 * RATE < told.path.rate < 1.8 * RATE
        lifted = now()
        await chooser.transfer_limit(transfer=started.transfer, rate=0, reason="night")
        done = await ended(bo.node, started.transfer, timeout_s=120)
        assert done.state == "completed"
        assert now() - lifted < 0.5 * (TOTAL - info.done_bytes) / RATE
        assert done.path.plane == "quic-stream", "what the receipt says"
        told = (await changes(chooser))[0]
        assert told.fields["old"] == "rate 100000 bytes/s, priority normal, lanes 0"
        assert told.fields["new"] == "rate 0 bytes/s, priority normal, lanes 0"
        assert (told.fields["reason_text"], told.fields["object_id"]) == ("night", started.transfer)
        assert told.fields["actor"] == "person"

    simulate(story, tmp_path)


def test_what_was_chosen_is_kept_over_a_restart_and_goes_when_the_transfer_is_over(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", FILES)
        await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        started = await bo.node.receive(share="Trial", rate=RATE, priority="high", lanes=3)
        chosen = LimitsInfo(rate=RATE, priority="high", lanes=3)
        assert started.limits == chosen
        accepted = (await bo.node.audit_list(event="transfer.accepted"))[0]
        assert accepted.fields["new"] == "rate 100000 bytes/s, priority high, lanes 3"
        await midway(bo.node, started.transfer)
        await bo.stop()
        await bo.boot()
        assert (await bo.node.transfer_show(transfer=started.transfer)).limits == chosen
        await bo.node.transfer_pause(transfer=started.transfer)
        again = await bo.node.receive(share="Trial", rate=2 * RATE)
        assert again.limits == LimitsInfo(rate=2 * RATE, priority="high", lanes=3), "what is not said stays"
        assert len(await changes(bo.node)) == 1
        await bo.node.transfer_limit(transfer=started.transfer, rate=0)
        await bo.node.transfer_limit(transfer=started.transfer, rate=0)
        assert len(await changes(bo.node)) == 2, "what changes nothing is no act"
        done = await ended(bo.node, started.transfer, timeout_s=120)
        assert done.limits == LimitsInfo()
        with bo.node.core.database.begin() as tx:
            assert transfers.limits(tx, started.transfer) == transfers.Limits(transfer=started.transfer)

    simulate(story, tmp_path)


def test_what_cannot_be_chosen_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", FILES)
        await share(ada.node, bo.node, tmp_path / "data", title="Trial")

        async def refused(node: Node, code: str, **given: object) -> None:
            with pytest.raises(InputError) as caught:
                await node.transfer_limit(transfer=started.transfer, **given)  # type: ignore[arg-type]
            assert caught.value.code == code

        with pytest.raises(InputError) as caught:
            await bo.node.receive(share="Trial", lanes=17)
        assert caught.value.code == "lanes-count"
        assert not await bo.node.transfer_list()
        started = await bo.node.receive(share="Trial", rate=RATE)
        await midway(bo.node, started.transfer)
        await refused(bo.node, "rate-too-low", rate=9_999)
        await refused(bo.node, "rate-too-low", rate=-1)
        await refused(bo.node, "priority-unknown", priority="urgent")
        await refused(bo.node, "lanes-count", lanes=-1)
        await refused(ada.node, "lanes-of-recipient", lanes=2)
        assert not await changes(ada.node)
        assert not await changes(bo.node)
        await bo.node.transfer_limit(transfer=started.transfer, rate=0)
        await until(bo.node, started.transfer, "completed", timeout_s=120)
        await refused(bo.node, "transfer-over", rate=RATE)

    simulate(story, tmp_path)


def test_forged_datagrams_and_moves_of_lanes_come_into_the_trail_in_few_entries(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", FILES)
        await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        started = await bo.node.receive(share="Trial")
        await ended(bo.node, started.transfer, timeout_s=120)
        key = (await ada.node.key_show()).key

        async def told(event: Event) -> list[EntryInfo]:
            return await bo.node.audit_list(event=event, limit=100)

        bo.node.bulk.forged[key] += 7
        await wait_for(lambda: told(Event.SECURITY_FORGERY), what="the first entry", timeout_s=30)
        for _ in range(3):
            bo.node.bulk.forged[key] += 100
            await wait_for(lambda: not bo.node.bulk.forged, what="the node to count them", timeout_s=30)
        began = now()
        await wait_for(lambda: now() > began + 90, what="more than a minute", timeout_s=120)
        entries = await told(Event.SECURITY_FORGERY)
        assert [entry.fields["details"] for entry in entries] == ['{"count":300}', '{"count":7}']
        assert {entry.fields["counterparty"] for entry in entries} == {key}
        assert {entry.result for entry in entries} == {"denied"}

        bo.node.bulk.moved[started.transfer] = ("10.0.0.1:5", "10.0.0.9:7")
        await wait_for(lambda: told(Event.TRANSFER_PATH_CHANGED), what="the entry", timeout_s=30)
        (moved,) = await told(Event.TRANSFER_PATH_CHANGED)
        assert (moved.fields["old"], moved.fields["new"]) == ("10.0.0.1:5", "10.0.0.9:7")
        assert moved.fields["object_id"] == started.transfer

    simulate(story, tmp_path)
