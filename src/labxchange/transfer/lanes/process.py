"""The lane workers of a node: their processes, and the messages to and from them.

A worker is started with exec, never forked, when a lane first needs it, and inherits its socket of the node's one port; one that
ended is started anew for the next lane, and what it did is told as over. Keys reach it through the pair of sockets made here.
Which lanes are opened, and what comes of what they bring, is left to ``lanes``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from weakref import WeakKeyDictionary

from labxchange.net.network import Slot
from labxchange.settings import NUMPY_ENVIRONMENT
from labxchange.transfer.lanes import messages

log = logging.getLogger("labxchange")
WORKERS_MAX = 4
LANES_A_SESSION = 1 << 14
_READ_BYTES = 1 << 20

OnNews = Callable[[messages.News], None]


def worker_count() -> int:
    """How many workers a node has here."""
    return max(1, min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, WORKERS_MAX))


class Worker:
    """One worker process, seen from the node; started by the first order.

    Args:
        number: from 1; also its slot of the listening port.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.listen: Slot | None = None
        self.offset = 0
        self.jobs: dict[int, OnNews] = {}
        self.lanes: dict[bytes, OnNews] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._inbox = messages.Inbox()
        self._outgoing = bytearray()

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def order(self, order: messages.Order) -> None:
        """Tell the worker; orders are obeyed one after the other."""
        if self._control is None:
            self._start()
        self._outgoing += messages.encode(order)
        self._write()

    def close(self) -> None:
        """The worker ends when it sees its control socket closed."""
        self._disconnect()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2.0)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        handed = [theirs.fileno()] + ([self.listen.socket.fileno()] if self.listen is not None else [])
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "labxchange.transfer.lanes.worker", *map(str, handed)],
                stdin=subprocess.DEVNULL,
                cwd="/",
                env=NUMPY_ENVIRONMENT | os.environ,
                pass_fds=handed,
            )
        self._control = ours
        self._inbox = messages.Inbox()
        asyncio.get_running_loop().add_reader(ours.fileno(), self._read)

    def _read(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended()
            return
        for message in self._inbox.add(data):
            news = messages.decode_news(message)
            tell = self.jobs.get(news.job) if hasattr(news, "job") else self.lanes.get(news.lane)
            if tell is not None:
                tell(news)

    def _write(self) -> None:
        if self._control is None:
            return
        loop = asyncio.get_running_loop()
        try:
            while self._outgoing:
                count = self._control.send(self._outgoing)
                del self._outgoing[:count]
        except BlockingIOError:
            loop.add_writer(self._control.fileno(), self._write)
            return
        except OSError:
            self._outgoing.clear()
        loop.remove_writer(self._control.fileno())

    def _ended(self) -> None:
        """It died: everything it did is over, and everybody hears so."""
        self._disconnect()
        if self._process is not None:
            self._process.kill()  # it closed its control socket: what is left of it does nothing
            log.warning("lane worker %d ended (exit code %s)", self.number, self._process.wait())
            self._process = None
        lanes, self.lanes = self.lanes, {}
        jobs, self.jobs = self.jobs, {}
        for lane, tell in lanes.items():
            tell(messages.LaneOver(lane=lane, code="worker-ended", sentence="The process that moves the data ended."))
        for job, tell in jobs.items():
            tell(messages.JobClosed(job=job))

    def _disconnect(self) -> None:
        if self._control is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._control.fileno())
            loop.remove_writer(self._control.fileno())
            self._control.close()
            self._control = None
        self._outgoing.clear()


class Workers:
    """All workers of a node."""

    def __init__(self, count: int) -> None:
        self.workers = [Worker(number) for number in range(1, count + 1)]
        self._jobs = itertools.count(1)
        self._used: WeakKeyDictionary[object, set[bytes]] = WeakKeyDictionary()

    def claim(self, session: object, lanes: Sequence[bytes]) -> bool:
        """Take lane ids for good. False, and none is taken, when one was named before in this session, whose keys it would name
        again, when one is in use at a worker, or when the session has had too many."""
        used = self._used.setdefault(session, set())
        is_fresh = len(set(lanes)) == len(lanes) and used.isdisjoint(lanes) and len(used) + len(lanes) <= LANES_A_SESSION
        if not is_fresh or any(lane in worker.lanes for worker in self.workers for lane in lanes):
            return False
        used.update(lanes)
        return True

    def warm(self) -> None:
        """Start the first worker and its writer before they are needed; a transfer over one lane then begins at once."""
        self.workers[0].order(messages.Prepare())

    def next_job(self) -> int:
        return next(self._jobs)

    def listen_on(self, slots: Mapping[int, Slot], port: int) -> None:
        """The sockets of the listening port, by slot; ``port`` is that of QUIC."""
        for worker in self.workers:
            worker.listen = slots.get(worker.number)
            worker.offset = worker.listen.port - port if worker.listen is not None else 0

    def least_busy(self, count: int) -> list[Worker]:
        """Workers for that many lanes; those with the fewest lanes first."""
        order = sorted(self.workers, key=lambda worker: (len(worker.lanes), worker.number))
        return [order[index % len(order)] for index in range(count)]

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
