"""What no transfer of this kind can do without, and nothing else: the floor under our own figures on a path without a limit.

``python -m tests.bench.primitives send|receive ADDRESS FILE BYTES MTU FOLDER [known]``: the file is read, hashed twice unless
its digests are ``known``, sealed by the datagram and handed over joined; received joined, opened by the datagram, hashed
twice and written. No lane, no report, no loss recovery, no journal, no second look at anything, and one nonce for all: it moves a
file between two hosts that lose nothing, and is fit for nothing else. As much is under way as the receiver's buffer holds.

Both processes are ready before the clock starts: FOLDER has the pipes ``go`` and ``done``, which the sender makes, and in
``receiving`` the bytes that may be under way. Who waits for ten seconds gives up.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from collections import deque
from hashlib import sha256
from pathlib import Path
from queue import Queue, SimpleQueue

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from labxchange.wire.data.datagram import CALL_BYTES, CALL_DATAGRAMS, HEADER_BYTES, NONCE_BYTES, OVERHEAD_BYTES

PORT = 9002
_BUFFER_BYTES = 8 << 20
_UNDER_WAY = 3 / 8
"""Of the buffer that the receiver got, which also holds what the kernel needs for it."""
_PATIENCE_S = 10.0
_BUFFERS = 24
_CALLS = 16
"""System calls that fill a buffer."""
_UDP_SEGMENT, _UDP_GRO = 103, 104
_COUNT = struct.Struct(">Q")
_SWITCH_S = 0.0005


class _Cut:
    """How a file is cut for an MTU, and the pieces of a call: headers, bodies, nonces."""

    def __init__(self, mtu: int) -> None:
        self.size = mtu - 28
        self.room = self.size - OVERHEAD_BYTES
        self.count = min(CALL_DATAGRAMS, CALL_BYTES // self.size)
        self.call = self.count * self.room
        """Bytes of the file in a call."""
        self.row = memoryview(bytearray(1 << 16))
        self.heads = [self.row[at : at + HEADER_BYTES] for at in range(0, self.count * self.size, self.size)]
        self.bodies = [self.row[at + HEADER_BYTES : at + self.size] for at in range(0, self.count * self.size, self.size)]
        self.nonces = [memoryview(bytes(NONCE_BYTES))] * self.count
        self.aead = AESGCM(bytes(32))
        self._pieces: dict[int, list[memoryview]] = {}

    def buffer(self) -> memoryview:
        return memoryview(bytearray(self.call * _CALLS))

    def pieces(self, buffer: memoryview) -> list[memoryview]:
        """A buffer, cut once into what a datagram holds."""
        if id(buffer) not in self._pieces:
            self._pieces[id(buffer)] = [buffer[at : at + self.room] for at in range(0, len(buffer), self.room)]
        return self._pieces[id(buffer)]


def send(address: str, path: str, total: int, cut: _Cut, folder: Path, *, known: bool) -> None:
    """Read, hash, seal, send."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(_PATIENCE_S)
    sock.connect((address, PORT))
    for name in ("go", "done"):
        os.mkfifo(folder / name)
    (folder / "sending").touch()
    (folder / "go").read_text()
    window = int((folder / "receiving").read_text())
    read, free = Queue[tuple[memoryview, int] | None](_BUFFERS // 4), SimpleQueue[memoryview]()
    for _ in range(_BUFFERS // 2):
        free.put(cut.buffer())

    def reading() -> None:
        file, position, record = os.open(path, os.O_RDONLY), 0, sha256()
        while position < total:
            buffer = free.get()
            count = os.preadv(file, [buffer], position)
            if not known:
                record.update(buffer[:count])
                blake3(buffer[:count]).digest()
            position += count
            read.put((buffer, count))
        read.put(None)

    threading.Thread(target=reading, daemon=True).start()
    control = [(socket.SOL_UDP, _UDP_SEGMENT, cut.size.to_bytes(2, sys.byteorder))]
    sent = arrived = 0
    while (item := read.get()) is not None:
        buffer, length = item
        for start in range(0, length, cut.call):
            part = min(cut.call, length - start)
            whole, rest = divmod(part, cut.room)
            first = start // cut.room
            pieces = cut.pieces(buffer)[first : first + whole]
            deque(map(cut.aead.encrypt_into, cut.nonces, pieces, cut.heads, cut.bodies), maxlen=0)
            end = whole * cut.size
            if rest:
                body = buffer[start + whole * cut.room : start + part]
                at, end = end + HEADER_BYTES, end + OVERHEAD_BYTES + rest
                cut.aead.encrypt_into(cut.nonces[0], body, cut.heads[whole], cut.row[at:end])
            sock.sendmsg((cut.row[:end],), control)
            sent += part
            while sent - arrived > window:
                arrived = _COUNT.unpack(sock.recv(_COUNT.size))[0]
        free.put(buffer)
    while arrived < total:
        arrived = _COUNT.unpack(sock.recv(_COUNT.size))[0]
    (folder / "done").write_text("done")


def receive(address: str, path: str, total: int, cut: _Cut, folder: Path) -> None:
    """Receive, open, hash, write."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, PORT))
    sock.setsockopt(socket.SOL_UDP, _UDP_GRO, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    window = int(_UNDER_WAY * sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
    free, full = SimpleQueue[memoryview](), SimpleQueue[tuple[memoryview, int] | None]()
    for _ in range(_BUFFERS):
        free.put(cut.buffer())

    def writing() -> None:
        file, position, record = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), 0, sha256()
        while (item := full.get()) is not None:
            buffer, length = item
            os.pwrite(file, buffer[:length], position)
            blake3(buffer[:length]).digest()
            record.update(buffer[:length])
            position += length
            free.put(buffer)

    writer = threading.Thread(target=writing)
    writer.start()
    (folder / "making").write_text(str(window))
    (folder / "making").rename(folder / "receiving")
    buffer, filled, arrived, told = free.get(), 0, 0, 0
    while arrived < total:
        length, _, _, source = sock.recvmsg_into((cut.row,), 64)
        whole, rest = divmod(length, cut.size)
        if filled % cut.room or filled + cut.call > len(buffer):
            full.put((buffer, filled))
            buffer, filled = free.get(), 0
        first = filled // cut.room
        pieces = cut.pieces(buffer)[first : first + whole]
        deque(map(cut.aead.decrypt_into, cut.nonces, cut.bodies, cut.heads, pieces), maxlen=0)
        came = whole * cut.room
        if rest:
            begin = whole * cut.size + HEADER_BYTES
            more = length - whole * cut.size - OVERHEAD_BYTES
            place = buffer[filled + came : filled + came + more]
            cut.aead.decrypt_into(cut.nonces[0], cut.row[begin:length], cut.heads[whole], place)
            came += more
        filled, arrived = filled + came, arrived + came
        if arrived - told >= window // 8 and arrived < total:
            told = arrived
            sock.sendto(_COUNT.pack(told), source)
    full.put((buffer, filled))
    full.put(None)
    writer.join()
    sock.sendto(_COUNT.pack(total), source)


def main(words: list[str]) -> None:
    side, address, path, total, mtu, folder, *rest = words
    sys.setswitchinterval(_SWITCH_S)
    cut = _Cut(int(mtu))
    if side == "send":
        send(address, path, int(total), cut, Path(folder), known="known" in rest)
    else:
        receive(address, path, int(total), cut, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
