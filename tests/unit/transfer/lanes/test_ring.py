"""The ring between the sockets and the loop: nothing is lost, changed or put in another order, round after round."""

from __future__ import annotations

import random
import socket
from typing import Any

import pytest

from labxchange.net.lane_socket import ROW_BYTES, LaneSocket, open_lane
from labxchange.transfer.lanes import ring as module
from labxchange.transfer.lanes.ring import Ring, Row
from labxchange.wire.data.datagram import BATCH_BYTES, HEADER_BYTES

SEGMENTS = 2
Receipt = tuple[bytes, int, Any]


class Scripted(LaneSocket):
    """A socket that receives what it is told."""

    def __init__(self) -> None:
        self.waiting: list[Receipt] = []
        self.received_datagrams = 0
        self.arrived_at = 0.0

    def receive_into(self, row: memoryview) -> Receipt | None:  # type: ignore[override]
        if not self.waiting:
            return None
        data, size, source = self.waiting.pop(0)
        assert len(row) == ROW_BYTES
        row[: len(data)] = data
        return len(data), size, source  # type: ignore[return-value]


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Ring:
    monkeypatch.setattr(module, "RING_BYTES", SEGMENTS * BATCH_BYTES)
    return Ring()


def cut(row: Row) -> list[Receipt]:
    """The datagrams of a row."""
    starts = range(0, len(row.data), row.size) if row.data else [0]
    return [(bytes(row.data[start : start + row.size]), row.size, row.source) for start in starts]


@pytest.mark.parametrize("seed", range(8))
def test_what_comes_is_taken_in_order_and_whole(ring: Ring, seed: int) -> None:
    chance = random.Random(seed)
    sockets = [Scripted(), Scripted()]
    want: list[tuple[bytes, Any, LaneSocket]] = []
    got: list[tuple[bytes, Any, LaneSocket]] = []

    def take(count: int) -> None:
        for _ in range(count):
            row = ring.take()
            if row is None:
                return
            got.extend((data, row.source, row.socket) for data, _, _ in cut(row))
            assert len(row.data) <= BATCH_BYTES
            if row.cuts is not None and len(row.data) >= row.size > HEADER_BYTES:
                assert [bytes(piece[0]) for piece in row.cuts.of(row.size, 1)] == [
                    bytes(row.data[:HEADER_BYTES]),
                    bytes(row.data[HEADER_BYTES : row.size]),
                ]
            ring.done(row)

    for _ in range(600):
        sock = chance.choice(sockets)
        for _ in range(chance.randrange(6)):
            size = chance.choice([1, 44, 1_200, 1_472, 8_972])
            count = chance.choice([1, 1, 1, chance.randint(1, min(65_000 // size, 300))])
            last = chance.choice([size, chance.randint(1, size)])
            source = ("10.0.0.1", chance.randrange(2))
            data = chance.randbytes(size * (count - 1) + last)
            sock.waiting.append((data, size if count > 1 else last, source))
            want += [(data[start : start + size], source, sock) for start in range(0, len(data), size)]
        ring._receive(sock)
        while sock.waiting:
            take(2)
            ring._receive(sock)
        take(chance.randrange(4))
    take(1_000_000)
    assert got == want
    assert ring._unmade == 0
    assert sum(len(data) for data, _, _ in want) > 4 * SEGMENTS * BATCH_BYTES, "each segment was used several times"


def test_receipts_of_one_source_and_size_are_one_batch(ring: Ring) -> None:
    sock = Scripted()
    piece = bytes(1_200)
    sock.waiting = [(piece, 1_200, "a"), (piece * 2, 1_200, "a"), (piece[:50], 50, "a"), (piece, 1_200, "a"), (piece, 1_200, "b")]
    ring._receive(sock)
    sizes = []
    while (row := ring.take()) is not None:
        sizes.append((len(row.data), row.size, row.source))
        ring.done(row)
    assert sizes == [(3_650, 1_200, "a"), (1_200, 1_200, "a"), (1_200, 1_200, "b")]


def test_a_full_ring_leaves_to_the_system_what_comes(ring: Ring) -> None:
    """It drops meanwhile, and counts; nothing that is in the ring is written over."""
    sock, marks, waits = Scripted(), list[int](), 0
    sock.waiting = [(bytes([number + 1]) * 60_000, 60_000, number) for number in range(40)]
    ring._receive(sock)
    while (row := ring.take()) is not None:
        waits += bool(sock.waiting) and ring.is_full
        marks.append(row.data[0])
        assert set(bytes(row.data)) == {row.data[0]}
        ring.done(row)
        ring._receive(sock)
    assert waits
    assert marks == list(range(1, 41))


def test_sockets_come_and_go() -> None:
    """What they hold is taken over, of several at once; one that is taken out is closed."""
    ring = Ring()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        lanes = [open_lane(there.getsockname()) for _ in range(2)]
        for lane in lanes:
            ring.add(lane)
        assert ring.fill() == 0
        for number, lane in enumerate(lanes):
            there.sendto(bytes([number]) * 100, lane.address)
        assert ring.fill() == 2
        ring.remove(lanes[0])
        assert lanes[0].fileno() == -1
        there.sendto(b"\2" * 100, lanes[1].address)
        assert ring.fill() == 1
        ring.remove(lanes[1])
        assert ring.fill() == 0
    found = list[tuple[LaneSocket, bytes]]()
    while (row := ring.take()) is not None:
        found += [(row.socket, data) for data, _, _ in cut(row)]
        ring.done(row)
    assert {(sock, data[0], len(data)) for sock, data in found} == {(lanes[0], 0, 100), (lanes[1], 1, 100), (lanes[1], 2, 100)}


def test_an_empty_datagram_is_a_row_without_bytes(ring: Ring) -> None:
    sock = Scripted()
    sock.waiting = [(b"", 1, "a"), (b"x" * 44, 44, "a")]
    ring._receive(sock)
    rows = []
    while (row := ring.take()) is not None:
        rows.append(bytes(row.data))
        ring.done(row)
    assert b"".join(rows) == b"x" * 44
