"""``Download`` against a sender in the same process: honest ones over ``send_chunks``, and scripted ones that cheat."""

from __future__ import annotations

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labxchange.dataset.check import FindingKind
from labxchange.dataset.listing import Line, ListedFile
from labxchange.dataset.manifest import FileDigests
from labxchange.errors import LabxchangeError, PeerError, RefusedError, UnavailableError
from labxchange.files.earlier import EarlierFiles
from labxchange.files.hashing import hash_files
from labxchange.files.quarantine import Quarantine
from labxchange.files.scan import Scan, scan
from labxchange.net.simulated import run_virtual
from labxchange.transfer import plan, receive, streams, wanted
from labxchange.transfer.digests import ChunkDigests
from labxchange.transfer.intervals import Interval, count, of_numbers
from labxchange.transfer.pace import Pace
from labxchange.transfer.receive import Download
from labxchange.transfer.reuse import Held, Reuse
from labxchange.transfer.send import Source, checked_intervals, send_chunks
from labxchange.transfer.streams import Ended, Streams
from labxchange.wire.control.messages import Fetch, Fetched, Gone, Piece, Pieces, Refused, decode_request, encode

TRANSFER = "ab" * 16
Serve = Callable[["FakeStream", Fetch], Coroutine[Any, Any, None]]


