"""Transfers of whole nodes on the simulated network: senders go away, recipients restart, sources change, people decide."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labxchange.net.link import DOUBT_S
from labxchange.node.node import Node
from labxchange.node.values import TransferInfo
from labxchange.settings import RETRY_LAST_S
from labxchange.store import transfers
from tests.support.nodes import ended, offered, share, until, wait_for
from tests.support.world import (
    World,
    check_exchange,
    check_released,
    many_files,
    midway,
    now,
    receipts_of,
    settle,
    simulate,
    underway,
    write_files,
)

BACK_S = 12.0
"""Ten round trips of 0.4 s, hashing, and the pauses before a try."""


def arrived(node: Node, transfer: str) -> int:
    """How many chunks the node's journal holds."""
    with node.core.database.begin() as tx:
        return sum(last - first + 1 for first, last in transfers.arrived_chunks(tx, transfer))


def test_the_story_of_a_share(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        files = write_files(tmp_path / "data", many_files(5, 30_000) | {"empty": b"", "deep/er/file": b"x", "folder/": b""})
        made = await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        assert (made.state, made.files) == ("available", 8)
        started = await bo.node.receive(share="Trial")
        done = await ended(bo.node, started.transfer)
        assert (done.state, done.done_files, done.done_bytes) == ("completed", 8, sum(map(len, files.values())))
        assert check_released(Path(done.destination), files) == 7
        assert (Path(done.destination) / "folder").is_dir()
        report = (await bo.node.transfer_report(transfer=done.transfer)).report
        assert (report.verdict, report.matched, report.findings) == ("intact", 8, ())
        status = (await ada.node.share_status(share="Trial")).recipients[0]
        assert (status.state, status.used, status.reserved, status.acknowledged) == ("verified", 1, 0, True)
        assert (await bo.node.receipt_show(transfer=done.transfer)).acknowledged
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_the_first_bytes_are_here_after_three_round_trips(tmp_path: Path) -> None:
    """Listing, nonce and first digests, accept, range: what can be asked for at once is."""

    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", {"small": bytes(1_000)})
        await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        began = now()
        started = await bo.node.receive(share="Trial")

        async def verified() -> bool:
            return (await bo.node.transfer_show(transfer=started.transfer)).state in ("verified", "completed")

        await wait_for(verified)
        assert 3.0 <= now() - began < 3.9
        await until(bo.node, started.transfer, "completed")

    simulate(story, tmp_path, delay_s=0.5)


def test_a_sender_who_is_away_is_waited_for_and_the_transfer_goes_on_by_itself(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo, files, started = await underway(world, tmp_path / "data", files=40)
        world.cut_wire(ada, bo)
        waiting = await until(bo.node, started.transfer, "waiting", timeout_s=60)
        assert waiting.reason in ("peer-unreachable", "peer-silent", "connection-lost"), waiting.reason
        assert waiting.done_bytes >= started.done_bytes

        attempts = world.network.carried_datagrams
        await wait_for(lambda: now() > 1000 + 900, timeout_s=1000, what="a quarter of an hour")
        calls = world.network.carried_datagrams - attempts
        assert calls < 900 / RETRY_LAST_S * 40, f"{calls} datagrams in a quarter of an hour of trying"
        held = arrived(bo.node, started.transfer)
        world.mend_wire(ada, bo)
        began = now()
        done = await ended(bo.node, started.transfer, timeout_s=120)
        assert done.state == "completed"
        assert now() - began < RETRY_LAST_S + 30
        assert held > 0
        check_released(Path(done.destination), files)
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path, delay_s=0.2)


def test_an_offer_waits_for_a_recipient_who_is_away(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        await bo.stop()
        write_files(tmp_path / "data", {"a": b"1"})
        made = await ada.node.share_create(paths=[str(tmp_path / "data")], to=["Bo"], title="Trial")
        assert made.recipients[0].state == "waiting for them"
        await wait_for(lambda: now() > 1600, timeout_s=700)
        await bo.boot()
        began = now()
        await settle(ada, bo)
        assert now() - began < RETRY_LAST_S + 10
        await offered(bo.node, made)
        assert (await ada.node.share_status(share="Trial")).recipients[0].state == "available"

    simulate(story, tmp_path)


def test_a_recipient_restarts_and_nothing_verified_comes_again(tmp_path: Path) -> None:
    """A clean stop and, later, a crash; the sender counts what goes out."""

    async def story(world: World) -> None:
        ada, bo, files, started = await underway(world, tmp_path / "data", files=60)
        total = sum(map(len, files.values()))
        await bo.stop()
        await bo.boot()
        before = arrived(bo.node, started.transfer)
        assert before > 0
        await wait_for(lambda: bo.node.receiving.live(started.transfer)[0], what="the transfer to go on")
        held = (await midway(bo.node, started.transfer)).done_bytes
        bo.crash()
        world.cut_wire(ada, bo)
        await bo.boot()
        after = await bo.node.transfer_show(transfer=started.transfer)
        assert held <= after.done_bytes < total
        assert arrived(bo.node, started.transfer) >= before
        world.mend_wire(ada, bo)
        done = await ended(bo.node, started.transfer, timeout_s=120)
        assert done.state == "completed"
        assert check_released(Path(done.destination), files) == 60
        await settle(ada, bo)
        await check_exchange(ada, bo)
        events = [entry.event for entry in await bo.node.audit_list(limit=1000)]
        assert events.count("system.recovered") == 1
        assert "transfer.resumed" in events

    simulate(story, tmp_path, delay_s=0.2)


@pytest.mark.parametrize("who", ["sender", "recipient"])
def test_a_node_that_was_killed_and_is_back_goes_on_at_once(who: str, tmp_path: Path) -> None:
    """Its new connection tells that the old one is dead: nobody waits for the old one's silence."""

    async def story(world: World) -> None:
        ada, bo, files, started = await underway(world, tmp_path / "data", files=60)
        killed = ada if who == "sender" else bo
        killed.crash()
        crashed_at = now()
        await killed.boot()
        done = await ended(bo.node, started.transfer, timeout_s=120)
        assert done.state == "completed"
        assert now() - crashed_at < BACK_S
        assert check_released(Path(done.destination), files) == 60
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path, delay_s=0.2)


def test_a_connection_that_is_doubted_lives_if_the_peer_answers_and_is_soon_lost_if_not(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        await wait_for(lambda: ada.node.peers.count() == 1)
        channel = ada.node.peers.connected(bo.node.core.me)
        assert channel is not None
        channel.doubt()
        began = now()
        await wait_for(lambda: now() > began + 2 * DOUBT_S)
        assert channel.is_open
        world.cut_wire(ada, bo)
        channel.doubt()
        began = now()
        await wait_for(lambda: not channel.is_open)
        assert now() - began < DOUBT_S + 0.5

    simulate(story, tmp_path, delay_s=0.2)


def test_a_resumed_transfer_fetches_only_what_is_missing(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo, files, started = await underway(world, tmp_path / "data", files=40)
        paused = await bo.node.transfer_pause(transfer=started.transfer)
        assert paused.state == "paused"
        held = paused.done_bytes
        assert 0 < held < paused.bytes
        await wait_for(lambda: now() > 1300, timeout_s=400)
        assert (await bo.node.transfer_show(transfer=started.transfer)).done_bytes == held
        counted: list[int] = []
        original = bo.node.receiving.sample

        def sample(transfer: str) -> None:
            download, _ = bo.node.receiving.live(transfer)
            if download is not None:
                counted.append(download.received_bytes)
            original(transfer)

        bo.node.receiving.sample = sample  # type: ignore[method-assign]
        await bo.node.transfer_resume(transfer=started.transfer)
        done = await ended(bo.node, started.transfer)
        assert done.state == "completed"
        assert max(counted) == done.bytes - held
        check_released(Path(done.destination), files)
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path, delay_s=0.2)


def test_a_cancelled_transfer_leaves_no_part_files_and_tells_the_sender_what_had_arrived(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo, files, started = await underway(world, tmp_path / "data", files=40)
        gone = await bo.node.transfer_cancel(transfer=started.transfer)
        assert gone.state == "cancelled"
        assert not list(Path(gone.destination).glob(".labxchange-*"))
        check_released(Path(gone.destination), files)
        await settle(ada, bo)
        told = [item for item in await ada.node.transfer_list() if item.transfer == started.transfer]
        assert [(item.state, item.reason) for item in told] == [("cancelled", "cancelled")]
        again = await bo.node.receive(share="Trial", destination=str(tmp_path / "again"))
        assert again.transfer != started.transfer
        done = await ended(bo.node, again.transfer)
        assert done.state == "completed"
        assert check_released(tmp_path / "again", files) == 40
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path, delay_s=0.2)


async def received(world: World, folder: Path, *, delay: bool = False) -> TransferInfo:
    """Share a folder as "Trial" and receive it to its end."""
    ada, bo = world.machines["Ada"], world.machines["Bo"]
    await share(ada.node, bo.node, folder, title="Trial")
    started = await bo.node.receive(share="Trial")
    return await ended(bo.node, started.transfer, timeout_s=120)


def test_sources_that_change_shrink_or_vanish_before_they_are_sent_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        data = tmp_path / "data"
        files = write_files(data, many_files(5, 20_000))
        await share(ada.node, bo.node, data, title="Trial")
        changed, shrunk, removed, *good = sorted(files)
        (data / changed).write_bytes(b"!" * 20_000)
        os.truncate(data / shrunk, 10_000)
        (data / removed).unlink()
        started = await bo.node.receive(share="Trial")
        done = await ended(bo.node, started.transfer)
        assert (done.state, done.reason) == ("failed", "not-intact")
        report = (await bo.node.transfer_report(transfer=done.transfer)).report
        assert (report.verdict, report.matched, report.missing) == ("not-intact", 2, 3)
        assert {item.path: item.got for item in report.findings} == {changed: "changed", shrunk: "shrunk", removed: "removed"}
        assert check_released(Path(done.destination), {name: files[name] for name in good}) == 2
        await settle(ada, bo)
        await check_exchange(ada, bo)
        assert set(receipts_of(ada.node).values()) == {"delivered", "intact"}
        assert (await ada.node.share_status(share="Trial")).recipients[0].state == "not intact"
        receipt = await bo.node.receipt_show(transfer=done.transfer)
        assert receipt.verdict == "mismatch"
        named = await ada.node.audit_list(event="transfer.source-changed")
        assert {entry.fields["new"]: entry.result_code for entry in named} == {
            changed: "changed",
            shrunk: "shrunk",
            removed: "removed",
        }

    simulate(story, tmp_path)


def test_a_source_that_changes_while_it_is_sent_never_passes(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        data = tmp_path / "data"
        files = write_files(data, many_files(3, 1000) | {"large": os.urandom(7 << 20)})
        await share(ada.node, bo.node, data, title="Trial")
        started = await bo.node.receive(share="Trial")
        await wait_for(lambda: ada.node.serving.sent_bytes(started.transfer) > 1 << 20, what="the first bytes")
        with (data / "large").open("r+b") as file:
            file.seek((7 << 20) - 5)
            file.write(b"other")
        done = await ended(bo.node, started.transfer, timeout_s=60)
        assert done.state == "failed"
        assert done.done_bytes == 3000, "what had come of the file does not last"
        report = (await bo.node.transfer_report(transfer=done.transfer)).report
        assert [(item.path, item.got) for item in report.findings] == [("large", "changed")]
        assert report.matched == 3
        assert check_released(Path(done.destination), files) == 3
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path, delay_s=0.2)


def test_a_source_that_changes_before_it_is_hashed_is_left_out_of_the_manifest_and_named(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        data = tmp_path / "data"
        files = write_files(data, many_files(3, 20_000))
        made = await ada.node.share_create(paths=[str(data)], to=["Bo"], title="Trial")
        # hashing is a task of its own, so it has not begun yet
        (data / min(files)).write_bytes(b"shorter")
        (data / max(files)).unlink()
        hashed = await ada.node.share_hashed(share="Trial")
        assert (hashed.state, hashed.left_out) == ("available", 2)
        await offered(bo.node, made)
        started = await bo.node.receive(share="Trial")
        done = await ended(bo.node, started.transfer)
        report = (await bo.node.transfer_report(transfer=done.transfer)).report
        assert done.state == "failed"
        assert (report.verdict, report.matched, report.left_out) == ("not-intact", 1, 2)
        assert {item.path for item in report.findings} == {min(files), max(files)}
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_odd_datasets(tmp_path: Path) -> None:
    """One empty file; only empty folders; very long paths; names of many scripts."""

    async def story(world: World) -> None:
        ada, bo = await world.pair()
        deep = "/".join(["d" * 200] * 12) + "/" + "f" * 255
        odd = {
            "one empty file": {"nothing": b""},
            "empty folders": {"a/": b"", "b/c/": b""},
            "long": {deep: b"deep", "x" * 255: b"wide"},
            "scripts": {
                "Größe.txt": b"1",
                "データ/ファイル": b"2",
                "קובץ": b"3",
                " leading space": b"4",
                "a\u0301".encode().decode(): b"",
            },
        }
        for title, files in odd.items():
            if title == "scripts":
                files.pop("a\u0301")
            folder = tmp_path / title
            expected = write_files(folder, files)
            made = await share(ada.node, bo.node, folder, title=title)
            started = await bo.node.receive(share=made.share)
            done = await ended(bo.node, started.transfer)
            assert done.state == "completed", (title, done)
            assert check_released(Path(done.destination), expected) == len(expected)
            for name in files:
                assert (Path(done.destination) / name).exists()
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_three_versions_of_one_share(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        data = tmp_path / "data"
        share_id = ""
        for version in (1, 2, 3):
            files = write_files(data, {"adsl": b"version %d" % version, f"only-{version}": b"."})
            made = await share(ada.node, bo.node, data, title="" if share_id else "Trial", share=share_id)
            assert (made.version, made.title) == (version, "Trial")
            share_id = made.share
            if version == 2:
                continue
            started = await bo.node.receive(share="Trial")
            done = await ended(bo.node, started.transfer)
            assert (done.state, done.version) == ("completed", version)
            assert (Path(done.destination) / "adsl").read_bytes() == files["adsl"]
        items = sorted((await bo.node.inbox_list()), key=lambda item: item.version)
        assert [(item.version, item.state) for item in items] == [(1, "verified"), (2, "available"), (3, "verified")]
        late = await bo.node.receive(share=f"{share_id}/2")
        done = await ended(bo.node, late.transfer)
        assert (done.state, done.version) == ("failed", 2), "its files are those of version 3 by now"
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)
