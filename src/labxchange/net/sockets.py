"""The real network: UDP sockets on the running asyncio loop, read and written in batches.

Rules kept here: no datagram waits for another's fate - what does not fit into the machine's buffer waits in a short queue and
then is dropped, as a network would; a failed send is silence, since the transport above notices by itself. What datagrams
mean is left to ``quic`` and the lanes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections import deque
from itertools import groupby

from labxchange.errors import UnavailableError
from labxchange.net.network import Datagrams, OnBatch, UdpAddress

BATCH_DATAGRAMS = 64
BUFFER_BYTES = 4 << 20
_QUEUE_DATAGRAMS = 1024
_DATAGRAM_MAX_BYTES = 2048
_UDP_SEGMENT = 103
_SEGMENTS_MAX = 44
"""Joined datagrams of one system call: at 1,452 bytes still under the 64 KiB of one UDP send."""


def _takes_segments(sock: socket.socket) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        sock.setsockopt(socket.SOL_UDP, _UDP_SEGMENT, 0)
    except OSError:
        return False
    return True


class SocketPort:
    """One UDP socket; see ``network.UdpPort``."""

    def __init__(self, sock: socket.socket, on_batch: OnBatch) -> None:
        self._socket = sock
        self._on_batch = on_batch
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, UdpAddress]] = deque()
        self._ipv6 = sock.family == socket.AF_INET6
        self._segments = _takes_segments(sock)
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def address(self) -> UdpAddress:
        """Where it is bound."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def send(self, datagrams: Datagrams) -> None:
        """Send each, or queue what the machine cannot take now; equal ones to one address go in one system call."""
        if self._segments and len(datagrams) > 1 and not self._waiting:
            datagrams = self._send_joined(datagrams)
        for data, address in datagrams:
            if self._waiting or not self._send_one(data, address):
                if len(self._waiting) >= _QUEUE_DATAGRAMS:
                    return
                if not self._waiting:
                    self._loop.add_writer(self._socket.fileno(), self._writable)
                self._waiting.append((data, address))

    def close(self) -> None:
        """Close the socket."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
        self._waiting.clear()

    def _send_one(self, data: bytes, address: UdpAddress) -> bool:
        try:
            self._socket.sendto(data, self._target(address))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            pass
        return True

    def _send_joined(self, datagrams: Datagrams) -> Datagrams:
        left: list[tuple[bytes, UdpAddress]] = []
        for (address, size), run in groupby(datagrams, key=lambda item: (item[1], len(item[0]))):
            rest = list(run)
            while len(rest) > 1 and not left:
                batch, target = [data for data, _ in rest[:_SEGMENTS_MAX]], self._target(address)
                control = [(socket.SOL_UDP, _UDP_SEGMENT, size.to_bytes(2, sys.byteorder))]
                try:
                    self._socket.sendmsg(batch, control, 0, target)
                except OSError:
                    break
                del rest[:_SEGMENTS_MAX]
            left += rest
        return left

    def _target(self, address: UdpAddress) -> UdpAddress:
        return (f"::ffff:{address[0]}", address[1]) if self._ipv6 and ":" not in address[0] else address

    def _writable(self) -> None:
        while self._waiting and self._send_one(*self._waiting[0]):
            self._waiting.popleft()
        if not self._waiting and self._socket.fileno() >= 0:
            self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        batch: list[tuple[bytes, UdpAddress]] = []
        receive = self._socket.recvfrom
        with contextlib.suppress(OSError):
            while len(batch) < BATCH_DATAGRAMS:
                data, address = receive(_DATAGRAM_MAX_BYTES)
                batch.append((data, address[:2]))
        if batch:
            self._on_batch(batch)


class SocketNetwork:
    """UDP of this machine; see ``network.Network``."""

    async def resolve(self, host: str, port: int) -> list[UdpAddress]:
        """Numeric addresses of a host; raises UnavailableError ``unknown-host``."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError):
            raise UnavailableError(
                "unknown-host", f"No machine is known under the name {host!r}.", hint="Check the address of the contact."
            ) from None
        addresses = [(str(item[4][0]), int(item[4][1])) for item in found]
        return list(dict.fromkeys(addresses))

    def open_udp(self, host: str, port: int, on_batch: OnBatch) -> SocketPort:
        """Bind a socket; "" binds every address of this machine, IPv4 and IPv6 where it has it."""
        if host:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return self.adopt(self._bind(family, host, port), on_batch)
        try:
            return self.adopt(self._bind(socket.AF_INET6, "::", port), on_batch)
        except UnavailableError:
            return self.adopt(self._bind(socket.AF_INET, "0.0.0.0", port), on_batch)  # noqa: S104

    def adopt(self, sock: socket.socket, on_batch: OnBatch) -> SocketPort:
        """A port over a bound UDP socket, which it owns from then on."""
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        return SocketPort(sock, on_batch)

    def _bind(self, family: socket.AddressFamily, host: str, port: int) -> socket.socket:
        sock = None
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET6 and host == "::":
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind((host, port))
        except OSError as error:
            if sock is not None:
                sock.close()
            raise UnavailableError(
                "port-unavailable",
                f"UDP port {port} on {host} cannot be opened: {error.strerror}.",
                hint="Choose another port, or stop the program that uses this one.",
            ) from None
        return sock
