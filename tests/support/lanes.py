"""Two ends of a lane for tests: keys, a steady controller, and a seeded link on a virtual clock that does what networks do.

Nothing here waits or looks at a clock. ``Audit`` sees every nonce that is sealed and fails at the first that comes twice.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from labxchange.wire.data.asked import Gone
from labxchange.wire.data.assembly import UNIT_BYTES, Assembly
from labxchange.wire.data.congestion import Feedback
from labxchange.wire.data.datagram import OVERHEAD_BYTES, SIZES, Cipher, LaneKey, headers_of, lane_secret
from labxchange.wire.data.events import Address, Asked, Event, Failed
from labxchange.wire.data.lane import NEVER, Batch, Keys, Lane
from labxchange.wire.data.receiver import Receiver
from labxchange.wire.data.sender import Sender

K_LANE = bytes(range(48))
LANE = b"lane-1"
DIALLER: Address = ("10.0.0.1", 1001)
LISTENER: Address = ("10.0.0.2", 47100)
BURST_S = 0.5
"""The longest that a burst of losses lasts on a direction that carries little."""
SOCKET_DATAGRAMS = 300
"""What the socket of an end that sleeps holds."""


class Audit:
    """Wraps keys so that each nonce is noted; a lane's numbers are kept as bits, so ten million cost little."""

    def __init__(self) -> None:
        self.sealed = 0
        self._used: dict[bytes, bytearray] = {}

    def watch(self, key: LaneKey, secret: bytes) -> LaneKey:
        used = self._used.setdefault(secret, bytearray())
        iv, inner, audit = int.from_bytes(key.iv, "big"), key.aead, self

        class Watching:
            decrypt_into = inner.decrypt_into

            @staticmethod
            def encrypt_into(nonce: memoryview, data: memoryview, associated_data: memoryview, buf: memoryview) -> int:
                number = int.from_bytes(nonce, "big") ^ iv
                place, bit = number >> 3, 1 << (number & 7)
                assert number >> 32 == 0, "the nonce is not iv xor number"
                if place >= len(used):
                    used.extend(bytes(place + 65_536 - len(used)))
                assert not used[place] & bit, f"number {number} was sealed twice under one key"
                used[place] |= bit
                audit.sealed += 1
                return inner.encrypt_into(nonce, data, associated_data, buf)

        key.aead = Watching()
        return key


def lane_keys(
    lane: bytes = LANE, *, k_lane: bytes = K_LANE, cipher: Cipher = "aes-256-gcm", audit: Audit | None = None
) -> tuple[Keys, Keys]:
    """Of the side that dialled and of the side that listens."""

    def key(writer: Any) -> LaneKey:
        secret = lane_secret(k_lane, lane, writer)
        made = LaneKey(secret, lane, cipher)
        return audit.watch(made, secret) if audit is not None else made

    return Keys(key("I"), key("R")), Keys(key("R"), key("I"))


class Steady:
    """A controller that does not listen: one rate, one window. ``on_silence`` and ``on_new_path`` are counted."""

    def __init__(self, *, rate_bytes_s: float = 2e6, window_bytes: int = 1 << 20) -> None:
        self.rate_bytes_s = rate_bytes_s
        self.window_bytes = window_bytes
        self.heard: list[Feedback] = []
        self.silences = 0
        self.new_paths = 0

    def on_feedback(self, feedback: Feedback) -> None:
        self.heard.append(feedback)

    def on_silence(self, now: float) -> None:
        self.silences += 1

    def on_new_path(self, now: float) -> None:
        self.new_paths += 1


class Weather(msgspec.Struct, frozen=True, kw_only=True):
    """What the network does; shares are of datagrams, ``silences`` and ``bursts`` begin at times."""

    delay_s: float = 0.02
    jitter_s: float = 0.0
    loss: float = 0.0
    twice: float = 0.0
    damage: float = 0.0
    late: float = 0.0
    """Share that is overtaken by about ``late_by`` others."""
    late_by: int = 100
    bursts: tuple[float, ...] = ()
    burst_datagrams: int = 200
    silences: tuple[tuple[float, float], ...] = ()
    mtu: int = 9_000


class End:
    """One end of the lane and its socket."""

    def __init__(self, machine: Lane, address: Address, *, connected_to: Address | None) -> None:
        self.machine: Any = machine
        self.address = address
        self.connected_to = connected_to
        self.sleeps: list[tuple[float, float]] = []
        self.queue: list[tuple[bytes, Address]] = []
        self.events: list[Event] = []
        self.sent_to: Counter[Address] = Counter()
        self.got_from: Counter[Address] = Counter()

    def sleeps_at(self, now: float) -> float:
        """Until when, or 0."""
        return max((end for begin, end in self.sleeps if begin <= now < end), default=0.0)

    def wants(self) -> float:
        at: float = self.machine.next_timer()
        return max(at, self.sleeps_at(at)) if at < NEVER else at


