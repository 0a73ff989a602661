"""A lane worker: a process that moves the bytes of many lanes, ``python -m labxchange.transfer.lanes.worker CONTROL [LISTEN]``.

It joins the pure lane machines to sockets and to disk. One loop receives, runs the machines and sends; threads read ahead, and a
process of its own, the writer, writes and hashes. It holds no key but those of its lanes, which came through the control socket
(descriptor CONTROL) and are gone with it; it writes no store, no journal and no trail: complete chunks are reported to the node
every 50 ms, and the last of what was asked for at once. LISTEN is this worker's socket of the node's one port. It ends when the
node closes the control socket, or the writer ends.
"""

from __future__ import annotations

import gc
import os
import select
import selectors
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec
import numpy as np

from labxchange.dataset.listing import Line, ListedFile
from labxchange.errors import UnavailableError
from labxchange.files.scan import Sources
from labxchange.net.lane_socket import LaneSocket, open_lane
from labxchange.settings import BULK_NICE
from labxchange.transfer.lanes import messages
from labxchange.transfer.lanes.gauge import Busy, Gauge
from labxchange.transfer.lanes.ring import Ring, Row
from labxchange.transfer.lanes.sink import LaneSink, Writer, units_of
from labxchange.transfer.lanes.slots import Slots, make_slots
from labxchange.transfer.lanes.source import LaneSource
from labxchange.wire.data.assembly import Assembly
from labxchange.wire.data.congestion.fair import Fair
from labxchange.wire.data.datagram import LaneKey, by_lane
from labxchange.wire.data.events import Address, Asked, Failed, Moved, Up, Worn
from labxchange.wire.data.lane import NEVER, Batch, Keys
from labxchange.wire.data.receiver import Receiver
from labxchange.wire.data.sender import Sender

REPORT_S: Final = 0.05
STATS_S: Final = 0.2
_BATCHES_A_TURN: Final = 16
_ROWS_A_TURN: Final = 4
_CONTROL_BYTES: Final = 1 << 20
_GATHER: Final = ((32, 0.001), (96, 0.0007))
"""A turn for each datagram costs more than the datagram: after fewer came than the first of these, the next ones may gather for
so long. The system holds two milliseconds' worth of a fast link, and knows when each came."""
_SWITCH_S: Final = 0.0005
"""Python's interpreter lock changes hands this often at least: the loop must not wait 5 ms for it."""
_LOOK_S: Final = 0.001
"""A look at what the writer says costs some microseconds; while the loop has no time to wait for it, this often is enough."""
_GARBAGE: Final = 100_000
_SIZES_IPV4: Final = (1_200, 1_472, 8_972)
_SIZES_IPV6: Final = (1_200, 1_452, 8_952)


class _Job:
    """A transfer at this worker: one of ``source`` and ``sink``."""

    def __init__(self, job: int, line: Line, slots: Slots) -> None:
        self.id = job
        self.line = line
        self.source: LaneSource | None = None
        self.sink: LaneSink | None = None
        self.slots = slots
        self.assembly = Assembly(slots.each)
        self.came: list[messages.Came] = []
        self.lanes: set[bytes] = set()


class _Lane:
    """A lane machine with its socket, of which ``drops_before`` were dropped before the lane was opened."""

    def __init__(self, job: _Job, machine: Sender | Receiver, sock: LaneSocket, *, own: bool, controller: Fair) -> None:
        self.job = job
        self.machine = machine
        self.controller = controller
        self.socket = sock
        self.drops_before = sock.drops
        self.own = own
        self.gauge = Gauge()
        self.unsent: tuple[memoryview, Batch] | None = None


