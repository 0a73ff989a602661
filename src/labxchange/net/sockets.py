"""The real network: UDP sockets on the running asyncio loop, read and written in batches.

Rules kept here: no datagram waits for another's fate - what does not fit into the machine's buffer waits in a short queue and
then is dropped, as a network would; a failed send is silence, since the transport above notices by itself. Joining and cutting
is left to ``lane_socket``, sharing a port to ``port_group``, what datagrams mean to ``quic`` and the lanes.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from itertools import groupby

from labxchange.errors import UnavailableError
from labxchange.net.lane_socket import ROW_BYTES, LaneSocket
from labxchange.net.network import Datagrams, Listening, OnBatch, UdpAddress
from labxchange.net.port_group import open_group

BATCH_DATAGRAMS = 64
_BUFFER_BYTES = 4 << 20
_QUEUE_DATAGRAMS = 1024


class SocketPort:
    """One UDP socket; see ``network.UdpPort``."""

    def __init__(self, sock: socket.socket, on_batch: OnBatch) -> None:
        self._socket = LaneSocket(sock, buffer_bytes=_BUFFER_BYTES)
        self._on_batch = on_batch
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, UdpAddress]] = deque()
        self._row = memoryview(bytearray(ROW_BYTES))
        self._loop.add_reader(self._socket.fileno(), self._readable)

    @property
    def address(self) -> UdpAddress:
        """Where it is bound."""
        return self._socket.address[:2]

    def send(self, datagrams: Datagrams) -> None:
        """Send each, or queue what the machine cannot take now; equal ones to one address go in one system call."""
        if self._socket.fileno() < 0:
            return
        for (address, size), run in groupby(datagrams, key=lambda item: (item[1], len(item[0]))):
            batch = [data for data, _ in run]
            taken = 0 if self._waiting else self._socket.send(memoryview(b"".join(batch)), size, address)
            for data in batch[taken:]:
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

    def _writable(self) -> None:
        while self._waiting:
            data, address = self._waiting[0]
            if not self._socket.send(memoryview(data), len(data), address):
                return
            self._waiting.popleft()
        self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        batch: list[tuple[bytes, UdpAddress]] = []
        row = self._row
        while len(batch) < BATCH_DATAGRAMS and (received := self._socket.receive_into(row)) is not None:
            total, size, source = received
            address = source[:2]
            batch += [(bytes(row[start : min(start + size, total)]), address) for start in range(0, total, size)]
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
        return SocketPort(open_group(host, port, workers=0)[0].socket, on_batch)

    def open_group(self, host: str, port: int, on_batch: OnBatch, *, workers: int) -> Listening:
        """The listening port with a socket for each worker, by slot; see ``port_group``."""
        quic, *lanes = open_group(host, port, workers=workers)
        return Listening(SocketPort(quic.socket, on_batch), dict(enumerate(lanes, 1)))
