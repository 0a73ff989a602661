"""Batches over loopback: the same bytes with and without the kernel's help, and what is lost is counted."""

from __future__ import annotations

import errno
import random
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from labxchange.errors import UnavailableError
from labxchange.net.lane_socket import ROW_BYTES, LaneSocket, Sockaddr, open_lane, plain_host
from tests.unit.net.nodes import ipv6

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the option is Linux's")
BATCH = 44
DATAGRAM_BYTES = 1452

PAIRS = [
    ("127.0.0.1", "127.0.0.1"),
    pytest.param("::1", "::1", marks=ipv6),
    pytest.param("::", "127.0.0.1", marks=ipv6),
    pytest.param("::", "::1", marks=ipv6),
]
Make = Callable[..., LaneSocket]


@pytest.fixture
def make() -> Iterator[Make]:
    """Lane sockets, closed after the test."""
    made: list[LaneSocket] = []

    def keep(lane: LaneSocket) -> LaneSocket:
        made.append(lane)
        return lane

    yield keep
    for lane in made:
        lane.close()


def listening(host: str, **options: Any) -> LaneSocket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    if host == "::":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((host, 0))
    return LaneSocket(sock, **options)


class Scripted(socket.socket):
    """A socket whose kernel says what a test wants for the next sends; after that it works."""

    script: list[int]

    def _next(self) -> None:
        if self.script and (code := self.script.pop(0)):
            raise OSError(code, "as the test wants it")

    def sendmsg(self, *arguments: Any) -> int:
        self._next()
        return super().sendmsg(*arguments)

    def send(self, *arguments: Any) -> int:
        self._next()
        return super().send(*arguments)


def scripted(to: LaneSocket, *script: int) -> LaneSocket:
    sock = Scripted(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(to.address)
    sock.script = list(script)
    return LaneSocket(sock)


def collect(lane: LaneSocket, total_bytes: int) -> tuple[list[bytes], Sockaddr]:
    """Datagrams until that many bytes are there, and the last one's source."""
    row, datagrams, left = memoryview(bytearray(ROW_BYTES)), [], total_bytes
    source: Sockaddr = ("", 0)
    while left > 0:
        assert lane.wait(5.0), f"{left} bytes are missing"
        while (received := lane.receive_into(row)) is not None:
            total, size, source = received
            datagrams += [bytes(row[start : min(start + size, total)]) for start in range(0, total, size)]
            left -= total
    return datagrams, source


@pytest.mark.parametrize("gso", [True, False], ids=["gso", "single sends"])
@pytest.mark.parametrize("gro", [True, False], ids=["gro", "single receives"])
@pytest.mark.parametrize(("bound", "host"), PAIRS)
def test_the_same_bytes_with_and_without_offload(make: Make, bound: str, host: str, gso: bool, gro: bool) -> None:
    listener = make(listening(bound, gso=gso, gro=gro))
    dialler = make(open_lane((host, listener.address[1]), gso=gso, gro=gro))
    rng = random.Random(3)
    sent = [rng.randbytes(DATAGRAM_BYTES) for _ in range(3 * BATCH)] + [rng.randbytes(700)]
    buffer = memoryview(b"".join(sent))

    assert dialler.send(buffer, DATAGRAM_BYTES) == len(sent)
    heard, source = collect(listener, len(buffer))
    assert heard == sent
    assert plain_host(source[0]) == host
    assert listener.send(buffer, DATAGRAM_BYTES, source) == len(sent)
    assert collect(dialler, len(buffer))[0] == sent
    assert listener.send(buffer, DATAGRAM_BYTES, (host, source[1])) == len(sent), "the same address as people write it"
    assert collect(dialler, len(buffer))[0] == sent

    if sys.platform.startswith("linux"):
        assert (dialler.gso, listener.gro) == (gso, gro)
        assert dialler.sent_datagrams / dialler.sent_calls > 30 if gso else dialler.sent_datagrams == dialler.sent_calls
        assert gro or listener.received_datagrams == listener.received_calls
        assert listener.received_datagrams / listener.received_calls > 30 or not (gso and gro)
    assert (listener.drops, listener.failed, listener.refused, listener.too_large) == (0, 0, 0, 0)


@linux
def test_what_this_machine_drops_is_counted(make: Make) -> None:
    listener = make(listening("127.0.0.1", gro=False, buffer_bytes=65_536))
    dialler = make(open_lane(("127.0.0.1", listener.address[1]), gso=False))
    buffer = memoryview(bytes(BATCH * DATAGRAM_BYTES))
    for _ in range(10):
        assert dialler.send(buffer, DATAGRAM_BYTES) == BATCH
    row = memoryview(bytearray(ROW_BYTES))
    while listener.receive_into(row) is not None:
        pass
    # What was dropped is told with the next one that is not.
    dialler.send(memoryview(b"next"), 4)
    assert listener.wait(5.0)
    assert listener.receive_into(row) is not None
    assert listener.received_datagrams < 10 * BATCH
    assert listener.drops == dialler.sent_datagrams - listener.received_datagrams


@linux
@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL, errno.EMSGSIZE])
def test_a_kernel_that_refuses_joined_sends_gets_single_ones_for_good(make: Make, code: int) -> None:
    listener = make(listening("127.0.0.1"))
    dialler = make(scripted(listener, code))
    sent = [bytes([number]) * 1000 for number in range(20)]
    for _ in range(2):
        assert dialler.send(memoryview(b"".join(sent)), 1000) == 20
        assert not dialler.gso
        assert collect(listener, 20_000)[0] == sent
    assert dialler.sent_calls == 41
    assert (dialler.failed, dialler.too_large) == (0, 0)


