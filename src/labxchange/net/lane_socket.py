"""A UDP socket that carries batches: up to 64 KiB of equal datagrams in one system call, either way.

Python costs per call, not per byte, so a lane is as fast as its calls are full. Sending hands the kernel one buffer and the
size to cut it at (UDP_SEGMENT, udp(7)); receiving gets what the kernel joined and the size that it was joined from (UDP_GRO).
Where either is missing the same calls move one datagram at a time: slower, same bytes.

CPU microseconds a datagram of 1,472 bytes, sending and receiving, on a veth pair that takes batches apart and joins them again
(Linux 6.18, two busy cores, medians of 4 runs; the sender's time includes the kernel's on both sides of the cable):

    44 a call, both ways        1.1   0.4
    one a call, both ways       2.6   1.9
    loopback, 44 a call         0.13  0.11
    python -m pytest tests/bench/test_datagrams.py -s

Rules kept here: nothing waits - a full buffer is told by what is returned; nothing raises for what a network may do - a refusal
(ICMP), a route that is gone or a size that does not fit is a counter and a lost datagram; the kernel never fragments, so that
a probed size means something; what this machine itself drops is counted apart (``drops``). No allocation per datagram, and per
call only what Python's socket makes.

One thread may send while another receives, and two may send. Left to others: when to send, what the bytes mean, and which
addresses deserve an answer.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import sys

from labxchange.errors import UnavailableError

ROW_BYTES = 65_536
"""What a row for ``receive_into`` must hold: the most that the kernel joins."""
SEND_BYTES_MAX = 65_507
"""Of one system call: what fits into one IPv4 datagram, and the joined one has to look like one (RFC 768, RFC 791)."""
SEGMENTS_MAX = 64
"""UDP_MAX_SEGMENTS of the kernels before 6.8 (include/linux/udp.h), which is 128 since."""
BUFFER_BYTES = 16 << 20
"""Twice what a sender leaves under way beyond the path: a receiver that is busy finds it there, and nothing is dropped."""

Sockaddr = tuple[str, int] | tuple[str, int, int, int]
"""As Python's sockets give and take it; an IPv6 one keeps its scope. To be sent back to as it came."""

_LINUX = sys.platform.startswith("linux")
_MAPPED = "::ffff:"
_SOL_UDP = 17
_UDP_SEGMENT = 103
_UDP_GRO = 104
_SO_RXQ_OVFL = 40
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_PROBE = 3
_CONTROL_BYTES = 2 * socket.CMSG_SPACE(4) + socket.CMSG_SPACE(_TIMESPEC.size)
_REFUSES_JOINED = frozenset((errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP, errno.ENOPROTOOPT))
_NOT_NOW = frozenset((errno.EAGAIN, errno.ENOBUFS, errno.EINTR, errno.ENOMEM))


def plain_host(host: str) -> str:
    """A host without the ``::ffff:`` under which a dual-stack socket shows IPv4."""
    return host[len(_MAPPED) :] if host.startswith(_MAPPED) else host


def open_lane(remote: tuple[str, int], *, gso: bool = True, gro: bool = True) -> LaneSocket:
    """The dialling side's end of a lane: a socket of its own, connected from a free port to a numeric address.

    Raises:
        UnavailableError: ``peer-unreachable``, no route from this machine.
    """
    host = plain_host(remote[0])
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.connect((host, remote[1]))
    except OSError as error:
        sock.close()
        raise UnavailableError(
            "peer-unreachable",
            f"This machine has no way to {host} port {remote[1]} (UDP): {error.strerror}.",
            hint="Check the network of this machine.",
        ) from None
    return LaneSocket(sock, gso=gso, gro=gro)


def join_received(sock: socket.socket, *, join: bool) -> bool:
    """Have the kernel join equal datagrams of one flow before they are received, or not; whether it does."""
    return _set(sock, _SOL_UDP, _UDP_GRO, int(join)) and join


