"""Joining on a path that takes batches apart: two hosts of this machine and a cable between them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labxchange.net.lane_socket import LaneSocket, join_received, open_lane
from labxchange.net.port_group import close_group, open_group
from tests.support.flow import BATCH_DATAGRAMS, carry
from tests.support.veth import B, Veth, why_not

WORKERS = 4
BATCHES = 20
JOINED_MIN = 8.0


@pytest.fixture(scope="module")
def hosts() -> Iterator[Veth]:
    if reason := why_not():
        pytest.skip(reason)
    with Veth() as veth:
        veth.joining("b")
        yield veth


@pytest.mark.parametrize(("address", "payload_bytes"), [(B[0], 1472), (B[1], 1452)], ids=["ipv4", "ipv6"])
def test_the_listening_port_receives_joined_datagrams_in_every_slot(hosts: Veth, address: str, payload_bytes: int) -> None:
    group = hosts.on("b", lambda: open_group("", 0, workers=WORKERS))
    for slot in range(1, WORKERS + 1):
        for gso in (True, False):
            # Each flow has its own hash, by which the kernel picks a socket while it joins.
            dialler = hosts.on("a", lambda slot=slot, gso=gso: open_lane((address, group[slot].port), gso=gso))  # type: ignore[misc]
            listener = LaneSocket(group[slot].socket)
            flow = carry(dialler, listener, slot=slot, segment_bytes=payload_bytes, batches=BATCHES)
            print(f"slot {slot}, gso {gso}: {flow}")
            assert flow.received_a_call >= JOINED_MIN
            assert flow.sent_a_call == (BATCH_DATAGRAMS if gso else 1)
            assert flow.lost < BATCH_DATAGRAMS
            dialler.close()
    close_group(group)


def test_sockets_that_do_not_join_spoil_it_for_the_others(hosts: Veth) -> None:
    """Why idle sockets and QUIC's join too. When this fails, kernels have become better, and the rule may go."""
    group = hosts.on("b", lambda: open_group("", 0, workers=WORKERS))
    listener = LaneSocket(group[1].socket)
    for number in (0, 2, 3, 4):
        join_received(group[number].socket, join=False)
    singly = 0
    for _ in range(32):
        dialler = hosts.on("a", lambda: open_lane((B[0], group[1].port)))
        listener.received_calls = listener.received_datagrams = 0
        singly += carry(dialler, listener, slot=1, segment_bytes=1472, batches=1).received_a_call < 2
        dialler.close()
    close_group(group)
    print(f"{singly} of 32 flows arrived one by one")
    assert singly > 0


def test_a_size_beyond_the_interface_is_lost_whole_and_never_in_pieces(hosts: Veth) -> None:
    group = hosts.on("b", lambda: open_group("", 0, workers=1))
    dialler = hosts.on("a", lambda: open_lane((B[0], group[1].port)))
    listener = LaneSocket(group[1].socket)
    large = memoryview(bytes([1]) * 8972 * 4)
    assert dialler.send(large, 8972) == 4
    assert (dialler.too_large, dialler.gso) == (4, True)
    assert carry(dialler, listener, slot=1, segment_bytes=1472, batches=2).lost < BATCH_DATAGRAMS
    assert listener.received_datagrams <= 2 * BATCH_DATAGRAMS
    dialler.close()
    close_group(group)
