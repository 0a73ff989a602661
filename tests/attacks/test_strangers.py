"""What strangers can cost a node: memory, replies and faults, against the real endpoint on the simulated network.

``LABXCHANGE_HALF_OPEN`` sets the number of half-open connections (10,000 for the campaign), ``LABXCHANGE_FUZZ`` the number of
fuzzed connections, ``LABXCHANGE_SEED`` (hexadecimal) the seed, which is printed. Resident memory is read from the kernel.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType, QuicProtocolVersion
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch

from labxchange.net.endpoint import HALF_OPEN_MAX, HALF_OPEN_PER_SOURCE
from labxchange.net.network import Datagrams, UdpAddress
from labxchange.net.quic import WINDOW_BEFORE_BYTES, WINDOW_BYTES, client_configuration
from labxchange.net.simulated import SimulatedHost, SimulatedNetwork, run_virtual
from tests.unit.net.nodes import Node

HALF_OPEN = int(os.environ.get("LABXCHANGE_HALF_OPEN", "1200"))
FUZZ = int(os.environ.get("LABXCHANGE_FUZZ", "400"))
SEED = int(os.environ.get("LABXCHANGE_SEED", "6"), 16)
VICTIM: UdpAddress = ("10.255.0.1", 4433)
MIB = 1 << 20


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Evil(QuicConnection):
    """A caller that speaks QUIC and keeps none of its limits."""

    junk: list[tuple[int, bytes]]

    def __init__(self, network: SimulatedNetwork, address: UdpAddress) -> None:
        super().__init__(configuration=client_configuration())
        self.junk = []
        self._network = network
        self._address = address

    def deliver(self, data: bytes) -> None:
        self.receive_datagram(data, VICTIM, now=asyncio.get_running_loop().time())

    def flush(self) -> None:
        for data, destination in self.datagrams_to_send(now=asyncio.get_running_loop().time()):
            self._network.send(data, self._address, destination)

    def frame_at(self, stream_id: int, offset: int, data: bytes = b"x") -> None:
        """A stream frame anywhere, whatever the windows say."""
        body = bytearray()
        for value in (stream_id, offset, len(data)):
            body += (value | 0xC000000000000000).to_bytes(8, "big")
        self.junk.append((0x08 | 4 | 2, bytes(body) + data))

    def _write_application(self, builder: QuicPacketBuilder, network_path: Any, now: float) -> None:
        if not self.junk:
            super()._write_application(builder, network_path, now)
        while self.junk:
            kind, body = self.junk.pop(0)
            builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[Epoch.ONE_RTT])
            builder.start_frame(kind, capacity=len(body)).push_bytes(body)


class Attack:
    """The victim, the network, and as many callers as wanted."""

    def __init__(self) -> None:
        self.network = SimulatedNetwork(seed=SEED, delay_s=0.001)
        self.victim = Node(2, self.network.host(VICTIM[0]))
        self.network.tap = self._tap
        self.sent: Counter[UdpAddress] = Counter()
        self.replied: Counter[UdpAddress] = Counter()
        self.callers: dict[UdpAddress, Evil] = {}

    def _tap(self, data: bytes, source: UdpAddress, destination: UdpAddress) -> list[bytes]:
        if destination == VICTIM:
            self.sent[source] += len(data)
            return [data]
        self.replied[destination] += len(data)
        caller = self.callers.get(destination)
        if caller is not None:
            asyncio.get_running_loop().call_soon(self._answer, caller, data)
            return []
        return [data]

    def _answer(self, caller: Evil, data: bytes) -> None:
        if caller._address in self.callers:
            caller.deliver(data)
            caller.flush()

    def call(self, number: int) -> Evil:
        """A new caller with its own address, which sends its first Initial."""
        address = (f"10.{number >> 16 & 63}.{number >> 8 & 255}.{number & 255}", 1024 + number % 60_000)
        caller = self.callers[address] = Evil(self.network, address)
        caller.connect(VICTIM, now=asyncio.get_running_loop().time())
        caller.flush()
        return caller

    def drop(self, caller: Evil) -> None:
        """The caller goes silent and costs nothing here any more."""
        del self.callers[caller._address]
        if "tls" in caller.__dict__:
            caller.tls.__dict__.clear()
        caller.__dict__.clear()

    async def connect(self, number: int) -> Evil:
        """A caller whose TLS handshake is complete."""
        caller = self.call(number)
        for _ in range(200):
            await asyncio.sleep(0.005)
            if caller._handshake_complete:
                return caller
        raise AssertionError("a caller was not served")

    def inject(self, data: bytes, source: UdpAddress) -> None:
        self.network.send(data, source, VICTIM)


def attack(main: Callable[[Attack], Awaitable[None]]) -> None:
    print(f"seed {SEED:x}")

    async def bounded() -> None:
        under = Attack()
        await under.victim.endpoint.listen("", VICTIM[1])
        await main(under)
        assert under.victim.endpoint.gate.faults == 0
        await asyncio.sleep(30)
        assert not under.victim.endpoint._links
        assert not under.victim.channels
        await under.victim.endpoint.close()

    run_virtual(bounded())


def test_half_open_connections_cost_a_bounded_memory() -> None:
    async def main(under: Attack) -> None:
        warm = under.call(0)
        await asyncio.sleep(0.1)
        under.drop(warm)
        gc.collect()
        before, peak = resident_bytes(), 0
        for number in range(1, HALF_OPEN + 1):
            caller = under.call(number)
            await asyncio.sleep(0.0025)  # its Retry comes back and its second Initial arrives
            under.drop(caller)
            peak = max(peak, resident_bytes())
            assert len(under.victim.endpoint._half_open) <= HALF_OPEN_MAX
        gate = under.victim.endpoint.gate
        print(f"{HALF_OPEN} half-open connections: {(peak - before) / MIB:.1f} MiB more resident at most; {gate}")
        assert gate.accepted == HALF_OPEN + 1
        assert peak - before < 30 * MIB

    attack(main)


def test_one_source_has_eight_half_open_connections() -> None:
    async def main(under: Attack) -> None:
        for number in range(40):
            caller = Evil(under.network, ("10.1.1.1", 2000 + number))
            under.callers[caller._address] = caller
            caller.connect(VICTIM, now=asyncio.get_running_loop().time())
            caller.flush()
            await asyncio.sleep(0.0025)
        assert len(under.victim.endpoint._half_open) == HALF_OPEN_PER_SOURCE
        assert max(under.victim.endpoint._sources.values()) == HALF_OPEN_PER_SOURCE
        assert [reason for _, reason in under.victim.strangers] == ["too-many-callers"] * 32
        for caller in list(under.callers.values()):
            under.drop(caller)

    attack(main)


@pytest.mark.parametrize("ladder", ["doubling", "within", "streams"])
def test_ten_bytes_behind_a_hole_hold_no_memory(ladder: str) -> None:
    async def main(under: Attack) -> None:
        gc.collect()
        before = resident_bytes()
        for number in range(30):
            caller = await under.connect(number)
            for stream_id in range(0, 40, 4):
                caller.send_stream_data(stream_id, b"")  # else it would itself refuse the larger windows it hopes for
            for step in range(10):
                if ladder == "doubling":
                    caller.frame_at(0, (WINDOW_BEFORE_BYTES << step) - 2)
                elif ladder == "within":
                    caller.frame_at(0, WINDOW_BEFORE_BYTES - 10 + step)
                else:
                    caller.frame_at(4 * step, WINDOW_BEFORE_BYTES - 10)
                caller.flush()
                await asyncio.sleep(0.005)
            held = [
                len(stream.receiver._buffer)
                for link in under.victim.endpoint._ids
                for stream in getattr(link.quic, "_streams", {}).values()
            ]
            assert sum(held) <= WINDOW_BEFORE_BYTES * len(under.victim.endpoint._half_open)
        assert resident_bytes() - before < 30 * MIB
        for caller in list(under.callers.values()):
            under.drop(caller)

    attack(main)


@pytest.mark.parametrize("count", [1, 8])
def test_a_proven_peer_holds_no_more_than_its_window(count: int) -> None:
    async def main() -> None:
        network = SimulatedNetwork(seed=SEED, delay_s=0.001)
        a, b = Node(1, network.host("10.0.0.1")), Node(2, network.host("10.0.0.2"))
        await b.endpoint.listen("", 4433)
        channel = await a.endpoint.dial("10.0.0.2:4433", b.key)
        streams = [await channel.open() for _ in range(count)]
        await asyncio.sleep(1)
        gc.collect()
        before = resident_bytes()
        quic = channel._link.quic
        quic._remote_max_data = 1 << 40
        for step in range(15):
            if not channel.is_open:
                break
            for stream in streams:
                inner = quic._streams[stream.id]
                inner.max_stream_data_remote = 1 << 40
                inner.sender._buffer_start = inner.sender._buffer_stop = inner.sender.highest_offset = 4000 << step
                inner.sender._buffer.clear()
                inner.sender.write(b"x")
            channel._link.pump()
            await asyncio.sleep(0.05)
            held = sum(
                len(stream.receiver._buffer) for link in b.endpoint._ids for stream in getattr(link.quic, "_streams", {}).values()
            )
            assert held <= WINDOW_BYTES
        assert resident_bytes() - before < 30 * MIB
        await asyncio.sleep(20)
        assert not channel.is_open
        assert not b.channels[0].is_open
        await a.endpoint.close()
        await b.endpoint.close()

    run_virtual(main())


def initial(chance: random.Random, token: bytes = b"") -> bytes:
    """The form of an Initial around garbage."""
    version = chance.choice([1, 1, 1, QuicProtocolVersion.VERSION_2, 0, 0x1A2A3A4A, chance.randrange(2**32)])
    head = bytes([chance.choice([0xC0, 0xC3, 0xD0, 0xE0, 0xF0, 0x40, 0x00, chance.randrange(256)])]) + version.to_bytes(4, "big")
    ids = b"".join(bytes([length]) + chance.randbytes(length) for length in (chance.randrange(21), chance.randrange(21)))
    rest = bytes([0x40 | len(token) >> 8, len(token) & 255]) + token + (0x4000 | 1100).to_bytes(2, "big") + chance.randbytes(1100)
    return (head + ids + rest + bytes(1200))[: chance.choice([1200, 1200, 1232, 1199, 40, 7, 1])]


def test_garbage_is_answered_by_less_than_it_costs() -> None:
    async def main(under: Attack) -> None:
        chance = random.Random(SEED)
        for number in range(50 * FUZZ):
            source = (f"10.9.{number >> 8 & 255}.{number & 255}", 5000 + number % 1000)
            under.inject(initial(chance), source)
            if number % 100 == 0:
                await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        assert under.victim.endpoint.gate.retries > FUZZ
        assert under.victim.endpoint.gate.accepted == 0
        worst = max(under.replied[source] / under.sent[source] for source in under.replied)
        print(f"largest reply: {worst:.2f} of what was received")
        assert worst < 1

    attack(main)


def test_a_token_serves_its_own_address_and_time() -> None:
    async def main(under: Attack) -> None:
        caught: list[bytes] = []
        inner = under.network.tap
        assert inner is not None

        def tap(data: bytes, source: UdpAddress, destination: UdpAddress) -> list[bytes]:
            if destination == VICTIM and source[0] == "10.0.0.1":
                caught.append(data)
            return list(inner(data, source, destination))

        under.network.tap = tap
        caller = Evil(under.network, ("10.0.0.1", 777))
        under.callers[caller._address] = caller
        caller.connect(VICTIM, now=asyncio.get_running_loop().time())
        caller.flush()
        await asyncio.sleep(0.1)
        under.drop(caller)
        seen = list(caught)
        assert under.victim.endpoint.gate.accepted == 1
        for data in seen:
            under.inject(data, ("10.0.0.2", 777))
        await asyncio.sleep(40)
        for data in seen:
            under.inject(data, ("10.0.0.1", 777))
        await asyncio.sleep(1)
        assert under.victim.endpoint.gate.accepted == 1

    attack(main)


def fuzz_frame(chance: random.Random) -> tuple[int, bytes]:
    kind = chance.choice([*range(0x20), 0x30, 0x31, chance.randrange(64)])
    values = [chance.choice([0, 1, 2, 4, 8, 100, 8191, 8192, 2**20, 2**62 - 1, chance.randrange(2**62)]) for _ in range(6)]
    body = b"".join((value | 0xC000000000000000).to_bytes(8, "big") for value in values[: chance.randrange(7)])
    return kind, body + chance.randbytes(chance.choice([0, 1, 30, 300]))


def test_fuzzed_frames_before_m4_end_only_their_own_connection() -> None:
    async def main(under: Attack) -> None:
        chance = random.Random(SEED)
        gc.collect()
        before = resident_bytes()
        frames = 0
        for number in range(FUZZ):
            caller = await under.connect(number)
            for _ in range(25):
                if chance.random() < 0.5:
                    caller.frame_at(
                        chance.choice([0, 0, 0, 1, 2, 3, 4, 400]),
                        chance.choice([0, 1, 4, 100, 8191, 8192, 2**40]),
                        chance.randbytes(chance.choice([0, 1, 4, 400])),
                    )
                else:
                    caller.junk.append(fuzz_frame(chance))
                frames += 1
                caller.flush()
                if chance.random() < 0.2:
                    await asyncio.sleep(0.003)
            await asyncio.sleep(0.005)
            under.drop(caller)
        await asyncio.sleep(15)
        gc.collect()
        grown = resident_bytes() - before
        print(f"{frames} frames over {FUZZ} connections, {grown / MIB:.1f} MiB more resident")
        assert grown < 50 * MIB
        assert not under.victim.admitted

    attack(main)


def test_datagrams_for_lanes_are_not_quic(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(under: Attack) -> None:
        chance = random.Random(SEED)
        heard: list[Datagrams] = []
        host: SimulatedHost = under.network.hosts[0]
        endpoint = under.victim.endpoint
        monkeypatch.setattr(endpoint, "_new_link", lambda data, address: heard.append([(data, address)]))
        for _ in range(500):
            data = bytes([chance.randrange(256) & ~0x40]) + chance.randbytes(1300)
            host.ports[VICTIM[1]].deliver(data, ("10.0.0.9", 9))
        host.ports[VICTIM[1]].deliver(b"", ("10.0.0.9", 9))
        assert heard == []

    attack(main)
