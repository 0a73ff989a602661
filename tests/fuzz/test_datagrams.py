"""Datagrams of anybody against a listening endpoint: garbage, garbage in the form of an Initial, single bytes, and damaged,
repeated and redirected datagrams of a connection that is alive meanwhile.

No exception escapes, memory stays, nobody is sent more than three times what they sent, and the connection goes on. Most of it is
given to the endpoint by hand on the simulated network, a share travels through real sockets. ``LABXCHANGE_FUZZ`` sizes it.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Sequence

import pytest

from labxchange.net.network import UdpAddress
from labxchange.net.simulated import SimulatedNetwork, run_virtual
from labxchange.net.sockets import SocketNetwork
from tests.fuzz.evil import FULL, FUZZ, MIB, SEED, Faults, Watchdog, flip, resident_bytes
from tests.unit.net.nodes import Node

VICTIM: UdpAddress = ("10.255.0.1", 4433)
CALLER = "10.0.0.1"
AMPLIFICATION = 3.0
WARM = 10_000


class Datagrams:
    """Makes datagrams that no honest node sends."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.captured: list[tuple[bytes, UdpAddress]] = []

    def keep(self, data: bytes, source: UdpAddress) -> None:
        """Remember what a connection sent: its beginning for good, the rest while it is fresh."""
        self.captured.append((data, source))
        if len(self.captured) > 400:
            del self.captured[self.chance.randrange(20, 380)]

    def source(self) -> UdpAddress:
        number = self.chance.randrange(4000)
        return f"10.9.{number >> 8}.{number & 255}", 1024 + number

    def one(self) -> tuple[bytes, UdpAddress]:
        """A datagram and where it claims to come from."""
        chance, way = self.chance, self.chance.random()
        if way < 0.45:
            return self.initial(), self.source()
        if way < 0.55:
            return bytes([chance.randrange(256)]), self.source()
        if way < 0.65:
            return chance.randbytes(chance.choice([1, 2, 7, 21, 40, 1199, 1200, 1500])), self.source()
        if not self.captured:
            return b"\x40", self.source()
        data, source = chance.choice(self.captured)
        if chance.random() < 0.3:
            source = self.source()
        if way < 0.9:
            data = flip(chance, data)
        elif way < 0.95:
            data = data[: chance.randrange(len(data) + 1)]
        elif way < 0.97:  # its head around other bytes
            data = data[:9] + chance.randbytes(chance.choice([1, 20, 1200]))
        return data, source

    def initial(self) -> bytes:
        chance = self.chance
        version = chance.choice([1, 1, 1, 1, 2, 0x6B3343CF, 0, chance.randrange(2**32)]).to_bytes(4, "big")
        head = bytes([chance.choice([0xC0, 0xC0, 0xC3, 0xD0, 0xE0, 0xF0, chance.randrange(256)])]) + version
        ids = b"".join(bytes([size]) + chance.randbytes(size) for size in (chance.choice([8, chance.randrange(21)]), 8))
        token = chance.randbytes(chance.choice([0, 0, 0, 0, 0, 0, 0, 1, 60, 256]))
        length = chance.choice([1100, 1100, 0, 1, 16_000])
        rest = (0x4000 | len(token)).to_bytes(2, "big") + token + (0x4000 | length).to_bytes(2, "big")
        return (head + ids + rest + bytes(20)).ljust(chance.choice([1200, 1200, 1200, 1232, 1199]), b"\x5a")


