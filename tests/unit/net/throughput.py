"""Sealed messages of 64 KiB over loopback between two processes: prints Mbit/s and CPU seconds of both sides.

PYTHONPATH=src:. python tests/unit/net/throughput.py [messages]
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection

from labxchange.net.sockets import SocketNetwork
from tests.unit.net.nodes import Node

MESSAGE_BYTES = 65_536


def listen(pipe: Connection) -> None:
    async def main() -> None:
        node = Node(2, SocketNetwork())
        pipe.send(await node.endpoint.listen("127.0.0.1", 0))
        await asyncio.to_thread(pipe.recv)
        await node.endpoint.close()
        pipe.send(time.process_time() - begun_at)

    begun_at = time.process_time()
    asyncio.run(main())


async def send(port: int, count: int) -> None:
    node = Node(1, SocketNetwork())
    channel = await node.endpoint.dial(f"127.0.0.1:{port}", Node(2, SocketNetwork()).key)
    started_at, cpu_at = time.perf_counter(), time.process_time()
    async with await channel.open() as stream:
        for _ in range(count):
            await stream.send(bytes(MESSAGE_BYTES))
        stream.end()
        assert await stream.receive() == str(count * MESSAGE_BYTES).encode()
    elapsed_s = time.perf_counter() - started_at
    rate = count * MESSAGE_BYTES * 8 / elapsed_s / 1e6
    print(f"{count} messages, {elapsed_s:.2f} s, {rate:.0f} Mbit/s, sender's CPU {time.process_time() - cpu_at:.2f} s")
    await node.endpoint.close()


if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=listen, args=(theirs,))
    process.start()
    asyncio.run(send(ours.recv(), int(sys.argv[1]) if len(sys.argv) > 1 else 1600))
    ours.send("stop")
    print(f"receiver's CPU {ours.recv():.2f} s")
    process.join()