class FakeStream:
    """What the sender's side of a fetch writes, read by the download."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._queue: asyncio.Queue[bytes | LabxchangeError | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> FakeStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()

    async def send(self, data: bytes, *, end: bool = False) -> None:
        if self._task is None:
            request = decode_request(data)
            assert isinstance(request, Fetch)
            self._task = asyncio.ensure_future(self._serve(_Writer(self), request))  # type: ignore[arg-type]
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(task.exception(), LabxchangeError):
            self._queue.put_nowait(task.exception())  # type: ignore[arg-type]

    def put(self, data: bytes | None) -> None:
        self._queue.put_nowait(data)

    async def receive(self, timeout_s: float | None = None) -> bytes | None:
        got = await self._queue.get()
        if isinstance(got, LabxchangeError):
            raise got
        return got


class _Writer:
    def __init__(self, stream: FakeStream) -> None:
        self._stream = stream

    async def send(self, data: bytes, *, end: bool = False) -> None:
        self._stream.put(data)
        await asyncio.sleep(0.01)


class FakeChannel:
    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.asked: list[list[Interval]] = []

    async def open(self) -> FakeStream:
        async def serve(stream: FakeStream, request: Fetch) -> None:
            self.asked.append(list(request.chunks))
            await self._serve(stream, request)

        return FakeStream(serve)


class Shelf:
    """A dataset on this disk with its digests, as a manifest would hold them."""

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        self.contents = files
        for name, data in files.items():
            path = folder / name
            if name.endswith("/"):
                path.mkdir(parents=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            os.utime(path, (1_700_000_000, 1_700_000_000))
        self.folder = folder
        self.scan: Scan = scan([folder])
        self.files: list[ListedFile] = list(self.scan.files)
        self.line = Line(self.files)
        self.digests: list[FileDigests] = []
        chunks = bytearray()
        for batch in hash_files(self.scan.sources, self.files):
            for item in batch:
                assert not isinstance(item.result, str)
                self.digests.append((item.result.sha256, sha256(item.result.chunks).digest()))
                chunks += item.result.chunks
        self.chunks = bytes(chunks)
        self.gone: dict[int, str] = {}

    async def serve(self, stream: FakeStream, request: Fetch) -> None:
        """An honest sender."""
        checked_intervals(request.chunks, self.line, limit=1 << 30)
        source = Source(self.scan.sources, self.files, self.line, self.chunks, gone=self.gone)
        try:
            await send_chunks(stream, source, request.chunks, pace=Pace(), permitted=lambda: None, sent=lambda _: None)  # type: ignore[arg-type]
        finally:
            source.close()

    def index(self, name: str) -> int:
        return next(number for number, file in enumerate(self.files) if file.path == name)


class Book:
    """A journal in memory; what it holds survives the download."""

    def __init__(self) -> None:
        self.arrived: list[Interval] = []
        self.released: list[Interval] = []
        self.dropped: list[Interval] = []
        self.states: list[tuple[list[Interval], list[Interval], bool]] = []
        """At each release of a name: the files, the chunks journalled by then, and whether it had been announced."""
        self._announced = 0

    def commit(
        self,
        *,
        arrived: Sequence[Interval] = (),
        done_bytes: int = 0,
        reused_bytes: int = 0,
        releasing: Sequence[Any] = (),
        released: Sequence[Interval] = (),
        done_files: int = 0,
    ) -> None:
        self.arrived += arrived
        self.released += released
        if released:
            self._announced -= count(released)
            self.states.append((list(released), list(self.arrived), self._announced >= 0))
        self._announced += len(releasing)

    def drop(self, chunks: Sequence[Interval], *, done_bytes: int, reused_bytes: int) -> None:
        self.dropped += chunks
        gone = {chunk for first, last in chunks for chunk in range(first, last + 1)}
        self.arrived = of_numbers({chunk for first, last in self.arrived for chunk in range(first, last + 1)} - gone)


def make(shelf: Shelf, target: Path, book: Book, **changes: Any) -> Download:
    given: dict[str, Any] = {
        "files": shelf.files,
        "line": shelf.line,
        "digests": ChunkDigests(shelf.line.chunks, shelf.chunks),
        "manifest": shelf.digests,
        "quarantine": Quarantine(target, TRANSFER),
        "journal": book,
        "arrived": book.arrived,
        "released": book.released,
        "on_progress": lambda: None,
    }
    return Download(TRANSFER, **(given | changes))


def way_of(download: Download, channel: FakeChannel) -> Streams:
    return Streams(
        TRANSFER,
        channel,  # type: ignore[arg-type]
        line=download.line,
        digests=download.digests,
        quarantine=download._quarantine,
        refused=lambda envelope, channel: RefusedError("told-so", "The sender ended it."),
        pace=Pace(),
    )


def fetch(download: Download, serve: Serve) -> FakeChannel:
    """Run the download to its end on a virtual clock."""
    channel = FakeChannel(serve)
    run_virtual(download.run(way_of(download, channel)))
    return channel


def data(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def same(target: Path, shelf: Shelf, *, without: Sequence[str] = ()) -> bool:
    names = [name for name in shelf.contents if name not in without]
    return all(
        (target / name).is_dir() if name.endswith("/") else (target / name).read_bytes() == shelf.contents[name] for name in names
    )


def test_everything_arrives_and_is_released_after_it_is_journalled(tmp_path: Path) -> None:
    contents = {"a": data(10), "b/c": data(3 << 20), "empty": b"", "folder/": b""} | {f"n{n}": data(999, n) for n in range(50)}
    shelf, book = Shelf(tmp_path / "source", contents), Book()
    download = make(shelf, tmp_path / "target", book)
    channel = fetch(download, shelf.serve)
    assert download.complete
    assert not download.findings
    assert same(tmp_path / "target", shelf)
    asked = [chunk for request in channel.asked for first, last in request for chunk in range(first, last + 1)]
    assert sorted(asked) == list(range(shelf.line.chunks)), "each chunk once"
    assert count(book.arrived) == shelf.line.chunks
    assert count(book.released) == len(shelf.files)
    for files, held, announced in book.states:
        assert announced
        chunks = {chunk for first, last in held for chunk in range(first, last + 1)}
        assert all(set(shelf.line.chunks_of(file)) <= chunks for first, last in files for file in range(first, last + 1))
    assert download.done_bytes == shelf.line.bytes


def test_small_files_go_in_shorter_batches_once_all_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else thousands of them wait for their names when the last one is here."""
    monkeypatch.setattr(wanted, "LAST_BATCH_FILES", 3)
    shelf, book = Shelf(tmp_path / "source", {f"n{number}": data(99, number) for number in range(10)}), Book()
    target = tmp_path / "target"

    async def main() -> None:
        download = make(shelf, target, book)

        def come(chunk: int) -> None:
            download._quarantine.write(chunk, 0, shelf.contents[shelf.files[chunk].path])
            download.done([Ended(chunk, 99, "", b"")])

        def named() -> int:
            return sum((target / file.path).exists() for file in shelf.files)

        for chunk in range(4):
            come(chunk)
        await download._commit_fresh()
        assert named() == 0, "a short batch waits for company while more is to be asked for"
        assert download._wanted.requests.take() == [(0, 9)]
        await download._commit_fresh()
        assert named() == 4
        download._full.clear()
        for chunk in (4, 5):
            come(chunk)
        assert not download._full.is_set()
        await download._commit_fresh()
        assert named() == 4
        come(6)
        assert not download._full.is_set(), "one is fresh"
        for chunk in (7, 8):
            come(chunk)
        assert download._full.is_set()
        await download._commit_fresh()
        assert named() == 9
        come(9)
        await download._commit_fresh(everything=True)
        assert download.complete
        assert same(target, shelf)

    asyncio.run(main())


