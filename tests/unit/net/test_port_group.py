"""The one listening port: each first byte finds its socket, and nobody else joins."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from labxchange.errors import UnavailableError
from labxchange.net import port_group
from labxchange.net.lane_socket import LaneSocket, open_lane
from labxchange.net.network import Datagrams, Slot
from labxchange.net.port_group import close_group, open_group
from labxchange.net.sockets import SocketNetwork
from tests.unit.net.nodes import Node, ipv6

WORKERS = 3
steered = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux picks sockets by a program")

HOSTS = [
    ("", "127.0.0.1"),
    ("127.0.0.1", "127.0.0.1"),
    pytest.param("", "::1", marks=ipv6),
    pytest.param("::1", "::1", marks=ipv6),
]
Open = Callable[..., tuple[Slot, ...]]


@pytest.fixture
def opened() -> Iterator[Open]:
    """``open_group``, whose sockets are closed after the test and do not wait for ever."""
    groups: list[tuple[Slot, ...]] = []

    def open_one(host: str, port: int, *, workers: int = WORKERS, steered: bool = True) -> tuple[Slot, ...]:
        groups.append(open_group(host, port, workers=workers, steered=steered))
        for slot in groups[-1]:
            slot.socket.settimeout(5.0)
        return groups[-1]

    yield open_one
    for group in groups:
        close_group(group)


def expect_own_bytes(group: tuple[Slot, ...], host: str) -> None:
    for number in range(4):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for first in range(number, 256, 4):
                stranger.sendto(bytes([first, number]), (host, group[0].port))
                want = first if first <= WORKERS else 0
                assert group[want].socket.recv(100) == bytes([first, number])
            stranger.sendto(b"", (host, group[0].port))
            assert group[0].socket.recv(100) == b""


@steered
@pytest.mark.parametrize(("bound", "host"), HOSTS)
def test_each_first_byte_finds_its_socket(opened: Open, bound: str, host: str) -> None:
    group = opened(bound, 0)
    assert {slot.port for slot in group} == {group[0].port}
    expect_own_bytes(group, host)


@steered
def test_a_dead_worker_leaves_the_slots_as_they_were(opened: Open) -> None:
    group = opened("127.0.0.1", 0)
    descriptor = group[1].socket.fileno()
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], pass_fds=[descriptor], stdin=subprocess.PIPE) as worker:
        worker.send_signal(signal.SIGKILL)
    socket.socket(fileno=os.dup(descriptor)).close()
    expect_own_bytes(group, "127.0.0.1")


@steered
def test_every_socket_joins_quic_too(opened: Open) -> None:
    assert [slot.socket.getsockopt(17, 104) for slot in opened("", 0)] == [1] * (WORKERS + 1)


@pytest.mark.parametrize("first", ["steered", "range"])
@pytest.mark.parametrize("host", ["", "127.0.0.1", pytest.param("::1", marks=ipv6)])
def test_a_second_node_of_the_same_user_is_told_that_the_port_is_taken(opened: Open, first: str, host: str) -> None:
    port = opened("", 0, steered=first == "steered")[0].port
    for workers in (0, WORKERS):
        for way in (True, False):
            with pytest.raises(UnavailableError, match="cannot be opened") as caught:
                opened(host, port, workers=workers, steered=way)
            assert caught.value.code == "port-unavailable"


@steered
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_another_user_cannot_join(opened: Open, host: str) -> None:
    port = opened("", 0)[0].port
    os.seteuid(65_534)
    try:
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    finally:
        os.seteuid(0)
    with stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            stranger.bind((host, port))


def test_the_portable_way_has_a_port_for_each_worker(opened: Open) -> None:
    group = opened("127.0.0.1", 0, steered=False)
    assert [slot.port - group[0].port for slot in group] == [0, 1, 2, 3]
    for number, slot in enumerate(group):
        lane = open_lane(("127.0.0.1", slot.port))
        lane.send(memoryview(bytes([number])), 1)
        lane.close()
        assert slot.socket.recv(100) == bytes([number])


def test_a_range_that_is_not_free_is_not_half_taken(opened: Open) -> None:
    free = open_group("127.0.0.1", 0, workers=WORKERS, steered=False)
    close_group(free)
    opened("127.0.0.1", free[2].port, workers=0)
    with pytest.raises(UnavailableError) as caught:
        opened("127.0.0.1", free[0].port, steered=False)
    assert caught.value.code == "port-unavailable"
    assert str(free[2].port) in caught.value.message
    opened("127.0.0.1", free[0].port, workers=1, steered=False)
    with pytest.raises(UnavailableError, match="do not exist"):
        opened("127.0.0.1", 65_534, steered=False)


def test_a_kernel_without_the_program_gives_a_range(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    monkeypatch.setattr(port_group, "_attach", absent)
    group = opened("", 0)
    assert [slot.port - group[0].port for slot in group] == [0, 1, 2, 3]


@steered
def test_a_machine_without_ipv6_listens_on_ipv4(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    class OldSocket(socket.socket):
        def __init__(self, family: int, kind: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, kind)

    monkeypatch.setattr(port_group.socket, "socket", OldSocket)
    group = opened("", 0)
    monkeypatch.undo()
    assert group[0].socket.getsockname()[0] == "0.0.0.0"
    expect_own_bytes(group, "127.0.0.1")


def test_a_group_has_at_most_63_workers(opened: Open) -> None:
    assert len(opened("127.0.0.1", 0, workers=63)) == 64
    for workers in (-1, 64):
        with pytest.raises(ValueError, match="do not fit"):
            opened("127.0.0.1", 0, workers=workers)


@steered
def test_quic_and_lanes_live_on_one_port_of_an_endpoint() -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            a, b = Node(1, SocketNetwork()), Node(2, SocketNetwork())
            port = await b.endpoint.listen("", 0, workers=2)
            slots = b.endpoint.lane_sockets
            assert {number: slot.port for number, slot in slots.items()} == {1: port, 2: port}
            channel = await a.endpoint.dial(f"127.0.0.1:{port}", b.key)
            async with await channel.open() as stream:
                await stream.send(b"x" * 300_000, end=True)
                assert await stream.receive() == b"300000"
            for number, slot in slots.items():
                worker, lane = LaneSocket(slot.socket.dup()), open_lane(("127.0.0.1", port))
                row = memoryview(bytearray(65_536))
                assert lane.send(memoryview(bytes([number]) * 3000), 1000) == 3
                assert worker.wait(5.0)
                received = worker.receive_into(row)
                assert received is not None
                assert (received[0] % 1000, row[0]) == (0, number)
                worker.close()
                lane.close()
            await a.endpoint.close()
            await b.endpoint.close()
            assert b.endpoint.lane_sockets == {}
            close_group(open_group("", port, workers=0))

    asyncio.run(main())


def test_joined_datagrams_reach_the_loop_one_by_one() -> None:
    async def main() -> None:
        heard: list[bytes] = []
        done = asyncio.Event()

        def on_batch(batch: Datagrams) -> None:
            heard.extend(data for data, _ in batch)
            if len(heard) == 30:
                done.set()

        port = SocketNetwork().open_udp("127.0.0.1", 0, on_batch)
        lane = open_lane(port.address)
        sent = [bytes([number]) * 1200 for number in range(29)] + [b"the shorter last"]
        assert lane.send(memoryview(b"".join(sent)), 1200) == 30
        async with asyncio.timeout(30):
            await done.wait()
        assert heard == sent
        row = memoryview(bytearray(65_536))
        port.send([(data, lane.address[:2]) for data in sent])
        back = b""
        while len(back) < len(b"".join(sent)):
            assert lane.wait(5.0)
            received = lane.receive_into(row)
            assert received is not None
            back += bytes(row[: received[0]])
        assert back == b"".join(sent)
        port.close()
        port.send([(b"after the end", lane.address[:2])])
        lane.close()

    asyncio.run(main())
