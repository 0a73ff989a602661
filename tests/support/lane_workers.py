"""Two lane workers, real processes, that move a folder over loopback; the test plays both nodes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from labxchange.dataset.listing import Line, encode_files
from labxchange.files.scan import scan
from labxchange.net.network import Slot
from labxchange.net.port_group import close_group, open_group
from labxchange.transfer.lanes import messages
from labxchange.transfer.lanes.process import Worker
from labxchange.wire.data.datagram import Writer, lane_secret
from tests.support.lanes import K_LANE

JOB = 1


class Move:
    """One transfer by lane: ``news`` is what both workers told, ``came`` the chunks that are written."""

    def __init__(self, source: Path, destination: Path, *, lane: bytes = b"lane-x", cap_bytes_s: float = 0.0) -> None:
        found = scan([source])
        self.files, self.sources = found.files, found.sources
        self.line = Line(found.files)
        self.lane = lane
        self.destination = destination
        self.cap_bytes_s = cap_bytes_s
        self.sender, self.receiver = Worker(1), Worker(1)
        self.news: list[messages.News] = []
        self.came: dict[int, messages.Came] = {}
        self.slots: tuple[Slot, ...] = ()
        self.port = 0
        """Where the dialling side calls; the listener's, unless something is to stand between."""
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Move:
        self.slots = open_group("127.0.0.1", 0, workers=1)
        self.port = self.slots[1].port
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sender.close()
        self.receiver.close()
        close_group(self.slots)

    def open(self, *, sender_dials: bool) -> None:
        """Start both and open the lane."""
        listener = self.receiver if sender_dials else self.sender
        listener.listen = self.slots[1]
        for worker in (self.sender, self.receiver):
            worker.jobs[JOB] = worker.lanes[self.lane] = self._told
        sizes = self.line.size.tobytes()
        self.receiver.order(messages.ReceiveJob(job=JOB))
        self.receiver.order(messages.Contents(job=JOB, transfer="moved", destination=os.fsencode(self.destination), sizes=sizes))
        listing = encode_files(self.files)
        self.sender.order(messages.SendJob(job=JOB, sources=msgspec.msgpack.encode(self.sources), listing=listing))
        self._open(self.receiver, dials=not sender_dials)
        self._open(self.sender, dials=sender_dials)

    def _open(self, worker: Worker, *, dials: bool) -> None:
        ours: Writer = "I" if dials else "R"
        theirs: Writer = "R" if dials else "I"
        worker.order(
            messages.OpenLane(
                job=JOB,
                lane=self.lane,
                write=lane_secret(K_LANE, self.lane, ours),
                read=lane_secret(K_LANE, self.lane, theirs),
                cipher="aes-256-gcm",
                host="127.0.0.1",
                slot=1 if dials else 0,
                remote=("127.0.0.1", self.port) if dials else None,
                cap_bytes_s=self.cap_bytes_s,
            )
        )

    def ask(self, first: int, last: int, *, request: int = 1) -> None:
        """Both are told what is to be sent and expected."""
        for worker in (self.receiver, self.sender):
            worker.order(messages.Ask(lane=self.lane, request=request, ranges=[(first, last)]))

    def _told(self, news: messages.News) -> None:
        self.news.append(news)
        if isinstance(news, messages.Chunks):
            self.came.update({came.chunk: came for came in news.chunks})
        self._changed.set()

    def of(self, kind: type[Any]) -> list[Any]:
        return [item for item in self.news if isinstance(item, kind)]

    async def until(self, condition: Callable[[], bool], within_s: float = 30.0) -> None:
        """Wait until the news make it true."""
        async with asyncio.timeout(within_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def part(self, file: int) -> bytes:
        """What is written of a file."""
        place = self.destination / ".labxchange-moved" / f"{file}.part"
        return place.read_bytes()

    def digest_of(self, chunk: int, source: Path) -> bytes:
        place = self.line.chunk_at(chunk)
        with open(source / self.files[place.file].path, "rb") as file:
            file.seek(place.file_offset)
            return blake3(file.read(place.length)).digest()
