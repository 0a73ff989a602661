"""One TCP flow of the kernel, to share a bottleneck with: `python -m tests.bench.flow sink HOST PORT` and `source HOST PORT S`.

The sink prints how many bytes came in; the source sends zeros for S seconds. The congestion control is the host's.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time

PORT = 5201
_BLOCK = bytes(1 << 18)


def sink(host: str, port: int) -> int:
    """Bytes of one connection, until it ends or is cut."""
    with socket.create_server((host, port)) as server:
        connection, _ = server.accept()
        total, buffer = 0, bytearray(len(_BLOCK))
        with contextlib.suppress(ConnectionResetError):
            while count := connection.recv_into(buffer):
                total += count
    return total


def source(host: str, port: int, seconds: float) -> None:
    """Send for ``seconds``, then cut the connection: what waits in the send buffer is not part of the measurement."""
    with socket.create_connection((host, port)) as connection:
        connection.settimeout(seconds)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            connection.send(_BLOCK)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


if __name__ == "__main__":
    if sys.argv[1] == "sink":
        print(sink(sys.argv[2], int(sys.argv[3])), flush=True)
    else:
        source(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
