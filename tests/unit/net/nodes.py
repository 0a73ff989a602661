"""Nodes for network tests: an authority that admits everybody unless told otherwise, and its endpoint."""

from __future__ import annotations

import socket

import pytest

from labxchange.errors import RefusedError
from labxchange.identity.card import Card
from labxchange.identity.keys import Identity
from labxchange.identity.statement import Signed
from labxchange.net.channel import Channel, Stream
from labxchange.net.endpoint import Endpoint
from labxchange.net.network import Network, UdpAddress
from tests.unit.wire.party import KINDS, Party


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


class Node:
    """A party that answers: short messages are echoed, and at the end the number of bytes received is told."""

    def __init__(self, number: int, network: Network) -> None:
        self.party = Party(number)
        self.key = self.party.key
        self.refusal = ""
        self.channels: list[Channel] = []
        self.strangers: list[tuple[UdpAddress, str]] = []
        self.admitted: list[tuple[bytes, bytes, bytes, bytes]] = []
        self.received_bytes = 0
        self.endpoint = Endpoint(network=network, authority=self)

    @property
    def identity(self) -> Identity:
        return self.party.identity

    def card(self) -> bytes:
        return self.party.card

    def kinds(self) -> dict[str, int]:
        return KINDS

    async def admit(self, peer_key: bytes, card: Signed[Card], *, invitation_id: bytes, proof: bytes, th1: bytes) -> None:
        self.admitted.append((peer_key, invitation_id, proof, th1))
        if self.refusal:
            raise RefusedError(self.refusal, "The test refuses.")

    def on_channel(self, channel: Channel) -> None:
        self.channels.append(channel)
        channel.serve(self.answer)

    def on_stranger(self, address: UdpAddress, reason: str) -> None:
        self.strangers.append((address, reason))

    async def answer(self, stream: Stream) -> None:
        count = 0
        while (message := await stream.receive()) is not None:
            count += len(message)
            self.received_bytes += len(message)
            if len(message) < 100:
                await stream.send(message)
        await stream.send(str(count).encode(), end=True)
