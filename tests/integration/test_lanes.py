"""Transfers over lanes: two nodes with real lane workers on the loopback address, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from labxchange.audit.events import Event
from labxchange.node.node import Node
from labxchange.node.values import TransferInfo
from labxchange.transfer.lanes import fetching
from tests.support.nodes import befriend, ended, make_node, share, start, until, wait_for
from tests.support.world import check_released, write_files

Story = Callable[[Node, Node, Path], Awaitable[None]]
MIB = 1 << 20


def tell(tmp_path: Path, story: Story, *, recipient_dials: bool = False, workers: tuple[int, int] = (2, 2)) -> None:
    """Ada sends, Bo receives; who of them dialled is decided by who invited."""

    async def told() -> None:
        ada, bo = (make_node(tmp_path, name, lane_workers=count) for name, count in zip(("Ada", "Bo"), workers, strict=True))
        try:
            await start(ada)
            await start(bo)
            await (befriend(ada, bo) if recipient_dials else befriend(bo, ada))
            await story(ada, bo, tmp_path)
        finally:
            await ada.close()
            await bo.close()

    async def bounded() -> None:
        async with asyncio.timeout(120):
            await told()

    asyncio.run(bounded())


def tree(folder: Path, *, large: int = 5 * MIB + 77, small: int = 60) -> dict[str, bytes]:
    chance = random.Random("tree")
    files = {f"small/{number:03d}.csv": chance.randbytes(chance.randrange(0, 40_000)) for number in range(small)}
    files["large.bin"] = (chance.randbytes(MIB) * (large // MIB + 1))[:large]
    return write_files(folder, files)


async def received(bo: Node, made: str) -> TransferInfo:
    info = await bo.receive(share=made)
    return await ended(bo, info.transfer, timeout_s=90)


async def path_of(bo: Node, transfer: str) -> str:
    return (await bo.receipt_show(transfer=transfer)).path


@pytest.mark.parametrize("recipient_dials", [False, True])
def test_data_goes_over_lanes_whoever_dialled(tmp_path: Path, recipient_dials: bool) -> None:
    async def story(ada: Node, bo: Node, place: Path) -> None:
        files = tree(place / "data")
        made = await share(ada, bo, place / "data")
        info = await received(bo, made.share)
        assert info.state == "completed"
        assert check_released(Path(info.destination), files) == len(files)
        assert "lanes" in await path_of(bo, info.transfer)
        events = [entry.event for entry in await bo.audit_list(limit=1000)]
        assert Event.TRANSFER_FALLBACK not in events

    tell(tmp_path, story, recipient_dials=recipient_dials)


@pytest.mark.parametrize("without", ["Ada", "Bo"])
def test_a_node_without_lanes_is_served_over_quic_and_the_receipt_says_why(tmp_path: Path, without: str) -> None:
    async def story(ada: Node, bo: Node, place: Path) -> None:
        files = tree(place / "data", large=MIB)
        made = await share(ada, bo, place / "data")
        info = await received(bo, made.share)
        assert check_released(Path(info.destination), files) == len(files)
        assert "quic-stream" in await path_of(bo, info.transfer)

    tell(tmp_path, story, workers=(0, 2) if without == "Ada" else (2, 0))


def test_lanes_that_nobody_answers_fall_back_and_the_trail_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "UP_S", 0.5)

    async def story(ada: Node, bo: Node, place: Path) -> None:
        files = tree(place / "data", large=MIB)
        made = await share(ada, bo, place / "data")
        assert ada.bulk._workers is not None
        for worker in ada.bulk._workers.workers:
            monkeypatch.setattr(worker, "order", lambda order: None)  # as if a firewall swallowed every datagram
        info = await received(bo, made.share)
        assert check_released(Path(info.destination), files) == len(files)
        assert "quic-stream" in await path_of(bo, info.transfer)
        fallen = [entry for entry in await bo.audit_list(limit=1000) if entry.event == Event.TRANSFER_FALLBACK]
        assert [entry.result_code for entry in fallen] == ["lane-silent"]

    tell(tmp_path, story)


@pytest.mark.parametrize("whose", ["sender", "recipient", "recipient's writer"])
def test_a_worker_that_is_killed_costs_nothing_but_time(tmp_path: Path, whose: str) -> None:
    async def story(ada: Node, bo: Node, place: Path) -> None:
        files = tree(place / "data", large=200 * MIB, small=5)
        made = await share(ada, bo, place / "data")
        info = await bo.receive(share=made.share)

        async def under_way() -> bool:
            return (await bo.transfer_show(transfer=info.transfer)).done_bytes > 20 * MIB

        await wait_for(under_way, what="the data to flow", timeout_s=60)
        node = ada if whose == "sender" else bo
        assert node.bulk._workers is not None
        busy = [worker.pid for worker in node.bulk._workers.workers if worker.lanes]
        assert busy
        for pid in busy:
            assert pid is not None
            if whose == "recipient's writer":
                (writer,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                pid = int(writer)
            os.kill(pid, signal.SIGKILL)
        done = await ended(bo, info.transfer, timeout_s=90)
        assert done.state == "completed"
        assert check_released(Path(done.destination), files) == len(files)

    tell(tmp_path, story)


def test_a_source_that_changes_meanwhile_is_named_and_never_passes(tmp_path: Path) -> None:
    async def story(ada: Node, bo: Node, place: Path) -> None:
        files = tree(place / "data")
        made = await share(ada, bo, place / "data")
        (place / "data" / "small" / "007.csv").write_bytes(b"another content")
        (place / "data" / "small" / "011.csv").unlink()
        info = await received(bo, made.share)
        assert (info.state, info.reason) == ("failed", "not-intact")
        report = (await bo.transfer_report(transfer=info.transfer)).report
        assert sorted(finding.path for finding in report.findings) == ["small/007.csv", "small/011.csv"]
        assert check_released(Path(info.destination), files) == len(files) - 2

    tell(tmp_path, story)


def test_taking_a_grant_back_stops_what_was_asked_for(tmp_path: Path) -> None:
    async def story(ada: Node, bo: Node, place: Path) -> None:
        tree(place / "data", large=300 * MIB, small=1)
        made = await share(ada, bo, place / "data")
        info = await bo.receive(share=made.share)

        async def under_way() -> bool:
            return (await bo.transfer_show(transfer=info.transfer)).done_bytes > 10 * MIB

        await wait_for(under_way, what="the data to flow", timeout_s=60)
        await ada.share_revoke(share=made.share, reason="a mistake")
        cut = await until(bo, info.transfer, "cut", timeout_s=20)
        assert cut.reason == "grant-revoked"
        assert cut.done_bytes < cut.bytes
        assert not ada.bulk.outgoing

    tell(tmp_path, story)
