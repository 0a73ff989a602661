"""Datagrams a system call and CPU microseconds a datagram of a lane's sockets, with and without the kernel's help.

    python -m pytest tests/bench/test_datagrams.py -s

On loopback, and on two hosts of this machine with a cable between them, which takes batches apart and joins them again.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from labxchange.net.lane_socket import LaneSocket, join_received, open_lane
from labxchange.net.network import Slot
from labxchange.net.port_group import close_group, open_group
from tests.support.flow import Flow, carry
from tests.support.veth import B, Veth, why_not

BATCHES = 1000
JOINED_MIN = 8.0
HEAD = "path                      payload  sending  receiving  sent a call  received a call  us sending  us receiving  lost"


def measure(
    path: str, payload_bytes: int, group: tuple[Slot, ...], dial: Callable[[bool], LaneSocket], *, joined_min: float = JOINED_MIN
) -> None:
    for gso, gro in ((True, True), (True, False), (False, True), (False, False)):
        for slot in group:
            join_received(slot.socket, join=gro)
        dialler, listener = dial(gso), LaneSocket(group[1].socket, gro=gro)
        flow: Flow = carry(dialler, listener, slot=1, segment_bytes=payload_bytes, batches=BATCHES)
        print(
            f"{path:25} {payload_bytes:7}  {'joined' if gso else 'single':>7}  {'joined' if gro else 'single':>9}"
            f"  {flow.sent_a_call:11.1f}  {flow.received_a_call:15.1f}"
            f"  {flow.send_us:10.2f}  {flow.receive_us:12.2f}  {flow.lost:4}"
        )
        assert not (gso and gro) or flow.received_a_call >= joined_min
        dialler.close()


def test_loopback() -> None:
    group = open_group("127.0.0.1", 0, workers=4)
    print(f"\n{HEAD}")
    measure("loopback", 1472, group, lambda gso: open_lane(("127.0.0.1", group[1].port), gso=gso))
    close_group(group)


# Seven datagrams of 8,972 bytes are all that fits into the 64 KiB of a call.
@pytest.mark.parametrize(("mtu_bytes", "joined_min"), [(1500, JOINED_MIN), (9000, 6.5)])
def test_cable(mtu_bytes: int, joined_min: float) -> None:
    if reason := why_not():
        pytest.skip(reason)
    print(f"\n{HEAD}")
    with Veth(mtu_bytes=mtu_bytes) as hosts:
        hosts.joining("b")
        for name, address, headers_bytes in (("IPv4", B[0], 28), ("IPv6", B[1], 48)):
            group = hosts.on("b", lambda: open_group("", 0, workers=4))

            def dial(gso: bool, address: str = address, port: int = group[1].port) -> LaneSocket:
                return hosts.on("a", lambda: open_lane((address, port), gso=gso))

            measure(f"cable, MTU {mtu_bytes}, {name}", mtu_bytes - headers_bytes, group, dial, joined_min=joined_min)
            close_group(group)