class LaneSocket:
    """Batches over a bound or connected UDP socket, which it owns.

    Args:
        gso: send joined where the kernel takes it; False is the portable path.
        gro: receive joined where the kernel does it; False is the portable path.
        buffer_bytes: asked for, each way; the machine's limit (``net.core.rmem_max``, ``wmem_max``) may grant less.

    Attributes:
        gso, gro: what is in use. ``gso`` becomes False for good when the kernel or the device refuses at run time.
        receive_buffer_bytes, send_buffer_bytes: granted; Linux counts its own bookkeeping in, so twice what is usable.
        arrived_at: when what was received last came to this machine, by the kernel's clock of the day (seconds); 0.0 where it
            does not say. It is there before a busy process looks, so round trips are those of the path.
        drops: arrived here and thrown away because nobody read in time ("this machine"); a joined batch counts once.
        refused, too_large, failed: datagrams answered by "nobody listens", over the size of the interface, without a route.
        sent_calls, sent_datagrams, received_calls, received_datagrams: for datagrams per call.
    """

    def __init__(self, sock: socket.socket, *, gso: bool = True, gro: bool = True, buffer_bytes: int = BUFFER_BYTES) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._recvmsg_into = sock.recvmsg_into
        self._maps = sock.family == socket.AF_INET6
        self.receive_buffer_bytes = _ask_buffer(sock, socket.SO_RCVBUF, buffer_bytes)
        self.send_buffer_bytes = _ask_buffer(sock, socket.SO_SNDBUF, buffer_bytes)
        _never_fragment(sock)
        _set(sock, socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        _set(sock, socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        # Setting the size 0 changes nothing and tells whether the kernel knows the option.
        self.gso = gso and _set(sock, _SOL_UDP, _UDP_SEGMENT, 0)
        self.gro = join_received(sock, join=gro)
        # The size travels with each call instead of staying on the socket: two threads may send different sizes.
        self._control: tuple[int, list[tuple[int, int, bytes]]] = (0, [])
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self.arrived_at = 0.0
        self.drops = self.refused = self.too_large = self.failed = 0
        self.sent_calls = self.sent_datagrams = 0
        self.received_calls = self.received_datagrams = 0

    @property
    def address(self) -> Sockaddr:
        """Where it is bound."""
        bound: Sockaddr = self._socket.getsockname()
        return bound

    def fileno(self) -> int:
        """For ``select``; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this descriptor; the socket lives while another process holds it."""
        self._socket.close()

    def wait(self, timeout_s: float) -> bool:
        """Wait until there may be something to receive; False when the time is over."""
        return bool(self._poll.poll(timeout_s * 1000))

    def send(self, buffer: memoryview, segment_bytes: int, address: Sockaddr | None = None) -> int:
        """Hand over a buffer of equal datagrams, of which the last may be shorter; no address on a connected socket.

        Returns how many datagrams were handed over: fewer than given when this machine takes no more now. Those lost because
        nobody listens, no route leads there or the size does not fit count as handed over: the network would say no more.
        """
        if address is not None and self._maps and ":" not in address[0]:
            address = (_MAPPED + address[0], address[1])
        total, offset = len(buffer), 0
        joined_bytes = max(min(SEGMENTS_MAX, SEND_BYTES_MAX // segment_bytes), 1) * segment_bytes
        while offset < total:
            part = buffer[offset : offset + (joined_bytes if self.gso else segment_bytes)]
            taken = self._hand_over(part, segment_bytes, address)
            if not taken:
                break
            offset += taken
        sent = -(-min(offset, total) // segment_bytes)
        self.sent_datagrams += sent
        return sent

    def receive_into(self, row: memoryview) -> tuple[int, int, Sockaddr] | None:
        """One system call into a row of ``ROW_BYTES``: the bytes it got, the size to cut them at, and where they came from.

        None when nothing is there, or only an error was. The size is at least 1, also for an empty datagram. A row that is too
        short loses its end.
        """
        try:
            total, control, _, source = self._recvmsg_into((row,), _CONTROL_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            # Not this datagram's fate but that of one sent before: nobody listens there. What waits comes with the next call.
            self._note(error, 1)
            return None
        segment_bytes = total or 1
        for level, kind, value in control:
            if level == _SOL_UDP and kind == _UDP_GRO:
                segment_bytes = int.from_bytes(value, sys.byteorder)
            elif kind == _SO_TIMESTAMPNS and len(value) == _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack(value)
                self.arrived_at = seconds + nanoseconds / 1e9
            elif kind == _SO_RXQ_OVFL:
                self.drops = int.from_bytes(value, sys.byteorder)
        self.received_calls += 1
        self.received_datagrams += -(-total // segment_bytes)
        return total, segment_bytes, source

    def _hand_over(self, part: memoryview, segment_bytes: int, address: Sockaddr | None) -> int:
        """One call: the bytes taken, sent or lost; 0 when the machine takes nothing now."""
        count = -(-len(part) // segment_bytes)
        for _ in range(2):
            self.sent_calls += 1
            try:
                if count > 1:
                    self._socket.sendmsg((part,), self._size(segment_bytes), 0, address)
                elif address is None:
                    self._socket.send(part)
                else:
                    self._socket.sendto(part, address)
            except ConnectionRefusedError as error:
                # The answer to an earlier datagram, told in place of sending this one, and told once.
                self._note(error, 1)
            except OSError as error:
                if error.errno in _NOT_NOW:
                    return 0
                if count > 1 and error.errno in _REFUSES_JOINED:
                    return self._hand_over_first(part, segment_bytes, address)
                self._note(error, count)
                return len(part)
            else:
                return len(part)
        return len(part)

    def _hand_over_first(self, part: memoryview, segment_bytes: int, address: Sockaddr | None) -> int:
        """A batch was refused: because it is one, or because already one of its datagrams is?"""
        lost = self.too_large, self.failed
        taken = self._hand_over(part[:segment_bytes], segment_bytes, address)
        if (self.too_large, self.failed) == lost:
            self.gso = self.gso and not taken
            return taken
        others = -(-len(part) // segment_bytes) - 1
        if self.too_large > lost[0]:
            self.too_large += others
        else:
            self.failed += others
        return len(part)

    def _size(self, segment_bytes: int) -> list[tuple[int, int, bytes]]:
        size, control = self._control
        if size != segment_bytes:
            control = [(_SOL_UDP, _UDP_SEGMENT, segment_bytes.to_bytes(2, sys.byteorder))]
            self._control = segment_bytes, control
        return control

    def _note(self, error: OSError, count: int) -> None:
        if error.errno == errno.EBADF:
            raise error
        if error.errno == errno.ECONNREFUSED:
            self.refused += count
        elif error.errno == errno.EMSGSIZE:
            self.too_large += count
        else:
            self.failed += count


def _set(sock: socket.socket, level: int, option: int, value: int) -> bool:
    # The numbers are Linux's and mean other things elsewhere.
    if not _LINUX:
        return False
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def _ask_buffer(sock: socket.socket, option: int, buffer_bytes: int) -> int:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)
    return sock.getsockopt(socket.SOL_SOCKET, option)


def _never_fragment(sock: socket.socket) -> None:
    # PROBE sets the don't-fragment bit and ignores what the kernel believes of the path (ip(7)): sizes are found by trying.
    # A dual-stack socket sends IPv4 under IPv4's option.
    _set(sock, socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
    if sock.family == socket.AF_INET6:
        _set(sock, socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
