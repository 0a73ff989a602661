"""What the rest of ``net`` needs of a network: UDP ports and names. ``sockets`` and ``simulated`` are the two that exist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

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


class Network(Protocol):
    """A place to open UDP ports in."""

    async def resolve(self, host: str, port: int) -> list[UdpAddress]:
        """Numeric addresses of a host; raises UnavailableError ``unknown-host``."""
        ...

    def open_udp(self, host: str, port: int, on_batch: OnBatch) -> UdpPort:
        """Bind ``host`` (numeric; "" = any) and ``port`` (0 = any free one); raises UnavailableError ``port-unavailable``."""
        ...