def test_what_the_journal_holds_is_not_asked_for_again(tmp_path: Path) -> None:
    shelf, book = Shelf(tmp_path / "source", {f"n{n:02d}": data(2 << 20, n) for n in range(10)}), Book()
    download = make(shelf, tmp_path / "target", book)
    served = 0

    async def breaks(stream: FakeStream, request: Fetch) -> None:
        nonlocal served
        source = Source(shelf.scan.sources, shelf.files, shelf.line, shelf.chunks, gone={})
        for group in source.groups(request.chunks):
            served += len(group)
            await stream.send(encode(Pieces(pieces=group)))
            await asyncio.sleep(0.2)
            if served > 40:
                raise UnavailableError("connection-lost", "The connection is lost.")

    with pytest.raises(UnavailableError):
        fetch(download, breaks)
    held = count(book.arrived)
    assert 0 < held < shelf.line.chunks
    again = make(shelf, tmp_path / "target", book)
    channel = fetch(again, shelf.serve)
    assert sum(count(request) for request in channel.asked) == shelf.line.chunks - held
    assert again.received_bytes == shelf.line.bytes - held * (1 << 20)
    assert same(tmp_path / "target", shelf)


def test_a_chunk_that_stays_wrong_names_its_file_and_the_rest_goes_on(tmp_path: Path) -> None:
    shelf, book = Shelf(tmp_path / "source", {"bad": data(2 << 20, 1), "good": data(5000, 2)}), Book()
    bad = shelf.index("bad")
    tries = 0

    async def damages(stream: FakeStream, request: Fetch) -> None:
        nonlocal tries
        for first, last in request.chunks:
            for chunk in range(first, last + 1):
                place = shelf.line.chunk_at(chunk)
                name = shelf.files[place.file].path
                whole = shelf.contents[name][place.file_offset : place.file_offset + place.length]
                if place.file == bad and place.file_offset:
                    tries += 1
                    whole = whole[:-1] + bytes([whole[-1] ^ 1])
                for start in range(0, len(whole), 1 << 18):
                    await stream.send(encode(Pieces(pieces=[Piece(chunk, start, whole[start : start + (1 << 18)])])))
        await stream.send(encode(Fetched(gone=[])))

    download = make(shelf, tmp_path / "target", book)
    fetch(download, damages)
    finding = download.findings[bad]
    assert (finding.kind, finding.path, finding.offset) == (FindingKind.DIFFER, "bad", 1 << 20)
    assert finding.got != finding.expected
    assert tries == 3
    assert not (tmp_path / "target" / "bad").exists()
    assert (tmp_path / "target" / "good").read_bytes() == shelf.contents["good"]


def test_a_chunk_that_was_damaged_once_is_asked_for_again(tmp_path: Path) -> None:
    shelf, book = Shelf(tmp_path / "source", {"file": data(3000)}), Book()
    answers = deque([b"x" * 3000, shelf.contents["file"]])

    async def once(stream: FakeStream, request: Fetch) -> None:
        await stream.send(encode(Pieces(pieces=[Piece(0, 0, answers.popleft())])))
        await stream.send(encode(Fetched(gone=[])))

    download = make(shelf, tmp_path / "target", book)
    fetch(download, once)
    assert not download.findings
    assert same(tmp_path / "target", shelf)


