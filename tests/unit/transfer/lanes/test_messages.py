"""Messages of node and worker: whole, however the stream of bytes is cut."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labxchange.transfer.lanes import messages

ORDERS: list[messages.Order] = [
    messages.SendJob(job=1, sources=b"s" * 300, listing=b"l"),
    messages.ReceiveJob(job=2),
    messages.Contents(job=2, transfer="t", destination=b"/\xff", sizes=bytes(80)),
    messages.OpenLane(
        job=1,
        lane=b"abcdef",
        write=b"w" * 44,
        read=b"r" * 44,
        cipher="aes-256-gcm",
        slot=3,
        remote=("::1", 4),
        host="::1",
        cap_bytes_s=0.5,
    ),
    messages.OpenLane(
        job=1, lane=b"abcdef", write=b"w", read=b"r", cipher="chacha20-poly1305", slot=0, remote=None, host="h", cap_bytes_s=0.0
    ),
    messages.Ask(lane=b"abcdef", request=9, ranges=[(0, 1), (5, 5)]),
    messages.Skip(lane=b"abcdef", chunks=[(0, 3)]),
    messages.Cap(lane=b"abcdef", cap_bytes_s=1e9),
    messages.CloseLane(lane=b"abcdef"),
    messages.CloseJob(job=1),
]
NEWS: list[messages.News] = [
    messages.LaneUp(lane=b"abcdef"),
    messages.LaneOver(lane=b"abcdef", code="lane-silent", sentence="Nothing."),
    messages.LaneWorn(lane=b"abcdef", why="time"),
    messages.LaneMoved(lane=b"abcdef", before="10.0.0.1:4", address="[::1]:5"),
    messages.Sent(lane=b"abcdef", request=9, gone=[(3, "removed")]),
    messages.Chunks(job=1, chunks=[messages.Came(7, b"d" * 32, b""), messages.Came(8, b"d" * 32, b"r" * 32)]),
    messages.Trouble(job=1, kind="UnavailableError", code="disk-full", sentence="Full.", hint="Make room."),
    messages.JobClosed(job=1),
]


@pytest.mark.parametrize("message", ORDERS, ids=lambda message: type(message).__name__)
def test_orders_come_back(message: messages.Order) -> None:
    (data,) = messages.Inbox().add(messages.encode(message))
    assert messages.decode_order(data) == message


@pytest.mark.parametrize("message", NEWS, ids=lambda message: type(message).__name__)
def test_news_come_back(message: messages.News) -> None:
    (data,) = messages.Inbox().add(messages.encode(message))
    assert messages.decode_news(data) == message


@given(cuts=st.lists(st.integers(1, 400), min_size=1, max_size=30), rounds=st.integers(1, 3))
def test_the_inbox_is_cut_anywhere(cuts: list[int], rounds: int) -> None:
    data = b"".join(map(messages.encode, ORDERS * rounds))
    inbox, got, at, turn = messages.Inbox(), list[messages.Order](), 0, 0
    while at < len(data):
        cut = cuts[turn % len(cuts)]
        got += [messages.decode_order(one) for one in inbox.add(data[at : at + cut])]
        at, turn = at + cut, turn + 1
    assert got == ORDERS * rounds


def test_byte_by_byte() -> None:
    inbox, got = messages.Inbox(), list[bytes]()
    for byte in messages.encode(NEWS[0]) + messages.encode(NEWS[5]):
        got += inbox.add(bytes([byte]))
    assert [messages.decode_news(one) for one in got] == [NEWS[0], NEWS[5]]


def test_what_does_not_parse_is_a_defect() -> None:
    for data in (b"", b"\xc0", messages.encode(NEWS[0])[4:]):
        with pytest.raises((msgspec.ValidationError, msgspec.DecodeError)):
            messages.decode_order(data)
