"""A share is fetched while its sender still hashes it: whole nodes on the simulated network, hashing at the pace of the story."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labxchange.errors import UnavailableError
from labxchange.files import parallel
from labxchange.node.answering import Answering
from labxchange.node.hashing import Hashing
from labxchange.node.node import Node
from labxchange.node.serving import Serving
from labxchange.node.values import ShareInfo, TransferInfo
from labxchange.store import transfers
from labxchange.transfer.intervals import count
from labxchange.wire.control.messages import Announced, GetDigests
from tests.support.nodes import ended, offered, until, wait_for
from tests.support.world import World, check_exchange, check_released, many_files, now, settle, simulate, write_files

FILES, SIZE = 20, 30_000


class Pace:
    """Hashing does two files for each ``go``, and after ``all`` the rest."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._steps = 0
        self._changed = asyncio.Event()
        self.error: UnavailableError | None = None
        following = Hashing._next
        monkeypatch.setattr(parallel, "BATCH_FILES", 2)

        async def paced(hashing: Hashing, batches: Iterator[Any]) -> Any:
            while not self._steps:
                await self._changed.wait()
                self._changed.clear()
            self._steps -= 1
            if self.error is not None:
                raise self.error
            return await following(hashing, batches)

        monkeypatch.setattr(Hashing, "_next", paced)

    def go(self, batches: int) -> None:
        self._steps += batches
        self._changed.set()

    def all(self) -> None:
        self.go(10**6)


def arrived(node: Node, transfer: str) -> int:
    with node.core.database.begin() as tx:
        return count(transfers.arrived_chunks(tx, transfer))