def test_files_that_the_sender_cannot_send_are_named(tmp_path: Path) -> None:
    shelf, book = (
        Shelf(tmp_path / "source", {"changed": data(100), "removed": data(200), "shrunk": data(300), "good": b"1"}),
        Book(),
    )
    (shelf.folder / "changed").write_bytes(b"!" * 100)
    (shelf.folder / "removed").unlink()
    os.truncate(shelf.folder / "shrunk", 10)
    download = make(shelf, tmp_path / "target", book)
    fetch(download, shelf.serve)
    assert {item.path: (item.kind, item.got) for item in download.findings.values()} == {
        name: (FindingKind.MISSING, name) for name in ("changed", "removed", "shrunk")
    }
    assert sorted(path.name for path in (tmp_path / "target").iterdir() if path.is_file()) == ["good"]


def test_files_left_out_of_the_manifest_are_not_asked_for(tmp_path: Path) -> None:
    shelf, book = Shelf(tmp_path / "source", {"a": data(100), "b": data(200)}), Book()
    shelf.digests[0] = "changed-while-read"
    download = make(shelf, tmp_path / "target", book)
    channel = fetch(download, shelf.serve)
    assert channel.asked == [[(1, 1)]]
    assert download.findings[0].got == "changed-while-read"
    assert not (tmp_path / "target" / "a").exists()


def test_a_file_whose_digest_of_record_is_another_is_not_released(tmp_path: Path) -> None:
    shelf, book = Shelf(tmp_path / "source", {"large": data(3 << 20), "small": data(10)}), Book()
    shelf.digests = [(bytes(32), item[1]) for item in shelf.digests if not isinstance(item, str)]
    download = make(shelf, tmp_path / "target", book)
    fetch(download, shelf.serve)
    assert [item.kind for item in download.findings.values()] == [FindingKind.DIFFER] * 2
    assert not (tmp_path / "target" / "large").exists()
    assert not book.released


def unasked(first: bytes) -> dict[str, list[Any]]:
    return {
        "another chunk": [Pieces(pieces=[Piece(99, 0, b"x")])],
        "a chunk twice": [Pieces(pieces=[Piece(0, 0, first)]), Pieces(pieces=[Piece(0, 0, first)])],
        "from the middle": [Pieces(pieces=[Piece(0, 1, b"x")])],
        "a hole": [Pieces(pieces=[Piece(0, 0, first[:5]), Piece(0, 6, first[6:])])],
        "too long": [Pieces(pieces=[Piece(0, 0, first + b"x")])],
        "too long later": [Pieces(pieces=[Piece(0, 0, first[:5]), Piece(0, 5, first)])],
        "nothing": [Pieces(pieces=[Piece(0, 0, b"")])],
        "a file that does not exist": [Fetched(gone=[Gone(77, "removed")])],
        "another answer": [Fetch(transfer=TRANSFER, chunks=[(0, 0)])],
        "an end without a word": [Fetched(gone=[])],
    }


@pytest.mark.parametrize("case", sorted(unasked(b"")))
def test_what_was_not_asked_for_ends_the_fetch(tmp_path: Path, case: str) -> None:
    shelf, book = Shelf(tmp_path / "source", {"a": b"0123456789", "b": b"other"}), Book()
    messages = unasked(shelf.contents["a"])[case]

    async def cheats(stream: FakeStream, request: Fetch) -> None:
        for message in messages:
            await stream.send(encode(message))
        await asyncio.sleep(1)
        await stream.send(encode(Fetched(gone=[])))

    download = make(shelf, tmp_path / "target", book)
    with pytest.raises(PeerError):
        fetch(download, cheats)
    assert not (tmp_path / "target" / "b").exists()


def test_a_sender_that_stalls_or_drips_is_given_up(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "source", {"a": data(1000)})

    async def silent(stream: FakeStream, request: Fetch) -> None:
        await asyncio.sleep(10**6)

    async def drips(stream: FakeStream, request: Fetch) -> None:
        for start in range(1000):
            await stream.send(encode(Pieces(pieces=[Piece(0, start, shelf.contents["a"][start : start + 1])])))
            await asyncio.sleep(1)

    for number, (serve, code) in enumerate(((silent, "peer-stalled"), (drips, "peer-too-slow"))):
        with pytest.raises(PeerError) as given_up:
            fetch(make(shelf, tmp_path / f"target {number}", Book()), serve)
        assert given_up.value.code == code