class Worker:
    """The loop; see the module."""

    def __init__(self, control: socket.socket, listen: LaneSocket | None) -> None:
        self._control = control
        self._control.setblocking(False)
        self._listen = listen
        self._inbox = messages.Inbox()
        self._ordered = memoryview(bytearray(_CONTROL_BYTES))
        self._outbox = messages.Outbox(control)
        self._lanes: dict[bytes, _Lane] = {}
        self._own: dict[LaneSocket, _Lane] = {}
        self._jobs: dict[int, _Job] = {}
        self._sinks = selectors.DefaultSelector()
        self._writer = Writer(control, self._sinks)
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="read")
        self._ring = Ring()
        self._watched: list[socket.socket | Ring | int] = [control, self._ring, self._sinks.fileno()]
        self._gather_s = 0.0
        if listen is not None:
            self._ring.add(listen)
        self._report_at = self._stats_at = self._look_at = 0.0
        self._busy = Busy(time.monotonic())
        self._over = False

    # --- the loop -----------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Until the node closes the control socket."""
        while not self._over:
            self._wait()
            self._take_datagrams()
            self._take_stored()
            for lane_id in list(self._lanes):
                self._turn(lane_id, self._lanes[lane_id])
            self._tell()
        self._writer.kill()  # nobody hears what else is written, and a disk that hangs is not waited for
        os._exit(0)

    def _wait(self) -> None:
        now = time.monotonic()
        due = min((self._due(lane) for lane in self._lanes.values()), default=NEVER)
        due = min(due, self._stats_at) if self._lanes else due
        if any(job.came for job in self._jobs.values()):
            due = min(due, self._report_at)
        if due <= now:
            return
        if self._gather_s:
            time.sleep(min(due - now, self._gather_s))
        pause = min(due - time.monotonic(), 1.0)
        # select's timeout is as fine as the clock, poll's and epoll's are whole milliseconds.
        if pause > 0.0 and not self._ring.has_rows:
            ready, _, _ = select.select(self._watched, [], [], pause)
            if self._sinks.fileno() in ready:
                self._look_at = 0.0
        after = time.monotonic()
        self._busy.waited(after - now, after)

    def _due(self, lane: _Lane) -> float:
        return time.monotonic() + 0.0005 if lane.unsent is not None else lane.machine.next_timer()

    # --- from the node ------------------------------------------------------------------------------------------------
    def _take_orders(self) -> None:
        count = _CONTROL_BYTES
        while count == _CONTROL_BYTES and not self._over:
            try:
                count = self._control.recv_into(self._ordered)
            except BlockingIOError:
                return
            except OSError:
                count = 0
            self._over = not count
            for message in self._inbox.add(self._ordered[:count]):
                self._obey(messages.decode_order(message))

    def _obey(self, order: messages.Order) -> None:
        match order:
            case messages.Prepare():
                self._writer.warm()
            case messages.SendJob():
                files = [file for block in msgspec.msgpack.decode(order.listing, type=list[bytes]) for file in _files(block)]
                job = _Job(order.job, Line(files), Slots(None))
                job.source = LaneSource(msgspec.msgpack.decode(order.sources, type=Sources), files, job.line, self._readers)
                self._jobs[order.job] = job
            case messages.ReceiveJob():
                self._jobs[order.job] = _Job(order.job, Line([]), make_slots())
                self._writer.warm()
            case messages.Contents():
                self._take_contents(order)
            case messages.OpenLane():
                self._open_lane(order)
            case messages.Ask():
                self._ask(order)
            case messages.Skip():
                self._skip(order)
            case messages.Cap():
                if (lane := self._lanes.get(order.lane)) is not None:
                    lane.controller.cap_bytes_s = order.cap_bytes_s or None
            case messages.CloseLane():
                self._close_lane(order.lane)
            case messages.CloseJob():
                if (known := self._jobs.get(order.job)) is not None:
                    self._close_job(known)
                else:
                    self._outbox.say(messages.JobClosed(job=order.job))

    def _take_contents(self, order: messages.Contents) -> None:
        job = self._jobs.get(order.job)
        if job is None:
            return
        job.line = Line.of_sizes(np.frombuffer(order.sizes, np.int64))
        job.sink = LaneSink(self._writer, order, job.slots, selector=self._sinks, data=job)
        job.slots.close()

    def _open_lane(self, order: messages.OpenLane) -> None:
        job = self._jobs.get(order.job)
        if job is None:
            return
        own = order.remote is not None
        try:
            sock = open_lane(order.remote) if order.remote is not None else self._listen
        except UnavailableError as error:
            self._outbox.say(messages.LaneOver(lane=order.lane, code=error.code, sentence=error.message))
            return
        if sock is None:
            self._outbox.say(messages.LaneOver(lane=order.lane, code="lane-closed", sentence="This node does not listen."))
            return
        keys = Keys(LaneKey(order.write, order.lane, order.cipher), LaneKey(order.read, order.lane, order.cipher))
        now = time.monotonic()
        controller = Fair(cap_bytes_s=order.cap_bytes_s or None)
        machine: Sender | Receiver
        if job.source is not None:
            machine = Sender(
                keys,
                slot=order.slot,
                now=now,
                random_bytes=os.urandom,
                proven=own,
                known_host=order.host,
                read=job.source,
                controller=controller,
                sizes=_SIZES_IPV6 if own and _is_ipv6(order.remote) else _SIZES_IPV4,
            )
        else:
            machine = Receiver(
                keys, slot=order.slot, now=now, random_bytes=os.urandom, proven=own, known_host=order.host, assembly=job.assembly
            )
        self._lanes[order.lane] = _Lane(job, machine, sock, own=own, controller=controller)
        job.lanes.add(order.lane)
        if own:
            self._own[sock] = self._lanes[order.lane]
            self._ring.add(sock)

    def _ask(self, order: messages.Ask) -> None:
        lane = self._lanes.get(order.lane)
        if lane is None:
            return
        line = lane.job.line
        if isinstance(lane.machine, Sender):
            places = [(line.chunk_at(first), line.chunk_at(last)) for first, last in order.ranges]
            lane.machine.ask(order.request, [(begin.offset, end.offset + end.length) for begin, end in places])
        else:
            for chunks in order.ranges:
                lane.job.assembly.expect(units_of(line, chunks))

    def _skip(self, order: messages.Skip) -> None:
        """Zeros stand in for what does not come; nobody waits for its digest."""
        lane = self._lanes.get(order.lane)
        if lane is None:
            return
        for first, last in order.chunks:
            begin, end = lane.job.line.chunk_at(first), lane.job.line.chunk_at(last)
            lane.job.assembly.skip(begin.offset, end.offset + end.length)
        self._take_complete(lane.job)

    def _close_lane(self, lane_id: bytes) -> None:
        lane = self._lanes.pop(lane_id, None)
        if lane is not None:
            lane.job.lanes.discard(lane_id)
            if lane.own:
                del self._own[lane.socket]
                self._ring.remove(lane.socket)

    def _close_job(self, job: _Job) -> None:
        """What came whole is still written: other lanes do not wait for this job's disk."""
        for lane_id in list(job.lanes):
            self._close_lane(lane_id)
        self._jobs.pop(job.id, None)
        if job.source is not None:
            job.source.close()
        job.slots.close()
        if job.sink is None:
            self._outbox.say(messages.JobClosed(job=job.id))
            return
        self._take_complete(job)
        job.sink.end()

    # --- datagrams ----------------------------------------------------------------------------------------------------
    def _take_datagrams(self) -> None:
        came = self._ring.fill()
        for _ in range(_ROWS_A_TURN):
            # After what came, and before a look at it: the node orders first to expect what it then asks the other side for.
            self._take_orders()
            row = self._ring.take()
            if row is None:
                break
            for lane, data in self._lanes_of(row):
                source, cuts = None if lane.own else row.source, row.cuts if data is row.data else None
                lane.machine.receive(Batch(data, row.size, source, row.at, cuts), time.monotonic())
                if isinstance(lane.machine, Receiver):
                    lane.machine.dropped = row.socket.drops - lane.drops_before
                    self._take_complete(lane.job)
            self._ring.done(row)
            came += self._ring.fill()
        self._gather_s = next((pause_s for few, pause_s in _GATHER if 0 < came < few), 0.0)

    def _lanes_of(self, row: Row) -> list[tuple[_Lane, memoryview]]:
        """Which lanes a batch is for: a connected socket has one, on the listening one the ids say it."""
        if row.socket is not self._listen:
            lane = self._own.get(row.socket)
            return [(lane, row.data)] if lane is not None else []
        known = ((self._lanes.get(lane_id), data) for lane_id, data in by_lane(row.data, row.size))
        return [(lane, data) for lane, data in known if lane is not None and not lane.own]

    def _take_complete(self, job: _Job) -> None:
        while job.assembly.complete and job.sink is not None:
            job.sink.put(job.assembly.complete.popleft())

    def _turn(self, lane_id: bytes, lane: _Lane) -> None:
        machine, now = lane.machine, time.monotonic()
        if lane.unsent is not None and not self._send_rest(lane):
            return
        if machine.next_timer() <= now:
            machine.on_timer(now)
            for _ in range(_BATCHES_A_TURN):
                batch = machine.poll_transmit(now)
                if batch is None:
                    break
                sent = lane.socket.send(batch.data, batch.size, batch.address)
                if sent * batch.size < len(batch.data):
                    rest = memoryview(bytes(batch.data[sent * batch.size :]))
                    lane.unsent = (rest, batch)
                    break
                now = time.monotonic()
        while (event := machine.next_event()) is not None:
            self._on_event(lane_id, lane, event)

    def _send_rest(self, lane: _Lane) -> bool:
        """What the machine's buffer had no room for."""
        assert lane.unsent is not None
        rest, batch = lane.unsent
        sent = lane.socket.send(rest, batch.size, batch.address)
        rest = rest[sent * batch.size :]
        lane.unsent = (rest, batch) if rest else None
        return not rest

    def _on_event(self, lane_id: bytes, lane: _Lane, event: Up | Moved | Worn | Failed | Asked) -> None:
        match event:
            case Up():
                self._outbox.say(messages.LaneUp(lane=lane_id))
            case Moved():
                before, address = _place(event.before), _place(event.address)
                self._outbox.say(messages.LaneMoved(lane=lane_id, before=before, address=address))
            case Worn():
                self._outbox.say(messages.LaneWorn(lane=lane_id, why=event.why))
            case Failed():
                self._outbox.say(messages.LaneOver(lane=lane_id, code=event.code, sentence=event.sentence))
            case Asked():
                source, line = lane.job.source, lane.job.line
                assert source is not None
                files = sorted({line.file_of(start) for start, _ in event.gone})
                gone = [(file, source.reasons.get(file, "unreadable")) for file in files]
                self._outbox.say(messages.Sent(lane=lane_id, request=event.request, gone=gone))

    # --- to the node --------------------------------------------------------------------------------------------------
    def _take_stored(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_S
        for key, _ in self._sinks.select(0):
            job: _Job | None = key.data
            if job is None:
                self._over = True  # the writer ended, and the node hears it from the end of this worker
                return
            assert job.sink is not None
            for news in job.sink.take():
                if isinstance(news, messages.Trouble):
                    self._outbox.say(news)
                    continue
                unit, came = news
                job.assembly.give_back(unit)
                job.came += came
            if not job.assembly.waits and not job.sink.backlog:
                self._tell_came(job)
            if job.sink.is_over:
                self._over = self._over or job.id in self._jobs  # nobody asked for that
                job.sink.close()
                self._tell_came(job)
                self._outbox.say(messages.JobClosed(job=job.id))

    def _tell(self) -> None:
        now = time.monotonic()
        if now >= self._report_at:
            for job in self._jobs.values():
                self._tell_came(job)
            self._report_at = now + REPORT_S
        if now >= self._stats_at and self._lanes:
            for lane_id, lane in self._lanes.items():
                self._outbox.say(self._stats(lane_id, lane, now))
            self._stats_at = now + STATS_S
        self._outbox.flush()

    def _stats(self, lane_id: bytes, lane: _Lane, now: float) -> messages.LaneStats:
        machine, busy = lane.machine, self._busy.is_busy(now)
        if isinstance(machine, Sender):
            return lane.gauge.of_sender(lane_id, machine, lane.controller, lane.socket, busy=busy, now=now)
        backlog = lane.job.sink.backlog if lane.job.sink is not None else 0
        return lane.gauge.of_receiver(lane_id, machine, lane.socket, backlog=backlog, busy=busy, now=now)

    def _tell_came(self, job: _Job) -> None:
        if job.came:
            self._outbox.say(messages.Chunks(job=job.id, chunks=job.came))
            job.came = []


def _files(block: bytes) -> list[ListedFile]:
    return msgspec.msgpack.decode(block, type=list[ListedFile])


def _place(address: Address | None) -> str:
    """As people write it."""
    if address is None:
        return ""
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def _is_ipv6(remote: tuple[str, int] | None) -> bool:
    return remote is not None and ":" in remote[0] and not remote[0].startswith("::ffff:")


def main(arguments: list[str]) -> None:
    """Entry of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which says when we end
    os.nice(BULK_NICE)  # and the writer, which inherits it
    sys.setswitchinterval(_SWITCH_S)
    gc.freeze()
    gc.set_threshold(_GARBAGE)  # batches leave no cycles behind; looking for some each 700 objects would cost 2 % here
    threading.current_thread().name = "lanes"
    control = socket.socket(fileno=int(arguments[0]))
    listen = LaneSocket(socket.socket(fileno=int(arguments[1]))) if len(arguments) > 1 else None
    Worker(control, listen).run()


if __name__ == "__main__":
    main(sys.argv[1:])