@linux
@pytest.mark.parametrize("first", [errno.EINVAL, errno.EMSGSIZE])
def test_a_size_that_does_not_fit_is_loss_and_no_reason_to_send_singly(make: Make, first: int) -> None:
    listener = make(listening("127.0.0.1"))
    dialler = make(scripted(listener, first, errno.EMSGSIZE))
    assert dialler.send(memoryview(bytes(20_000)), 1000) == 20
    assert (dialler.too_large, dialler.gso) == (20, True)
    assert dialler.send(memoryview(bytes(20_000)), 1000) == 20
    assert len(collect(listener, 20_000)[0]) == 20


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOBUFS])
def test_a_full_machine_takes_fewer(make: Make, code: int) -> None:
    listener = make(listening("127.0.0.1", gro=False))
    dialler = make(scripted(listener, 0, code))
    dialler.gso = False
    assert dialler.send(memoryview(bytes(3000)), 1000) == 1
    assert dialler.send(memoryview(bytes(3000))[1000:], 1000) == 2
    assert len(collect(listener, 3000)[0]) == 3
    assert dialler.failed == 0


@pytest.mark.parametrize("code", [errno.ENETUNREACH, errno.EPERM, errno.EHOSTUNREACH])
def test_a_route_that_is_gone_is_loss(make: Make, code: int) -> None:
    listener = make(listening("127.0.0.1"))
    dialler = make(scripted(listener, code))
    assert dialler.send(memoryview(bytes(3000)), 1000) == 3
    assert dialler.failed in (1, 3)
    assert dialler.send(memoryview(bytes(3000)), 1000) == 3


def test_nobody_listening_is_noted_and_not_raised(make: Make) -> None:
    gone = listening("127.0.0.1")
    dialler = make(open_lane(("127.0.0.1", gone.address[1])))
    gone.close()
    row = memoryview(bytearray(ROW_BYTES))
    for _ in range(3):
        assert dialler.send(memoryview(bytes(3000)), 1000) == 3
    assert dialler.receive_into(row) is None
    assert dialler.receive_into(row) is None
    assert dialler.refused > 0


@linux
@ipv6
def test_the_kernel_never_fragments(make: Make) -> None:
    listener = make(listening("::"))
    assert listener._socket.getsockopt(socket.IPPROTO_IP, 10) == 3
    assert listener._socket.getsockopt(socket.IPPROTO_IPV6, 23) == 3
    dialler = make(open_lane(("::1", listener.address[1])))
    # With its headers it is over the 65,536 bytes of the loopback interface.
    assert dialler.send(memoryview(bytes(65_507)), 65_507) == 1
    assert (dialler.too_large, dialler.gso) == (1, True)


def test_an_empty_datagram_has_a_size_to_cut_by(make: Make) -> None:
    listener = make(listening("127.0.0.1"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"", listener.address)
        assert listener.wait(5.0)
        assert listener.receive_into(memoryview(bytearray(10))) == (0, 1, ("127.0.0.1", stranger.getsockname()[1]))


def test_waiting_ends_and_closing_is_an_error_of_ours(make: Make) -> None:
    listener = make(listening("127.0.0.1"))
    assert not listener.wait(0.0)
    assert listener.receive_into(memoryview(bytearray(10))) is None
    listener.close()
    assert listener.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        listener.receive_into(memoryview(bytearray(10)))


def test_buffers_are_what_was_granted(make: Make) -> None:
    small, large = make(listening("127.0.0.1", buffer_bytes=65_536)), make(listening("127.0.0.1"))
    assert 65_536 <= small.receive_buffer_bytes < large.receive_buffer_bytes
    assert 65_536 <= small.send_buffer_bytes < large.send_buffer_bytes


def test_a_lane_is_dialled_to_what_the_listener_shows(make: Make) -> None:
    listener = make(listening("127.0.0.1"))
    dialler = make(open_lane(("::ffff:127.0.0.1", listener.address[1])))
    dialler.send(memoryview(b"hello"), 5)
    assert collect(listener, 5) == ([b"hello"], dialler.address)
    with pytest.raises(UnavailableError) as caught:
        open_lane(("255.255.255.255", 9))
    assert caught.value.code == "peer-unreachable"
