"""``Source`` and ``send_chunks``: what leaves is what the manifest says, in bounded messages, as long as it is permitted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labxchange.errors import PeerError, RefusedError
from labxchange.transfer import send
from labxchange.transfer.intervals import Interval, count
from labxchange.transfer.pace import Pace
from labxchange.transfer.send import Source, SourceChanged, checked_intervals, send_chunks
from labxchange.wire.control.messages import PIECE_BYTES, Fetched, Pieces, decode_answer
from tests.unit.transfer.test_receive import Shelf, data

MIB = 1 << 20


def source(shelf: Shelf) -> Source:
    return Source(shelf.scan.sources, shelf.files, shelf.line, shelf.chunks, gone=shelf.gone)


def chunks_of(shelf: Shelf, name: str) -> range:
    file = shelf.index(name)
    return range(int(shelf.line.first_chunk[file]), int(shelf.line.first_chunk[file + 1]))


class Stream:
    """Keeps the messages; ``ended`` once the last was sent."""

    def __init__(self) -> None:
        self.messages: list[Pieces | Fetched] = []
        self.ended = False

    async def send(self, message: bytes, *, end: bool = False) -> None:
        assert not self.ended
        self.ended = end
        answer = decode_answer(message)
        assert isinstance(answer, Pieces | Fetched)
        self.messages.append(answer)


def answered(shelf: Shelf, asked: list[Interval], *, permitted: Callable[[], None] = lambda: None) -> tuple[Stream, int]:
    """What is said to a fetch, and the bytes that were counted as sent."""
    stream, counted = Stream(), [0]

    async def main() -> None:
        opened = source(shelf)
        try:
            await send_chunks(stream, opened, asked, pace=Pace(), permitted=permitted, sent=counted.append)  # type: ignore[arg-type]
        finally:
            opened.close()

    asyncio.run(main())
    return stream, sum(counted)


def bytes_of(stream: Stream, chunk: int) -> bytes:
    out = b""
    for message in stream.messages:
        for piece in message.pieces if isinstance(message, Pieces) else ():
            if piece.chunk == chunk:
                assert piece.offset == len(out)
                out += piece.data
    return out


def test_what_was_asked_for_is_sent_in_bounded_messages_and_nothing_else(tmp_path: Path) -> None:
    shelf = Shelf(
        tmp_path / "data", {"a": data(3 * MIB + 7), "empty": b"", "z": data(10)} | {f"n{n:02}": data(99, n) for n in range(40)}
    )
    last = shelf.line.chunks - 1
    stream, sent = answered(shelf, [(1, 2), (5, last)])
    assert stream.ended
    assert stream.messages[-1] == Fetched(gone=[])
    told = {piece.chunk for message in stream.messages[:-1] for piece in message.pieces}  # type: ignore[union-attr]
    assert told == {1, 2, *range(5, last + 1)}
    for message in stream.messages[:-1]:
        assert isinstance(message, Pieces)
        assert 0 < sum(len(piece.data) for piece in message.pieces) <= PIECE_BYTES
    line = b"".join(shelf.contents[file.path] for file in shelf.files if not file.is_folder)
    for chunk in told:
        place = shelf.line.chunk_at(chunk)
        assert bytes_of(stream, chunk) == line[place.offset : place.offset + place.length]
    assert sent == sum(shelf.line.chunk_at(chunk).length for chunk in told)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (lambda path: path.unlink(), "removed"),
        (lambda path: os.truncate(path, 5), "shrunk"),
        (lambda path: path.write_bytes(bytes(len(path.read_bytes()))), "changed"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/hostname")), "unreadable"),
        (lambda path: (path.unlink(), path.mkdir()), "unreadable"),
    ],
)
def test_a_file_that_is_not_what_was_listed_is_named_and_not_sent(
    tmp_path: Path, what: Callable[[Path], object], reason: str
) -> None:
    shelf = Shelf(tmp_path / "data", {"a": data(100, 1), "bad": data(5000, 2), "c": data(100, 3)})
    what(tmp_path / "data" / "bad")
    stream, sent = answered(shelf, [(0, 2)])
    (bad,) = chunks_of(shelf, "bad")
    assert bytes_of(stream, bad) == b""
    assert sent == 200
    assert [(item.file, item.reason) for item in stream.messages[-1].gone] == [(shelf.index("bad"), reason)]  # type: ignore[union-attr]
    again, _ = answered(shelf, [(bad, bad)])
    assert len(again.messages) == 1
    elsewhere, _ = answered(shelf, [(chunks_of(shelf, "a")[0],) * 2])
    assert elsewhere.messages[-1] == Fetched(gone=[]), "what was not asked for is not named"


def test_a_large_chunk_is_streamed_and_its_change_noticed_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(tmp_path / "data", {"a": data(2 * MIB)})
    opened = source(shelf)
    with monkeypatch.context() as patched:
        patched.setattr(send, "_WHOLE_CHUNK_BYTES", MIB - 1)
        assert b"".join(piece.data for piece in opened.pieces(1)) == shelf.contents["a"][MIB:]
        with open(tmp_path / "data" / "a", "r+b") as file:
            file.seek(2 * MIB - 1)
            file.write(bytes([shelf.contents["a"][-1] ^ 1]))
        pieces = opened.pieces(1)
        assert [next(pieces).offset for _ in range(4)] == [0, *(number * PIECE_BYTES for number in (1, 2, 3))]
        with pytest.raises(SourceChanged, match="changed"):
            next(pieces)
    with pytest.raises(SourceChanged, match="changed"):
        next(opened.pieces(1))
    opened.close()


def test_permission_is_asked_before_each_message(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "data", {"a": data(2 * MIB)})
    asked = [0]

    def permitted() -> None:
        asked[0] += 1
        if asked[0] > 3:
            raise RefusedError("grant-revoked", "The sender has revoked the grant.")

    stream = Stream()
    opened, counted = source(shelf), [0]
    with pytest.raises(RefusedError):
        asyncio.run(send_chunks(stream, opened, [(0, 1)], pace=Pace(), permitted=permitted, sent=counted.append))  # type: ignore[arg-type]
    opened.close()
    assert len(stream.messages) == 3
    assert sum(counted) == 3 * PIECE_BYTES
    assert not stream.ended


@given(st.sets(st.integers(0, 9)), st.integers(0, 12 * 700_000), st.sampled_from([[], [(11, 11)], [(4, 3)], [(9, 10)]]))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_intervals_are_counted_or_refused(shelf_of_ten: Shelf, chosen: set[int], limit: int, wrong: list[Interval]) -> None:
    line = shelf_of_ten.line
    asked = [(number, number) for number in sorted(chosen)]
    if wrong:
        with pytest.raises(PeerError):
            checked_intervals([*asked, *wrong], line, limit=1 << 40)
    size = 700_000 * count(asked)
    if size > limit and len(asked) > 1:
        with pytest.raises(PeerError) as large:
            checked_intervals(asked, line, limit=limit)
        assert large.value.code == "range-too-large"
    else:
        assert checked_intervals(asked, line, limit=limit) == size


@pytest.fixture(scope="module")
def shelf_of_ten(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("ten") / "data", {f"n{n}": data(700_000, n) for n in range(10)})
