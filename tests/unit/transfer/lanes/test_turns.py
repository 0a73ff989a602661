"""The order of things in a worker's loop: what the node ordered before a datagram came is obeyed before that is looked at, and
what is complete is told when it is due."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from labxchange.dataset.listing import Line
from labxchange.net.quic import STREAMS_MAX
from labxchange.settings import LANE_CREDIT_BYTES, LANE_FETCH_BYTES
from labxchange.transfer.lanes import messages
from labxchange.transfer.lanes.ring import Row
from labxchange.transfer.lanes.slots import Slots
from labxchange.transfer.lanes.worker import Worker, _Job
from labxchange.wire.data.assembly import Unit

LANE = b"lane-1"


class Late:
    """A ring: each time it is filled the node has just given another order, and asked the other side for what comes of it."""

    def __init__(self, node: socket.socket, rows: int) -> None:
        self.has_rows = True
        self._node = node
        self._left = rows
        self._rows: list[Row] = []

    def fill(self) -> int:
        if not self._left:
            return 0
        self._left -= 1
        self._node.send(messages.encode(messages.Cap(lane=LANE, cap_bytes_s=0.0)))
        self._rows.append(Row(memoryview(bytes(1_200)), 1_200, ("10.0.0.1", 1), None, 0.0, None, None))  # type: ignore[arg-type]
        return 1

    def take(self) -> Row | None:
        return self._rows.pop(0) if self._rows else None

    def done(self, row: Row) -> None:
        pass


def test_an_order_that_was_given_before_a_datagram_came_is_obeyed_before_it(monkeypatch: Any) -> None:
    """Else what was asked for is taken for unasked: dropped, and acknowledged."""
    node, control = socket.socketpair()
    with node, control:
        worker = Worker(control, None)
        happened: list[str] = []
        monkeypatch.setattr(worker, "_ring", Late(node, 3))
        monkeypatch.setattr(worker, "_obey", lambda order: happened.append("order"))
        monkeypatch.setattr(worker, "_lanes_of", lambda row: happened.append("datagram") or [])
        worker._take_datagrams()
        assert happened == 3 * ["order", "datagram"]


class Stored:
    """A sink of which one unit has been written; so many more are not."""

    def __init__(self, backlog: int) -> None:
        self.backlog = backlog
        self.is_over = False

    def take(self) -> list[tuple[Unit, list[messages.Came]]]:
        return [(Unit(0, 1, (0, 0)), [messages.Came(0, bytes(32), b"")])]


@pytest.mark.parametrize(("expected", "backlog", "told"), [(0, 0, 1), (1, 0, 0), (0, 1, 0)], ids=["all", "to come", "to write"])
def test_the_last_chunks_of_what_was_asked_for_are_told_at_once(expected: int, backlog: int, told: int) -> None:
    """Else each transfer lasts longer by half of the time between two reports."""
    node, control = socket.socketpair()
    stored, ready = socket.socketpair()
    with node, control, stored, ready:
        worker = Worker(control, None)
        worker._report_at = float("inf")
        job = _Job(1, Line([]), Slots(None))
        job.sink = Stored(backlog)  # type: ignore[assignment]
        job.assembly.expect((start, 1, (start, start)) for start in range(expected))
        worker._jobs[job.id] = job
        worker._sinks.register(ready, 1, job)
        stored.send(b"1")
        worker._take_stored()
        worker._tell()
        node.setblocking(False)
        try:
            said = [messages.decode_news(message) for message in messages.Inbox().add(node.recv(1 << 16))]
        except BlockingIOError:
            said = []
        assert [type(item) for item in said] == told * [messages.Chunks]


def test_a_connection_has_streams_for_the_requests_of_ten_transfers() -> None:
    of_several_lanes = LANE_CREDIT_BYTES // (LANE_FETCH_BYTES // 2)
    assert 10 * (of_several_lanes + 2) < STREAMS_MAX, "or some move and the others wait"