class World:
    """A sender and a receiver; ``data`` is the line. ``run`` ends when all that can come has come."""

    def __init__(
        self,
        seed: object,
        data: bytes,
        weather: Weather,
        *,
        sender_dials: bool = True,
        sizes: Sequence[int] = SIZES,
        controller: Any = None,
        gone: Sequence[tuple[int, int]] = (),
        audit: Audit | None = None,
        lane: bytes = LANE,
        read: Callable[[int, int], memoryview] | None = None,
    ) -> None:
        self.random = random.Random(f"lanes/{seed}")
        self.data = data
        self.weather = weather
        self.gone = list(gone)
        self.now = 0.0
        self.controller = controller or Steady()
        self.assembly = Assembly()
        self.out = bytearray(len(data))
        self.complete = np.zeros(len(data), np.bool_)
        self.unready = 0.0
        self.captured: list[tuple[bytes, Address, Address]] = []
        self.capture = False
        self._sequence = 0
        self._flying: list[tuple[float, int, int, bytes, Address]] = []
        self._burst: list[tuple[int, float]] = [(0, 0.0), (0, 0.0)]
        self._bursts = [list(weather.bursts), list(weather.bursts)]
        dialler, listener = lane_keys(lane, audit=audit)
        sender_keys, receiver_keys = (dialler, listener) if sender_dials else (listener, dialler)
        shared: dict[str, Any] = {"now": 0.0, "random_bytes": self.random.randbytes}
        self.sender = Sender(
            sender_keys,
            slot=1 if sender_dials else 0,
            proven=sender_dials,
            read=read or self._read,
            controller=self.controller,
            sizes=sizes,
            **shared,
        )
        self.receiver = Receiver(
            receiver_keys, slot=0 if sender_dials else 1, proven=not sender_dials, assembly=self.assembly, **shared
        )
        dials, listens = (self.sender, self.receiver) if sender_dials else (self.receiver, self.sender)
        self.dialler = End(dials, DIALLER, connected_to=LISTENER)
        self.listener = End(listens, LISTENER, connected_to=None)
        self.ends = (self.dialler, self.listener)

    # --- the files ----------------------------------------------------------------------------------------------------
    def _read(self, offset: int, length: int) -> memoryview:
        for begin, end in self.gone:
            if begin <= offset < end:
                raise Gone(begin, end)
            if offset < begin < offset + length:
                length = begin - offset
        if self.unready and self.random.random() < self.unready:
            return memoryview(b"")
        if self.random.random() < 0.1:
            length = self.random.randint(1, length)
        return memoryview(self.data)[offset : offset + length]

    def ask(self, request: int, ranges: Sequence[tuple[int, int]]) -> None:
        """Both ends hear of it, the receiver in units."""
        for start, end in ranges:
            for begin in range(start, end, UNIT_BYTES):
                self.assembly.expect([(begin, min(UNIT_BYTES, end - begin), (0, 0))])
        self.sender.ask(request, ranges)

    # --- the network --------------------------------------------------------------------------------------------------
    def _send(self, place: int, batch: Batch) -> None:
        end = self.ends[place]
        target = batch.address or end.connected_to
        assert target is not None
        if not end.machine._proven:
            sent, got = end.sent_to[target] + len(batch.data), end.got_from[target]
            assert sent <= 3 * got, f"{sent} bytes to {target}, which has not answered {got}"
        end.sent_to[target] += len(batch.data)
        for start in range(0, len(batch.data), batch.size):
            data = bytes(batch.data[start : start + batch.size])
            if self.capture:
                self.captured.append((data, end.address, target))
            if target == self.ends[1 - place].address:
                self._carry(place, data)

    def _carry(self, place: int, data: bytes) -> None:
        weather, chance = self.weather, self.random
        bursts = self._bursts[place]
        if bursts and bursts[0] <= self.now:
            self._burst[place] = weather.burst_datagrams, bursts.pop(0) + BURST_S
        left, until = self._burst[place]
        if left and self.now < until:
            self._burst[place] = left - 1, until
            return
        if any(begin <= self.now < end for begin, end in weather.silences) or len(data) + 28 > weather.mtu:
            return
        if chance.random() < weather.loss:
            return
        for _ in range(2 if chance.random() < weather.twice else 1):
            delay = weather.delay_s + chance.random() * weather.jitter_s
            if chance.random() < weather.late:
                delay += weather.late_by * 1_236 / self.controller.rate_bytes_s
            if chance.random() < weather.damage:
                at = chance.randrange(len(data))
                data = data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
            self.inject(1 - place, data, self.ends[place].address, at=self.now + delay)

    def inject(self, place: int, data: bytes, source: Address, *, at: float) -> None:
        """A datagram for the dialler (0) or the listener (1)."""
        self._sequence += 1
        heapq.heappush(self._flying, (at, self._sequence, place, data, source))

    def _deliver(self) -> None:
        while self._flying and self._flying[0][0] <= self.now:
            _, _, place, data, source = heapq.heappop(self._flying)
            end = self.ends[place]
            if end.connected_to is not None and source != end.connected_to:
                continue  # the socket is connected
            if len(end.queue) < SOCKET_DATAGRAMS or not end.sleeps_at(self.now):
                end.queue.append((data, source))

    def _receive(self, end: End) -> None:
        """What waits in the socket, joined where the kernel would."""
        while end.queue:
            data, source = end.queue.pop(0)
            joined, size = [data], len(data)
            while end.queue and len(joined) < 60 and len(joined[-1]) == size:
                following, place = end.queue[0]
                if place != source or len(following) > size:
                    break
                joined.append(following)
                end.queue.pop(0)
            batch = memoryview(b"".join(joined))
            end.got_from[source] += len(batch)
            end.machine.receive(Batch(batch, max(size, 1), None if end.connected_to else source), self.now)

    # --- time ---------------------------------------------------------------------------------------------------------
    def step(self) -> None:
        """To the next thing that happens."""
        at = min(self._flying[0][0] if self._flying else NEVER, *(end.wants() for end in self.ends))
        at = min([at, *(stop for end in self.ends for _, stop in end.sleeps if stop > self.now)])
        assert at < NEVER, "nothing will ever happen again"
        self.now = max(self.now, at)
        self._deliver()
        for place, end in enumerate(self.ends):
            if end.sleeps_at(self.now):
                continue
            self._receive(end)
            if end.machine.next_timer() <= self.now:
                end.machine.on_timer(self.now)
                while (batch := end.machine.poll_transmit(self.now)) is not None:
                    self._send(place, batch)
            while (event := end.machine.next_event()) is not None:
                end.events.append(event)
        self._take()

    def _take(self) -> None:
        for event in self._events(Asked):
            for start, stop in event.gone:
                self.assembly.skip(start, stop)
        while self.assembly.complete:
            unit = self.assembly.complete.popleft()
            assert unit.buffer is not None
            assert not self.complete[unit.start : unit.start + unit.length].any()
            self.complete[unit.start : unit.start + unit.length] = True
            self.out[unit.start : unit.start + unit.length] = unit.buffer[: unit.length]
            self.assembly.give_back(unit)

    def _events(self, kind: type[Any]) -> list[Any]:
        return [event for end in self.ends for event in end.events if isinstance(event, kind)]

    def failed(self) -> list[str]:
        return [event.code for event in self._events(Failed)]

    def is_done(self, ranges: Sequence[tuple[int, int]]) -> bool:
        return all(self.complete[start:end].all() for start, end in ranges)

    def run(self, ranges: Sequence[tuple[int, int]], *, limit_s: float = 600.0, steps: int = 2_000_000) -> None:
        """Until these ranges are complete, and right."""
        for _ in range(steps):
            if self.is_done(ranges):
                break
            assert not self.failed(), self.failed()
            assert self.now < limit_s, f"{int((~self.complete).sum())} bytes are missing after {limit_s} s"
            self.step()
        else:
            raise AssertionError(f"no end after {steps} steps, at {self.now} s")
        holes = np.zeros(len(self.data), np.bool_)
        for start, end in self.gone:
            holes[start:end] = True
        for start, end in ranges:
            want = np.frombuffer(self.data[start:end], np.uint8)
            have = np.frombuffer(bytes(self.out[start:end]), np.uint8)
            assert ((want == have) | holes[start:end]).all()


def pieces(data: bytes, size: int) -> list[bytes]:
    """The datagrams of a batch."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def numbers_of(data: bytes) -> list[int]:
    """Packet numbers of one datagram."""
    return [int(number) for number in headers_of(memoryview(data), max(len(data), OVERHEAD_BYTES))["number"]]
