"""What the rest of ``net`` needs of a network: UDP ports, sockets for lanes, and names; and what it tells of a connection.

``sockets`` and ``simulated`` are the two that exist.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

UdpAddress = tuple[str, int]
"""Numeric host (IPv4, or IPv6 with its zone where it is link-local) and port."""
Datagrams = Sequence[tuple[bytes, UdpAddress]]
OnBatch = Callable[[Datagrams], None]


class UdpPort(Protocol):
    """An open UDP port."""

    @property
    def address(self) -> UdpAddress:
        """Where it is bound."""
        ...

    def send(self, datagrams: Datagrams) -> None:
        """Send each; what the machine cannot send now may be lost, as on any network."""
        ...

    def close(self) -> None:
        """Close it; ``on_batch`` is not called again."""
        ...


class Slot(NamedTuple):
    """A bound, unconnected socket of the listening side, and the port on which it is reached."""

    socket: socket.socket
    port: int


class Listening(NamedTuple):
    """The listening port, and the sockets of lane workers by slot (from 1); none where lanes cannot be offered."""

    port: UdpPort
    lanes: Mapping[int, Slot]


class Network(Protocol):
    """A place to open UDP ports in."""

    async def resolve(self, host: str, port: int) -> list[UdpAddress]:
        """Numeric addresses of a host; raises UnavailableError ``unknown-host``."""
        ...

    def open_udp(self, host: str, port: int, on_batch: OnBatch) -> UdpPort:
        """Bind ``host`` (numeric; "" = any) and ``port`` (0 = any free one); raises UnavailableError ``port-unavailable``."""
        ...

    def open_group(self, host: str, port: int, on_batch: OnBatch, *, workers: int) -> Listening:
        """Like ``open_udp``, with a socket for each of the workers; raises UnavailableError ``port-unavailable``."""
        ...


class Closed(msgspec.Struct, frozen=True):
    """How a channel ended: a code ("" = normally) and whose doing it was: "us", "peer" or "network"."""

    code: str
    whose: str


class Stats(msgspec.Struct):
    """Counters of a channel, for status and doctor."""

    datagrams_sent: int = 0
    datagrams_received: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    address_changes: int = 0
