"""Rates, lanes and priorities of transfers between real nodes, over lanes on the loopback address."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from labxchange.node.values import TransferInfo
from labxchange.node.verbs import Verbs
from tests.integration.conftest import Person
from tests.integration.test_two_nodes import ended, leave, offered, pair, run, state
from tests.support.world import check_released, many_files, write_files

MB = 1_000_000


async def wire_rate(who: Person, transfer: str, *, seconds: float) -> float:
    """Bytes a second that moved over the wire, as the sender's worker counts them, averaged over a while."""
    began, rates = time.monotonic(), []
    while time.monotonic() - began < seconds:
        info = await who.client.call(Verbs.transfer_show, transfer=transfer)
        assert info.state == "running", info
        rates.append(info.path.rate)
        await asyncio.sleep(0.2)
    return sum(rates) / len(rates)


async def moving(who: Person, transfer: str) -> TransferInfo:
    return await state(who, transfer, lambda info: info.path.plane == "lanes" and info.path.rate > 0)


@pytest.mark.parametrize("dials", ["recipient", "sender"])
def test_rates_and_lanes_change_while_a_transfer_runs_and_the_lower_rate_holds(place: Path, dials: str) -> None:
    async def story() -> None:
        ada, bo = await pair(place)
        if dials == "sender":
            ada, bo = bo, ada
        files = write_files(place / "data", {"large": many_files(1, 96 * MB)["part-000.bin"]})
        made = await ada.client.call(Verbs.share_create, paths=[str(place / "data")], to=[bo.name], title="Trial")
        await offered(bo, made)
        started = await bo.client.call(Verbs.receive, share="Trial", rate=4 * MB, lanes=2)
        info = await state(bo, started.transfer, lambda info: info.path.lanes == 2 and info.path.rate > 0)
        assert info.limits.lanes == 2
        assert info.path.cipher.endswith("under X25519+ML-KEM-768")
        await asyncio.sleep(1.2)
        assert await wire_rate(ada, started.transfer, seconds=2) < 1.2 * 4 * MB
        sent = await state(ada, started.transfer, lambda info: info.path.limit == "cap")
        assert sent.path.lanes == 2
        assert sent.path.datagram_bytes >= 1_200
        assert sent.path.rtt_ms > 0

        # The recipient allows more, the sender less: the sender's holds.
        await bo.client.call(Verbs.transfer_limit, transfer=started.transfer, rate=40 * MB, lanes=4)
        await ada.client.call(Verbs.transfer_limit, transfer=started.transfer, rate=2 * MB)
        await state(bo, started.transfer, lambda info: info.path.lanes == 4)
        await asyncio.sleep(1.2)
        assert await wire_rate(ada, started.transfer, seconds=2) < 1.2 * 2 * MB

        # Fewer lanes: those that go bring what they were asked for first.
        await bo.client.call(Verbs.transfer_limit, transfer=started.transfer, lanes=1)
        await ada.client.call(Verbs.transfer_limit, transfer=started.transfer, rate=0)
        await state(bo, started.transfer, lambda info: info.path.lanes == 1 or info.state == "completed")
        await bo.client.call(Verbs.transfer_limit, transfer=started.transfer, rate=0)
        done = await ended(bo, started.transfer)
        assert (done.state, done.path.plane) == ("completed", "lanes")
        check_released(Path(done.destination), files)
        told = await bo.client.call(Verbs.audit_list, event="config.changed", about=started.transfer)
        assert [item.fields["new"] for item in reversed(told)] == [
            "rate 40000000 bytes/s, priority normal, lanes 4",
            "rate 40000000 bytes/s, priority normal, lanes 1",
            "rate 0 bytes/s, priority normal, lanes 1",
        ]
        await leave(ada, bo)

    run(story())


def test_of_two_transfers_on_one_path_the_one_of_higher_priority_goes_first(place: Path) -> None:
    """Of one size, over one path, held alike at first and let go in the same moment: only the priority differs. So large that the
    64 MiB of a journal, and what comes until somebody looks, are not much of it."""

    async def story() -> None:
        ada, bo = await pair(place)
        transfers = {}
        for seed, priority in enumerate(("low", "high")):
            write_files(place / priority, {"large": many_files(1, 250 * MB, seed=seed)["part-000.bin"]})
            made = await ada.client.call(Verbs.share_create, paths=[str(place / priority)], to=["Bo"], title=f"Trial {priority}")
            await offered(bo, made)
            started = await bo.client.call(Verbs.receive, share=made.share, priority=priority, rate=2 * MB)
            transfers[priority] = started.transfer
            await moving(bo, started.transfer)
        await asyncio.gather(
            *(bo.client.call(Verbs.transfer_limit, transfer=transfer, rate=0) for transfer in transfers.values())
        )
        assert (await ended(bo, transfers["high"])).state == "completed"
        behind = await bo.client.call(Verbs.transfer_show, transfer=transfers["low"])
        assert behind.done_bytes < behind.bytes / 2
        assert (await ended(bo, transfers["low"])).state == "completed"
        await leave(ada, bo)

    run(story())