def count_sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each message that any node sends."""
    sent: list[int] = []
    counted = Serving._count

    def told(self: Serving, active: Any, size: int) -> None:
        sent.append(size)
        counted(self, active, size)

    monkeypatch.setattr(Serving, "_count", told)
    return sent


async def begun(world: World, folder: Path, *, chunks: int) -> tuple[ShareInfo, TransferInfo]:
    """A share on offer that is being hashed, and its transfer, when so many chunks have arrived."""
    ada, bo = world.machines["Ada"], world.machines["Bo"]
    made = await ada.node.share_create(paths=[str(folder)], to=["Bo"], title="Trial")
    assert (made.state, made.root) == ("hashing", "")
    await offered(bo.node, made)
    started = await bo.node.receive(share="Trial")
    await wait_for(lambda: arrived(bo.node, started.transfer) == chunks, what=f"{chunks} chunks")
    return made, started


def test_a_transfer_runs_ahead_of_the_manifest_and_releases_nothing_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        pace, sent = Pace(monkeypatch), count_sent(monkeypatch)
        files = write_files(tmp_path / "data", many_files(FILES, SIZE) | {"empty": b"", "folder/": b""})
        pace.go(5)
        made, started = await begun(world, tmp_path / "data", chunks=8)  # "empty" and "folder/" are hashed too
        shown = await bo.node.transfer_show(transfer=started.transfer)
        assert (shown.state, shown.done_files, shown.done_bytes) == ("running", 0, 8 * SIZE)
        assert check_released(Path(shown.destination), files) == 0
        status = await ada.node.share_status(share=made.share)
        assert (status.state, status.hashed_bytes >= 8 * SIZE) == ("hashing", True)
        began = now()
        await wait_for(lambda: now() > began + 60, timeout_s=100)
        assert (await bo.node.transfer_show(transfer=started.transfer)).state == "running", "it waits for the hashing"
        pace.all()
        done = await ended(bo.node, started.transfer)
        assert (done.state, done.done_files, done.reused_bytes) == ("completed", FILES + 2, 0)
        assert check_released(Path(done.destination), files) == FILES + 1
        assert sum(sent) == FILES * SIZE, "every chunk once"
        assert (await ada.node.share_status(share=made.share)).root == (await bo.node.receipt_show(transfer=done.transfer)).root
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_digests_are_asked_for_at_a_bounded_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        pace = Pace(monkeypatch)
        asked = 0
        announced = Answering.digests

        async def told(self: Answering, *given: Any) -> None:
            nonlocal asked
            asked += 1
            await announced(self, *given)

        monkeypatch.setattr(Answering, "digests", told)
        write_files(tmp_path / "data", many_files(FILES, SIZE))
        pace.go(1)
        await begun(world, tmp_path / "data", chunks=2)
        began, before = now(), asked
        await wait_for(lambda: now() > began + 400, timeout_s=500)
        assert asked - before < 400 / 20 + 5
        pace.all()
        await settle(ada, bo)

    simulate(story, tmp_path)


@pytest.mark.parametrize("who", ["Ada", "Bo", "both"])
def test_a_crash_while_hashing_loses_nothing_that_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        pace, sent = Pace(monkeypatch), count_sent(monkeypatch)
        files = write_files(tmp_path / "data", many_files(FILES, SIZE))
        pace.go(6)
        _, started = await begun(world, tmp_path / "data", chunks=12)
        for machine in (ada, bo):
            if who in (machine.name, "both"):
                machine.crash()
                await machine.boot()
        if who != "Bo":  # it hashes from the beginning, and is not as far as it was
            pace.go(2)
            await until(bo.node, started.transfer, "running", timeout_s=120)
        assert arrived(bo.node, started.transfer) == 12
        pace.all()
        done = await ended(bo.node, started.transfer, timeout_s=120)
        assert done.state == "completed"
        assert check_released(Path(done.destination), files) == FILES
        assert sum(sent) == FILES * SIZE, "what was journalled did not come again"
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_a_file_that_changes_while_it_is_hashed_is_left_out_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        pace = Pace(monkeypatch)
        data = tmp_path / "data"
        files = write_files(data, many_files(FILES, SIZE))
        pace.go(2)
        _, started = await begun(world, data, chunks=4)
        (data / max(files)).write_bytes(b"other")
        pace.all()
        done = await ended(bo.node, started.transfer)
        assert (done.state, done.reason) == ("failed", "not-intact")
        report = (await bo.node.transfer_report(transfer=done.transfer)).report
        assert (report.matched, report.left_out) == (FILES - 1, 1)
        assert [(item.path, item.got) for item in report.findings] == [(max(files), "shrunk")]
        assert check_released(Path(done.destination), files) == FILES - 1
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_hashing_that_fails_ends_the_transfer_with_the_senders_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        pace = Pace(monkeypatch)
        write_files(tmp_path / "data", many_files(FILES, SIZE))
        pace.go(3)
        made, started = await begun(world, tmp_path / "data", chunks=6)
        pace.error = UnavailableError("out-of-descriptors", "No descriptor is left.")
        pace.all()
        over = await ended(bo.node, started.transfer, timeout_s=60)
        assert (over.state, over.reason, over.done_files) == ("cut", "share-failed", 0)
        assert (await ada.node.share_status(share=made.share)).state == "failed"
        await settle(ada, bo)
        told = [item for item in await ada.node.transfer_list() if item.transfer == started.transfer]
        assert [(item.state, item.reason) for item in told] == [("cut", "share-failed")]
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_a_revocation_acts_while_digests_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        pace = Pace(monkeypatch)
        write_files(tmp_path / "data", many_files(FILES, SIZE))
        pace.go(2)
        made, started = await begun(world, tmp_path / "data", chunks=4)
        began = now()
        await ada.node.share_revoke(share=made.share)
        over = await ended(bo.node, started.transfer)
        assert (over.state, over.reason) == ("cut", "grant-revoked")
        assert now() - began < 2
        pace.all()
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_pause_and_cancel_work_while_the_sender_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        pace = Pace(monkeypatch)
        files = write_files(tmp_path / "data", many_files(FILES, SIZE))
        pace.go(2)
        _, started = await begun(world, tmp_path / "data", chunks=4)
        assert (await bo.node.transfer_pause(transfer=started.transfer)).state == "paused"
        await bo.node.transfer_resume(transfer=started.transfer)
        await until(bo.node, started.transfer, "running")
        gone = await bo.node.transfer_cancel(transfer=started.transfer)
        assert not list(Path(gone.destination).glob(".labxchange-*"))
        pace.all()
        again = await bo.node.receive(share="Trial", destination=str(tmp_path / "again"))
        assert (await ended(bo.node, again.transfer)).state == "completed"
        assert check_released(tmp_path / "again", files) == FILES
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


# --- senders that announce something else -----------------------------------------------------------------------------
def cheat(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    honest = Answering._announced
    monkeypatch.setattr(Answering, "_announced", lambda self, request: change(request, honest(self, request)))


@pytest.mark.parametrize(
    ("case", "code"),
    [("half a digest", "digests-malformed"), ("more than there are", "digests-malformed"), ("withheld", "digests-withheld")],
)
def test_wrong_pages_of_digests_stop_the_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, code: str) -> None:
    lies = {
        "half a digest": lambda request, told: Announced(data=bytes(33)),
        "more than there are": lambda request, told: Announced(data=bytes(32 * (FILES + 1))),
        "withheld": lambda request, told: Announced(data=b"", manifest=told.manifest),
    }

    async def story(world: World) -> None:
        ada, bo = await world.pair()
        pace = Pace(monkeypatch)
        files = write_files(tmp_path / "data", many_files(FILES, SIZE))
        made = await ada.node.share_create(paths=[str(tmp_path / "data")], to=["Bo"], title="Trial")
        await offered(bo.node, made)
        with monkeypatch.context() as patched:
            cheat(patched, lies[case])
            started = await bo.node.receive(share="Trial")
            pace.all()

            async def stopped() -> TransferInfo | None:
                info = await bo.node.transfer_show(transfer=started.transfer)
                return info if info.state == "waiting" and info.reason else None

            waiting = await wait_for(stopped, timeout_s=60)
        assert waiting.reason == code
        assert waiting.done_files == 0
        done = await ended(bo.node, started.transfer, timeout_s=60)
        assert done.state == "completed"
        assert check_released(Path(done.destination), files) == FILES
        await settle(ada, bo)

    simulate(story, tmp_path)


def test_chunks_that_were_announced_otherwise_than_the_manifest_says_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender announces, and sends, bytes of its own; the manifest it signs names others."""

    async def story(world: World) -> None:
        from blake3 import blake3

        from labxchange.transfer.send import Source
        from labxchange.wire.control.messages import Piece

        ada, bo = await world.pair()
        pace = Pace(monkeypatch)
        files = write_files(tmp_path / "data", many_files(FILES, SIZE))
        other, honest = b"!" * SIZE, Source.pieces
        lying = monkeypatch.context()
        with lying as patched:

            def announced(request: GetDigests, told: Announced) -> Announced:
                return Announced(data=blake3(other).digest() * (len(told.data) // 32), manifest=told.manifest)

            cheat(patched, announced)
            patched.setattr(Source, "pieces", lambda self, chunk: iter([Piece(chunk, 0, other)]))
            pace.go(4)
            _, started = await begun(world, tmp_path / "data", chunks=8)
        assert Source.pieces is honest
        assert check_released(Path((await bo.node.transfer_show(transfer=started.transfer)).destination), files) == 0
        pace.all()
        done = await ended(bo.node, started.transfer)
        assert (done.state, done.done_bytes) == ("completed", FILES * SIZE)
        assert check_released(Path(done.destination), files) == FILES
        await settle(ada, bo)
        await check_exchange(ada, bo)
        verified = (await bo.node.audit_list(event="transfer.verified"))[-1]
        assert "8" in verified.fields["details"]

    simulate(story, tmp_path)
