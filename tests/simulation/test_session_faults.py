"""Whole sessions on the simulated network: loss, damage, duplicates, cuts, sleep and address changes, on a virtual clock.

Each case prints its seed. ``LABXCHANGE_SEEDS`` sets how many seeds the random cases run.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from labxchange.errors import UnavailableError
from labxchange.net.channel import UNACKNOWLEDGED_MAX_BYTES, Channel, Stream
from labxchange.net.link import SILENCE_MAX_S
from labxchange.net.quic import WINDOW_BYTES
from labxchange.net.simulated import SimulatedHost, SimulatedNetwork, run_virtual
from tests.unit.net.nodes import Node

SEEDS = int(os.environ.get("LABXCHANGE_SEEDS", "12"))
PORT = 4433


class World:
    """A node at 10.0.0.1 that dials and one at 10.0.0.2 that listens."""

    def __init__(self, **settings: Any) -> None:
        self.network = SimulatedNetwork(**settings)
        self.host_a = self.network.host("10.0.0.1", name="a.example")
        self.host_b = self.network.host("10.0.0.2", name="b.example")
        self.a, self.b = Node(1, self.host_a), Node(2, self.host_b)

    async def __aenter__(self) -> World:
        await self.b.endpoint.listen("", PORT)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.a.endpoint.close()
        await self.b.endpoint.close()

    async def dial(self, timeout_s: float = 30.0) -> Channel:
        return await self.a.endpoint.dial(f"b.example:{PORT}", self.b.key, timeout_s=timeout_s)


def simulate(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(3600):
            await main

    run_virtual(bounded())


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_messages_arrive_whole_and_in_order_whatever_the_network_does(seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    settings = {
        "delay_s": chance.choice([0.001, 0.02, 0.15]),
        "jitter_s": chance.choice([0.0, 0.02]),
        "loss": chance.choice([0.0, 0.01, 0.05]),
        "duplicate": chance.choice([0.0, 0.05]),
        "corrupt": chance.choice([0.0, 0.02]),
    }

    async def main() -> None:
        async with World(seed=seed, **settings) as world:
            channel = await world.dial()

            async def one(number: int) -> None:
                messages = [os.urandom(chance.choice([0, 1, 99, 5_000, 70_000])) for _ in range(6)]
                async with await channel.open() as stream:
                    for message in messages:
                        await stream.send(message)
                    stream.end()
                    heard = []
                    while (answer := await stream.receive()) is not None:
                        heard.append(answer)
                assert heard == [m for m in messages if len(m) < 100] + [str(sum(map(len, messages))).encode()]

            await asyncio.gather(*(one(number) for number in range(3)))
            assert world.a.endpoint.gate.faults == world.b.endpoint.gate.faults == 0

    simulate(main())


def test_ten_seconds_of_silence_are_survived() -> None:
    async def main() -> None:
        async with World(seed=1) as world:
            channel = await world.dial()
            stream = await channel.open()
            await stream.send(b"before")
            assert await stream.receive() == b"before"
            world.network.partition(world.host_a, world.host_b)
            await stream.send(b"during")
            await asyncio.sleep(10)
            world.network.heal(world.host_a, world.host_b)
            healed_at = now()
            assert await stream.receive() == b"during"
            assert now() - healed_at < 3

    simulate(main())


@pytest.mark.parametrize("who", ["a", "b"])
def test_a_peer_that_sleeps_is_noticed_in_fifteen_seconds(who: str) -> None:
    async def main() -> None:
        async with World(seed=2) as world:
            channel = await world.dial()
            await asyncio.sleep(60)
            assert channel.is_open
            host: SimulatedHost = getattr(world, f"host_{who}")
            host.asleep = True
            slept_at = now()
            awake = channel if who == "b" else world.b.channels[0]
            assert (await awake.closed()).code == "connection-lost"
            assert now() - slept_at <= SILENCE_MAX_S + 0.1
            host.asleep = False
            again = await world.dial()
            async with await again.open() as stream:
                await stream.send(b"back", end=True)
                assert await stream.receive() == b"back"

    simulate(main())


def test_an_idle_channel_stays_open_for_an_hour() -> None:
    async def main() -> None:
        async with World(seed=3, loss=0.01) as world:
            channel = await world.dial()
            for _ in range(24):
                await asyncio.sleep(3599 / 24)
                assert channel.is_open

    simulate(main())


@pytest.mark.parametrize("pause_s", [0.0, 5.0, 60.0])
def test_a_list_of_many_files_takes_as_few_round_trips_after_a_pause(pause_s: float) -> None:
    async def main() -> None:
        async def answer(stream: Stream) -> None:
            await stream.receive()
            await stream.send(bytes(100_000), end=True)

        async with World(seed=5, delay_s=0.05) as world:
            channel = await world.dial()
            world.b.channels[0].serve(answer)
            await asyncio.sleep(pause_s)
            asked_at = now()
            async with await channel.open() as stream:
                await stream.send(b"list", end=True)
                assert len(await stream.receive() or b"") == 100_000
            assert now() - asked_at < 0.2  # a round trip, and what 100 kB take at the rate that a lane begins with

    simulate(main())


def test_the_dialler_may_change_its_address() -> None:
    async def main() -> None:
        async with World(seed=4) as world:
            channel = await world.dial()
            stream = await channel.open()
            for number, address in enumerate(("10.0.0.7", "10.0.0.8", "10.0.0.1")):
                world.network.move(world.host_a, address)
                await stream.send(b"%d" % number)
                assert await stream.receive() == b"%d" % number
                await asyncio.sleep(1)
                assert world.b.channels[0].remote_address[0] == address
            assert world.b.channels[0].stats.address_changes == 3

    simulate(main())


def test_a_receiver_that_does_not_read_stops_the_sender() -> None:
    async def main() -> None:
        async with World(seed=8, delay_s=0.001) as world:
            go = asyncio.Event()

            async def slow(stream: Stream) -> None:
                await go.wait()
                await Node.answer(world.b, stream)

            world.b.answer = slow  # type: ignore[method-assign]
            channel = await world.dial()
            stream = await channel.open()
            sent = 0

            async def pour() -> None:
                nonlocal sent
                for _ in range(160):
                    await stream.send(b"x" * 65_536)
                    sent += 65_536
                stream.end()

            task = asyncio.create_task(pour())
            while True:
                before = sent
                await asyncio.sleep(2)
                if sent == before:
                    break
            assert not task.done()
            assert sent <= UNACKNOWLEDGED_MAX_BYTES + WINDOW_BYTES
            control = await channel.open()
            await control.send(b"ping")
            go.set()
            assert await control.receive() == b"ping"
            await task
            assert await stream.receive() == str(160 * 65_536).encode()

    simulate(main())


def test_strangers_are_named_to_the_node() -> None:
    async def main() -> None:
        async with World(seed=9) as world:
            with pytest.raises(UnavailableError) as caught:
                await world.a.endpoint.dial(f"b.example:{PORT}", Node(3, world.host_a).key)
            assert caught.value.code == "peer-closed"
            await asyncio.sleep(5)
            assert world.b.strangers == [(("10.0.0.1", 49152), "wrong-tag")]

    simulate(main())


def test_a_loss_during_the_handshake_is_repaired_or_named() -> None:
    async def main() -> None:
        async with World(seed=5, loss=1.0) as world:
            with pytest.raises(UnavailableError) as nothing:
                await world.dial(timeout_s=5)
            assert nothing.value.code == "peer-unreachable"

            def only_retry(data: bytes, source: Any, destination: Any) -> list[bytes]:
                return [data] if source[1] != PORT or data[0] & 0xF0 == 0xF0 else []

            world.network.loss = 0.0
            world.network.tap = only_retry
            with pytest.raises(UnavailableError) as silent:
                await world.dial(timeout_s=5)
            assert silent.value.code == "peer-silent"
            world.network.tap = None
            await asyncio.sleep(11)
            assert [reason for _, reason in world.b.strangers] == ["gave-up"]
            world.network.loss = 0.25
            assert (await world.dial()).is_open

    simulate(main())


def test_half_open_connections_are_bounded_and_forgotten() -> None:
    async def main() -> None:
        async with World(seed=6) as world:

            def swallow(data: bytes, source: Any, destination: Any) -> list[bytes]:
                # The client never hears more than the Retry, so each call stays half open.
                return [data] if source[1] != PORT or data[0] & 0xF0 == 0xF0 else []

            world.network.tap = swallow
            calls = [asyncio.ensure_future(world.dial(timeout_s=9)) for _ in range(20)]
            await asyncio.sleep(2)
            assert len(world.b.endpoint._half_open) == 8
            await asyncio.gather(*calls, return_exceptions=True)
            await asyncio.sleep(11)
            assert not world.b.endpoint._half_open
            assert not world.b.endpoint._sources
            assert not world.b.endpoint._links
            world.network.tap = None
            assert (await world.dial()).is_open

    simulate(main())


@pytest.mark.parametrize("seed", range(SEEDS))
def test_cuts_at_any_time_end_in_an_answer_or_an_error(seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def main() -> None:
        async with World(seed=seed, delay_s=0.03) as world:
            loop = asyncio.get_running_loop()
            cut_at = chance.uniform(0.0, 1.5)
            loop.call_later(cut_at, world.network.partition, world.host_a, world.host_b)
            loop.call_later(cut_at + chance.choice([1, 20, 60]), world.network.heal, world.host_a, world.host_b)
            try:
                channel = await world.dial()
                async with await channel.open() as stream:
                    await stream.send(b"x" * 400_000, end=True)
                    assert await stream.receive() == b"400000"
            except UnavailableError:
                pass
            await asyncio.sleep(120)
            again = await world.dial()
            assert again.is_open

    simulate(main())


def test_the_same_seed_gives_the_same_run() -> None:
    def trace(seed: int) -> list[tuple[float, str, int]]:
        carried: list[tuple[float, str, int]] = []

        async def main() -> None:
            async with World(seed=seed, loss=0.1, jitter_s=0.01) as world:

                def tap(data: bytes, source: Any, destination: Any) -> list[bytes]:
                    carried.append((now(), source[0], len(data)))
                    return [data]

                world.network.tap = tap
                async with await (await world.dial()).open() as stream:
                    await stream.send(b"x" * 50_000, end=True)
                    await stream.receive()

        simulate(main())
        return carried

    assert trace(11) == trace(11)
    assert trace(11) != trace(12)


def test_a_simulation_that_waits_for_nothing_says_so() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="never happen"):
        run_virtual(main())


def test_threads_run_inline() -> None:
    async def main() -> None:
        assert await asyncio.to_thread(lambda: 5) == 5
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)

    run_virtual(main())