def test_a_refusal_of_the_sender_ends_it_and_keeps_what_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FETCH_PARALLEL", 1)
    shelf, book = Shelf(tmp_path / "source", {f"n{n}": data(1000, n) for n in range(5)}), Book()

    async def refuses(stream: FakeStream, request: Fetch) -> None:
        await stream.send(encode(Pieces(pieces=[Piece(0, 0, shelf.contents["n0"])])))
        await stream.send(encode(Refused(statement=b"{}")))

    with pytest.raises(RefusedError) as told:
        fetch(make(shelf, tmp_path / "target", book), refuses)
    assert told.value.code == "told-so"
    assert count(book.arrived) == 1


def test_a_name_that_is_taken_is_an_error_finding(tmp_path: Path) -> None:
    shelf, book = Shelf(tmp_path / "source", {"a": b"1", "b": b"2"}), Book()
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "a").write_bytes(b"something of mine")
    download = make(shelf, tmp_path / "target", book)
    fetch(download, shelf.serve)
    assert [(item.path, item.kind) for item in download.findings.values()] == [("a", FindingKind.ERROR)]
    assert (tmp_path / "target" / "a").read_bytes() == b"something of mine"
    assert (tmp_path / "target" / "b").read_bytes() == b"2"


def test_a_request_stays_within_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FETCH_BYTES", 2 << 20)
    shelf, book = Shelf(tmp_path / "source", {f"n{n:02d}": data(700_000 * (n % 4), n) for n in range(20)}), Book()
    channel = fetch(make(shelf, tmp_path / "target", book), shelf.serve)
    assert len(channel.asked) > 5
    for request in channel.asked:
        assert checked_intervals(request, shelf.line, limit=3 << 20) <= 3 << 20
    assert same(tmp_path / "target", shelf)


@pytest.mark.parametrize(("files", "size", "after_s"), [(1, 20 << 20, 0.5), (20, 1000, 2.0)])
def test_only_small_files_wait_for_company(tmp_path: Path, files: int, size: int, after_s: float) -> None:
    """Nineteen chunks, of one large file or of as many small ones: what a kill can make come again."""
    shelf, book = Shelf(tmp_path / "source", {f"n{number}": data(size, number) for number in range(files)}), Book()
    download = make(shelf, tmp_path / "target", book)
    assert shelf.line.chunks == 20

    async def main() -> None:
        download._full.clear()
        for chunk in range(19):
            place = shelf.line.chunk_at(chunk)
            content = shelf.contents[shelf.files[place.file].path][place.file_offset :][: place.length]
            download._quarantine.write(chunk, 0, content)
            download.done([Ended(chunk, place.length, "", b"")])
        committing = asyncio.ensure_future(download._commit_often(over := asyncio.Event()))
        await asyncio.sleep(after_s - 0.1)
        assert not book.arrived
        await asyncio.sleep(0.2)
        assert count(book.arrived) == 19
        over.set()
        download._full.set()
        await committing

    run_virtual(main())