def attack(count: int) -> None:
    print(f"seed {SEED:x}")

    async def main() -> None:
        chance = random.Random(f"datagrams {SEED}")
        made, faults, dog = Datagrams(chance), Faults(), Watchdog()
        network = SimulatedNetwork(seed=SEED, delay_s=0.001)
        victim = Node(2, network.host(VICTIM[0]))
        caller = Node(1, network.host(CALLER))
        sent: Counter[UdpAddress] = Counter()
        replied: Counter[UdpAddress] = Counter()

        def tap(data: bytes, source: UdpAddress, destination: UdpAddress) -> Sequence[bytes]:
            if destination == VICTIM:
                made.keep(data, source)
            elif destination[0] != CALLER:
                replied[destination] += len(data)
                assert replied[destination] <= AMPLIFICATION * sent[destination], destination
                return []
            return [data]

        network.tap = tap
        await victim.endpoint.listen("", VICTIM[1])
        deliver = network.hosts[0].ports[VICTIM[1]].deliver
        address = f"{VICTIM[0]}:{VICTIM[1]}"
        channel = await caller.endpoint.dial(address, victim.key)
        stream = await channel.open()
        baseline = reconnected = echoed = 0
        for number in range(count):
            if number == min(WARM, count // 2):
                baseline = resident_bytes()
            data, source = made.one()
            if source[0] != CALLER:
                sent[source] += len(data)
            with dog.watch(data):
                deliver(data, source)
            if number % 50 == 0:
                await asyncio.sleep(0.01)
            if number % 2000 == 0:
                if not channel.is_open:
                    channel, reconnected = await caller.endpoint.dial(address, victim.key), reconnected + 1
                    stream = await channel.open()
                await stream.send(b"hello")
                async with asyncio.timeout(10):
                    assert await stream.receive() == b"hello"
                echoed += 1
        await asyncio.sleep(30)
        faults.check()
        grown = resident_bytes() - baseline
        worst = max((replied[source] / sent[source] for source in replied), default=0.0)
        gate = victim.endpoint.gate
        print(
            f"{count} datagrams: {grown / MIB:+.1f} MiB, longest {1000 * dog.longest_s:.0f} ms, reply at most {worst:.2f}; {gate}"
        )
        print(f"the connection answered {echoed} times and was made anew {reconnected} times")
        assert grown < 30 * MIB
        assert gate.retries > count // 40
        assert gate.faults == 0
        assert reconnected == 0
        channel.close()
        await caller.endpoint.close()
        await victim.endpoint.close()

    run_virtual(main())


def attack_sockets(count: int) -> None:
    """The same through a real UDP socket; a listener that loses datagrams under load loses nothing else."""

    async def main() -> None:
        chance = random.Random(f"sockets {SEED}")
        made, faults = Datagrams(chance), Faults()
        victim, caller = Node(2, SocketNetwork()), Node(1, SocketNetwork())
        port = await victim.endpoint.listen("127.0.0.1", 0)
        channel = await caller.endpoint.dial(f"127.0.0.1:{port}", victim.key)
        stream = await channel.open()
        flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        flood.setblocking(False)
        replied = sent = 0
        baseline = 0
        for number in range(count):
            data, _ = made.one()
            try:
                sent += flood.sendto(data, ("127.0.0.1", port))
            except BlockingIOError:
                pass
            if number % 32 == 0:
                await asyncio.sleep(0)
                while True:
                    try:
                        replied += len(flood.recv(2000))
                    except BlockingIOError:
                        break
            if number == count // 4:
                baseline = resident_bytes()
            if number % 1000 == 0:
                await stream.send(b"hello")
                async with asyncio.timeout(10):
                    assert await stream.receive() == b"hello"
        faults.check()
        grown = resident_bytes() - baseline
        print(f"{count} datagrams through sockets: {grown / MIB:+.1f} MiB, {replied} bytes came back for {sent}")
        assert grown < 30 * MIB
        assert replied <= AMPLIFICATION * sent
        assert victim.endpoint.gate.faults == 0
        assert channel.is_open
        flood.close()
        await caller.endpoint.close()
        await victim.endpoint.close()

    asyncio.run(main())


def test_datagrams() -> None:
    attack(200 * FUZZ)


def test_datagrams_through_sockets() -> None:
    attack_sockets(25 * FUZZ)


@pytest.mark.campaign
def test_a_million_datagrams() -> None:
    attack(225 * FULL)
    attack_sockets(25 * FULL)
