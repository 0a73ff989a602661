"""Two endpoints on loopback, in one process: the shortest way to use ``net``."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from labxchange.errors import InputError, RefusedError, UnavailableError
from labxchange.identity.invitation import Invitation, invitation_proof
from labxchange.net.channel import UNACKNOWLEDGED_MAX_BYTES, Channel, Stream
from labxchange.net.network import Closed
from labxchange.net.sockets import SocketNetwork
from tests.unit.net.nodes import Node


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main

    asyncio.run(bounded())


class Pair:
    """A node that dials and one that listens."""

    async def __aenter__(self) -> Pair:
        self.a, self.b = Node(1, SocketNetwork()), Node(2, SocketNetwork())
        self.address = f"127.0.0.1:{await self.b.endpoint.listen('127.0.0.1', 0)}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.a.endpoint.close()
        await self.b.endpoint.close()

    async def dial(self) -> Channel:
        return await self.a.endpoint.dial(self.address, self.b.key)


def test_messages_go_both_ways_and_streams_end() -> None:
    async def main() -> None:
        async with Pair() as pair:
            channel = await pair.dial()
            assert (channel.peer_key, channel.dialled, channel.card.body.name) == (pair.b.key, True, "Party 2")
            stream = await channel.open()
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"
            await stream.send(b"x" * 1_000_000, end=True)
            assert await stream.receive() == b"1000005"
            assert await stream.receive() is None

            other = pair.b.channels[0]
            assert (other.th2, other.k_lane, other.peer_key) == (channel.th2, channel.k_lane, pair.a.key)
            channel.serve(pair.a.answer)
            async with await other.open() as back:
                await back.send(b"", end=True)
                assert [await back.receive(), await back.receive(), await back.receive()] == [b"", b"0", None]

            channel.close("stop-it")
            assert await channel.closed() == Closed("stop-it", "us")
            assert await other.closed() == Closed("stop-it", "peer")
            with pytest.raises(RefusedError, match="stop-it"):
                await other.open()

    run(main())


def test_a_message_for_which_there_is_never_room_is_refused_and_does_not_wait() -> None:
    async def main() -> None:
        async with Pair() as pair:
            channel = await pair.dial()
            stream = await channel.open()
            async with asyncio.timeout(10):
                with pytest.raises(ValueError, match="longer than"):
                    await stream.send(bytes(UNACKNOWLEDGED_MAX_BYTES))
            stream.reset()
            async with await channel.open() as next_one:
                await next_one.send(b"hello", end=True)
                assert await next_one.receive() == b"hello"

    run(main())


def test_many_streams_and_rekey() -> None:
    async def main() -> None:
        async with Pair() as pair:
            channel = await pair.dial()

            async def one(number: int) -> None:
                async with await channel.open() as stream:
                    for _ in range(2):
                        await stream.send(bytes([number]) * 150_000)
                    stream.end()
                    assert await stream.receive() == b"300000"
                    assert await stream.receive() is None

            before = channel.k_lane
            await asyncio.gather(*(one(number) for number in range(50)))
            assert await channel.rekey() != before
            assert channel.k_lane == pair.b.channels[0].k_lane
            assert (channel.generation, pair.b.channels[0].generation) == (1, 1)

    run(main())


def test_a_reset_stream_leaves_the_channel_usable() -> None:
    async def main() -> None:
        async with Pair() as pair:
            channel = await pair.dial()
            for _ in range(20):
                stream = await channel.open()
                await stream.send(b"x" * 500_000)
                stream.reset()
                with pytest.raises(RefusedError, match="nothing more"):
                    await stream.send(b"y")

            async def refuse(stream: Stream) -> None:
                await stream.receive()
                stream.reset()

            pair.b.channels[0].serve(refuse)
            stream = await channel.open()
            await stream.send(b"x")
            with pytest.raises(UnavailableError) as caught:
                await stream.receive()
            pair.b.channels[0].serve(pair.b.answer)
            async with await channel.open() as last:
                await last.send(b"y" * 2000, end=True)
                assert await last.receive() == b"2000"
            assert caught.value.code == "stream-reset"

    run(main())


def test_refusals_and_wrong_doors() -> None:
    async def main() -> None:
        async with Pair() as pair:
            pair.b.refusal = "contact-blocked"
            with pytest.raises(RefusedError) as refused:
                await pair.dial()
            assert refused.value.code == "contact-blocked"
            assert pair.b.channels == []
            with pytest.raises(UnavailableError) as other:
                await pair.a.endpoint.dial(pair.address, b"\x01" * 32)
            assert other.value.code == "peer-closed"
            with pytest.raises(UnavailableError) as nobody:
                await pair.a.endpoint.dial("127.0.0.1:9", pair.b.key, timeout_s=0.3)
            assert nobody.value.code == "peer-unreachable"
            with pytest.raises(InputError) as own:
                await pair.a.endpoint.dial(pair.address, pair.a.key)
            assert own.value.code == "own-key"
            for malformed in ("", "host", "host:0", "host:70000", ":1", "::1:5", "host:x"):
                with pytest.raises(InputError):
                    await pair.a.endpoint.dial(malformed, pair.b.key)
            with pytest.raises(UnavailableError) as name:
                await pair.a.endpoint.dial("no-such-host.invalid:4433", pair.b.key)
            assert name.value.code == "unknown-host"
            assert await pair.a.endpoint.probe(pair.address) == "retry"
            assert await pair.a.endpoint.probe("127.0.0.1:9", timeout_s=0.1) == "nothing"
            assert pair.b.endpoint.gate.accepted == 2

    run(main())


def test_an_invitation_is_proved_in_the_handshake() -> None:
    async def main() -> None:
        async with Pair() as pair:
            invitation = Invitation(inviter=pair.b.key, addresses=[pair.address], id=b"i" * 16, secret=b"s" * 16, expires=0)
            await pair.a.endpoint.dial(pair.address, pair.b.key, invitation=invitation)
            key, invitation_id, proof, th1 = pair.b.admitted[0]
            assert (key, invitation_id) == (pair.a.key, b"i" * 16)
            assert proof == invitation_proof(b"s" * 16, th1=th1, card=pair.a.card())

    run(main())


def test_ports_in_use_are_named() -> None:
    async def main() -> None:
        async with Pair() as pair:
            with pytest.raises(UnavailableError) as caught:
                await pair.a.endpoint.listen("127.0.0.1", int(pair.address.rpartition(":")[2]))
            assert caught.value.code == "port-unavailable"
            third = Node(3, SocketNetwork())
            assert await third.endpoint.listen("", 0) > 0
            await third.endpoint.close()

    run(main())
