"""Lane workers as they are: two processes, a lane over loopback, a folder that arrives; then kills, pauses and changes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
from hashlib import sha256
from pathlib import Path
from typing import get_args

import pytest

from labxchange.settings import BULK_NICE
from labxchange.transfer.lanes import messages
from labxchange.wire.data.datagram import Writer, lane_secret
from tests.support.lane_workers import JOB, Move
from tests.support.lanes import K_LANE

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    (place / "b").mkdir(parents=True)
    chance = random.Random(12)
    for name, size in (("a.bin", 5 * MIB + 11), ("b/empty", 0), ("c.bin", 40 * MIB), ("d", 1)):
        (place / name).write_bytes(chance.randbytes(size))
    for number in range(300):
        (place / f"e{number:03}").write_bytes(chance.randbytes(chance.randrange(1, 9_000)))
    return place


def check(move: Move, folder: Path) -> None:
    """Every chunk is told once and right, every byte written."""
    assert sorted(move.came) == list(range(move.line.chunks))
    for chunk, came in move.came.items():
        assert came.digest == move.digest_of(chunk, folder)
        if came.record:
            path = folder / move.files[move.line.chunk_at(chunk).file].path
            assert came.record == sha256(path.read_bytes()).digest()
    assert {move.line.chunk_at(chunk).file for chunk, came in move.came.items() if came.record} == {
        number for number, file in enumerate(move.files) if file.size
    }
    for number, file in enumerate(move.files):
        if file.size:
            assert move.part(number) == (folder / file.path).read_bytes()


def of_both(pid: int | None) -> list[int]:
    """A worker and its writer."""
    assert pid is not None
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


@pytest.mark.parametrize("sender_dials", [True, False], ids=["sender dials", "receiver dials"])
def test_a_folder_arrives(folder: Path, tmp_path: Path, sender_dials: bool) -> None:
    async def main() -> None:
        async with Move(folder, tmp_path / "here") as move:
            move.open(sender_dials=sender_dials)
            await move.until(lambda: len(move.of(messages.LaneUp)) == 2)
            half = move.line.chunks // 2
            move.ask(0, half, request=1)
            move.ask(half + 1, move.line.chunks - 1, request=2)
            await move.until(lambda: len(move.came) == move.line.chunks)
            await move.until(lambda: len(move.of(messages.Sent)) == 2)
            assert [(sent.request, sent.gone) for sent in move.of(messages.Sent)] == [(1, []), (2, [])]
            check(move, folder)
            for pid in (move.sender.pid, *of_both(move.receiver.pid)):
                assert os.getpriority(os.PRIO_PROCESS, pid or 0) == min(os.nice(0) + BULK_NICE, 19)
            for worker in (move.sender, move.receiver):
                worker.order(messages.CloseJob(job=JOB))
            await move.until(lambda: len(move.of(messages.JobClosed)) == 2)
            assert not move.of(messages.Trouble)
            assert not move.of(messages.LaneOver)

    asyncio.run(main())


@pytest.mark.parametrize("whose", ["sender", "receiver"])
def test_a_worker_that_is_killed_is_told(folder: Path, tmp_path: Path, whose: str) -> None:
    """Lane and job are over at once on its side; and the next order starts another."""

    async def main() -> None:
        async with Move(folder, tmp_path / "here", cap_bytes_s=20e6) as move:
            move.open(sender_dials=True)
            await move.until(lambda: len(move.of(messages.LaneUp)) == 2)
            move.ask(0, move.line.chunks - 1)
            await move.until(lambda: len(move.came) > 3)
            worker = getattr(move, whose)
            first = worker.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            await move.until(lambda: bool(move.of(messages.LaneOver) and move.of(messages.JobClosed)))
            assert [(over.lane, over.code) for over in move.of(messages.LaneOver)] == [(move.lane, "worker-ended")]
            assert worker.pid is None
            worker.order(messages.CloseJob(job=9))
            worker.jobs[9] = move._told
            await move.until(lambda: any(closed.job == 9 for closed in move.of(messages.JobClosed)))
            assert worker.pid not in (None, first)

    asyncio.run(main())


@pytest.mark.parametrize("whose", ["sender", "receiver"])
def test_a_worker_that_stands_still_goes_on(folder: Path, tmp_path: Path, whose: str) -> None:
    async def main() -> None:
        async with Move(folder, tmp_path / "here", cap_bytes_s=30e6) as move:
            move.open(sender_dials=False)
            await move.until(lambda: len(move.of(messages.LaneUp)) == 2)
            move.ask(0, move.line.chunks - 1)
            await move.until(lambda: len(move.came) > 3)
            pid = getattr(move, whose).pid
            os.kill(pid, signal.SIGSTOP)
            # The pause is what is tested; nothing is waited for.
            await asyncio.sleep(1.5)
            os.kill(pid, signal.SIGCONT)
            await move.until(lambda: len(move.came) == move.line.chunks)
            check(move, folder)
            assert not move.of(messages.LaneOver)

    asyncio.run(main())


def test_files_that_changed_are_told_and_the_rest_arrives(folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with Move(folder, tmp_path / "here") as move:
            (folder / "c.bin").write_bytes(b"shorter")
            (folder / "e007").unlink()
            names = [file.path for file in move.files]
            gone = {names.index("c.bin"): "shrunk", names.index("e007"): "removed"}
            move.open(sender_dials=True)
            move.ask(0, move.line.chunks - 1)
            await move.until(lambda: bool(move.of(messages.Sent)))
            (sent,) = move.of(messages.Sent)
            assert dict(sent.gone) == gone
            for file in gone:
                chunks = move.line.chunks_of(file)
                move.receiver.order(messages.Skip(lane=move.lane, chunks=[(chunks[0], chunks[-1])]))
            there = {chunk for chunk in range(move.line.chunks) if move.line.chunk_at(chunk).file not in gone}
            await move.until(lambda: there <= move.came.keys())
            for chunk in there:
                assert move.came[chunk].digest == move.digest_of(chunk, folder)

    asyncio.run(main())


def test_a_lane_that_nobody_answers_fails(folder: Path, tmp_path: Path) -> None:
    """Nothing listens on that port: the sender says so in time, having sent challenges only."""

    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
            deaf.bind(("127.0.0.1", 0))
            async with Move(folder, tmp_path / "here") as move:
                move.port = deaf.getsockname()[1]
                move.open(sender_dials=True)
                move.ask(0, move.line.chunks - 1)
                await move.until(lambda: bool(move.of(messages.LaneStats)))
                await move.until(lambda: any(stats.sent_bytes > 44 for stats in move.of(messages.LaneStats)))
                deaf.setblocking(False)
                while True:
                    try:
                        assert len(deaf.recv(65_536)) == 44
                    except BlockingIOError:
                        break
                assert not move.of(messages.LaneUp)

    asyncio.run(main())


def test_a_destination_that_is_not_ours_is_told(folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "here").write_bytes(b"a file")
        async with Move(folder, tmp_path / "here") as move:
            move.open(sender_dials=True)
            await move.until(lambda: bool(move.of(messages.Trouble)))
            (trouble,) = move.of(messages.Trouble)
            assert trouble.job == JOB
            assert trouble.code

    asyncio.run(main())


def test_keys_are_in_no_argument_and_no_environment(folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with Move(folder, tmp_path / "here") as move:
            move.open(sender_dials=True)
            await move.until(lambda: len(move.of(messages.LaneUp)) == 2)
            for worker in (move.sender, move.receiver):
                said = Path(f"/proc/{worker.pid}/cmdline").read_bytes() + Path(f"/proc/{worker.pid}/environ").read_bytes()
                for writer in get_args(Writer):
                    secret = lane_secret(K_LANE, move.lane, writer)[:32]
                    assert secret not in said
                    assert secret.hex().encode() not in said

    asyncio.run(main())