def test_a_slow_disk_bounds_what_a_kill_can_lose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two windows of the journal, and as many requests as there may be; and the disk need not wait for the network."""
    window, request = 4 << 20, 1 << 20
    monkeypatch.setattr(receive, "JOURNAL_BYTES", window)
    monkeypatch.setattr(streams, "FETCH_BYTES", request)
    shelf, book = Shelf(tmp_path / "source", {"large": data(64 << 20, 1)}), Book()
    flushes, under_way = [], []

    async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
        if function == download._quarantine.flush:
            began = asyncio.get_running_loop().time()
            await asyncio.sleep(2.0)
            flushes.append((began, asyncio.get_running_loop().time()))
        return function(*args)

    async def serve(stream: FakeStream, fetch: Fetch) -> None:
        under_way.append(sum(count(asked) for asked in channel.asked) - count(book.arrived))
        await shelf.serve(stream, fetch)

    monkeypatch.setattr(receive.asyncio, "to_thread", in_thread)
    download = make(shelf, tmp_path / "target", book)
    channel = FakeChannel(serve)
    run_virtual(download.run(way_of(download, channel)))
    chunk = shelf.line.chunk_at(0).length
    parallel = streams.FETCH_PARALLEL
    assert max(under_way) * chunk <= 2 * window + parallel * request
    assert same(tmp_path / "target", shelf)
    idle = [later[0] - earlier[1] for earlier, later in pairwise(flushes)]
    assert len(flushes) > 3
    assert sum(idle) < 0.1 * sum(end - began for began, end in flushes)


@pytest.mark.parametrize("chunks", [[(0, 9)], [(3, 2)], [(1, 1), (0, 0)], [(0, 1), (1, 2)], [(5, 5)]])
def test_a_sender_refuses_ranges_that_do_not_exist(tmp_path: Path, chunks: list[Interval]) -> None:
    shelf = Shelf(tmp_path / "source", {f"n{n}": b"x" for n in range(5)})
    with pytest.raises(PeerError) as outside:
        checked_intervals(chunks, shelf.line, limit=1 << 20)
    assert outside.value.code == "range-outside"


def test_a_sender_refuses_too_much_at_once(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "source", {f"n{n}": data(1 << 20, n) for n in range(5)})
    assert checked_intervals([(0, 1)], shelf.line, limit=2 << 20) == 2 << 20
    with pytest.raises(PeerError) as large:
        checked_intervals([(0, 4)], shelf.line, limit=2 << 20)
    assert large.value.code == "range-too-large"


# --- ahead of the manifest --------------------------------------------------------------------------------------------
def unsettled(shelf: Shelf, target: Path, book: Book, **changes: Any) -> Download:
    return make(shelf, target, book, digests=ChunkDigests(shelf.line.chunks), manifest=None, **changes)


def fetch_while(download: Download, serve: Serve, told: Callable[[], Coroutine[Any, Any, None]]) -> FakeChannel:
    """Run the download while the sender tells more."""
    channel = FakeChannel(serve)

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(download.run(way_of(download, channel)))
            group.create_task(told())

    run_virtual(both())
    return channel


def test_chunks_come_by_announced_digests_and_files_wait_for_the_manifest(tmp_path: Path) -> None:
    shelf, book = Shelf(tmp_path / "source", {f"n{n}": data(1000, n) for n in range(10)} | {"empty": b""}), Book()
    download = unsettled(shelf, tmp_path / "target", book)

    async def told() -> None:
        for first in range(0, 10, 2):
            download.announce(first, shelf.chunks[32 * first : 32 * first + 64])
            await asyncio.sleep(5)
            assert count(book.arrived) == first + 2
        assert not book.released
        assert not download.complete
        download.settle(shelf.digests, shelf.chunks)

    channel = fetch_while(download, shelf.serve, told)
    assert download.complete
    assert not download.findings
    assert download.mended == 0
    assert same(tmp_path / "target", shelf)
    assert sum(count(request) for request in channel.asked) == 10


def test_a_file_that_is_left_out_of_the_manifest_after_it_came_is_not_released(tmp_path: Path) -> None:
    shelf, book = Shelf(tmp_path / "source", {"a": data(100), "b": data(200)}), Book()
    download = unsettled(shelf, tmp_path / "target", book)

    async def told() -> None:
        download.announce(0, shelf.chunks)
        await asyncio.sleep(5)
        shelf.digests[0] = "changed-while-read"
        download.settle(shelf.digests, bytes(32) + shelf.chunks[32:])

    fetch_while(download, shelf.serve, told)
    assert {item.path: item.got for item in download.findings.values()} == {"a": "changed-while-read"}
    assert count(book.arrived) == 2
    assert not (tmp_path / "target" / "a").exists()


@pytest.mark.parametrize("again", [True, False], ids=["another connection", "the same"])
def test_chunks_that_the_manifest_names_otherwise_come_again(tmp_path: Path, again: bool) -> None:
    """Also when what was announced is forgotten: only the journal says that they arrived."""
    shelf, book = Shelf(tmp_path / "source", {"large": data(3 << 20), "small": data(500)}), Book()
    lies = Shelf(tmp_path / "lies", {"large": data(1 << 20) + data(2 << 20, 7), "small": data(500, 8)})
    download = unsettled(shelf, tmp_path / "target", book)
    server = lies.serve

    async def serve(stream: FakeStream, request: Fetch) -> None:
        await server(stream, request)

    async def told() -> None:
        nonlocal server
        download.announce(0, lies.chunks)
        await asyncio.sleep(5)
        assert count(book.arrived) == shelf.line.chunks
        if again:
            raise UnavailableError("connection-lost", "The connection is lost.")
        server = shelf.serve
        download.settle(shelf.digests, shelf.chunks)

    if again:
        with pytest.raises(ExceptionGroup):
            fetch_while(download, serve, told)
        download = make(shelf, tmp_path / "target", book)
        channel = fetch(download, shelf.serve)
        asked = channel.asked
    else:
        asked = fetch_while(download, serve, told).asked[1:]
    assert not download.findings
    assert download.mended == 2
    assert {chunk for request in asked for first, last in request for chunk in range(first, last + 1)} == {1, 2, 3}
    assert book.dropped == [(1, 2), (3, 3)]
    assert same(tmp_path / "target", shelf)
    assert download.done_bytes == shelf.line.bytes
    assert count(book.released) == 2


def test_a_manifest_that_contradicts_itself_is_a_finding_and_ends(tmp_path: Path) -> None:
    """Its chunk digests are those of what came, its SHA-256 is not: nothing is left to be fetched."""
    shelf, book = Shelf(tmp_path / "source", {"large": data(3 << 20)}), Book()
    shelf.digests = [(bytes(32), item[1]) for item in shelf.digests if not isinstance(item, str)]
    download = unsettled(shelf, tmp_path / "target", book)

    async def told() -> None:
        download.announce(0, shelf.chunks)
        await asyncio.sleep(5)
        download.settle(shelf.digests, shelf.chunks)

    fetch_while(download, shelf.serve, told)
    assert [item.kind for item in download.findings.values()] == [FindingKind.DIFFER]
    assert not book.dropped


# --- earlier versions -------------------------------------------------------------------------------------------------
def held(shelf: Shelf) -> Held:
    arrived = np.ones(shelf.line.chunks, np.bool_)
    return Held(shelf.files, shelf.line, shelf.chunks, arrived, EarlierFiles(shelf.folder, "old"))


def test_what_is_here_already_is_copied_and_the_rest_is_fetched(tmp_path: Path) -> None:
    old = Shelf(tmp_path / "old", {"a": data(5 << 20), "b": data(900, 2), "c": data(800, 3)})
    new = Shelf(tmp_path / "source", {"a": data(5 << 20)[: 4 << 20] + b"!", "b2": data(900, 2), "c": data(800, 3), "d": b"new"})
    (old.folder / "c").write_bytes(b"edited")
    book = Book()
    download = make(new, tmp_path / "target", book, reuse=Reuse([held(old)]))
    channel = fetch(download, new.serve)
    assert not download.findings
    assert same(tmp_path / "target", new)
    assert download.reused_bytes == (4 << 20) + 900
    assert download.received_bytes == 1 + 800 + 3
    assert sum(count(request) for request in channel.asked) == 3
    assert download.done_bytes == new.line.bytes


def test_copying_is_paused_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "FETCH_BYTES", 1 << 20)
    shelf, book = Shelf(tmp_path / "old", {f"n{n}": data(1 << 20, n) for n in range(8)}), Book()
    copy, copies = Reuse.copy, 0

    def slow(self: Reuse, asked: Sequence[Interval], **rest: Any) -> Any:
        nonlocal copies
        copies += 1
        if copies == 4:
            pausing.cancel()
        return copy(self, asked, **rest)

    monkeypatch.setattr(Reuse, "copy", slow)
    download = make(shelf, tmp_path / "target", book, reuse=Reuse([held(shelf)]))

    async def paused() -> None:
        nonlocal pausing
        pausing = asyncio.ensure_future(download.run(way_of(download, FakeChannel(shelf.serve))))
        await asyncio.gather(pausing, return_exceptions=True)
        assert pausing.cancelled()

    pausing: asyncio.Future[None]
    run_virtual(paused())
    assert count(book.arrived) == 3
    copies = 10
    again = make(shelf, tmp_path / "target", book, reuse=Reuse([held(shelf)]))
    channel = fetch(again, shelf.serve)
    assert (copies, channel.asked) == (15, [])
    assert same(tmp_path / "target", shelf)
