"""Attacks on lanes, against the machines and against a real worker over loopback.

Campaign rows 6, 8, 11 and 17 for the bulk plane: forged, changed, repeated, reflected and redirected datagrams; reports that lie;
an address that is somebody else's; data that nobody asked for; lane ids that come again. The seed is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labxchange.net.lane_socket import LaneSocket
from labxchange.transfer.lanes import messages
from labxchange.transfer.lanes import ring as lane_ring
from labxchange.transfer.lanes.process import LANES_A_SESSION, Workers
from labxchange.wire.data.datagram import BATCH_DATAGRAMS, SIZES, Kind, Sealer, by_lane
from labxchange.wire.data.events import Failed, Up
from labxchange.wire.data.lane import Batch
from labxchange.wire.data.sender import Sender
from labxchange.wire.data.status import MAP_BYTES_MAX, encode
from tests.support.lane_workers import Move
from tests.support.lanes import DIALLER, LISTENER, Steady, Weather, World, lane_keys

SEED = os.environ.get("LABXCHANGE_SEED", "1")
DATA = random.Random(f"attacks/{SEED}").randbytes(200_000)
ALL = [(0, len(DATA))]
VICTIM = ("10.99.0.1", 53)


def captured(*, sender_dials: bool = True, **settings: Any) -> World:
    """A lane that carried everything, and each datagram of it."""
    world = World(SEED, DATA, Weather(mtu=1_250), sender_dials=sender_dials, **settings)
    world.capture = True
    world.ask(1, ALL)
    world.run(ALL)
    return world


def give(world: World, place: int, data: bytes, address: Any = None, size: int = 0) -> None:
    end = world.ends[place]
    batch = Batch(memoryview(data), size or len(data), address if end.connected_to is None else None)
    end.machine.receive(batch, world.now)


def counters(machine: Any) -> tuple[int, int, int]:
    return machine.received_datagrams, machine._seen.newest, machine.received_bytes


def other_end(world: World, place: int) -> Any:
    return (DIALLER, LISTENER)[1 - place]


# --- forged, changed, repeated ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("sender_dials", [True, False])
def test_every_byte_of_every_datagram_matters(sender_dials: bool) -> None:
    """Each datagram of a session with a byte changed, at the ends that were to get it, and did not yet: none is accepted."""
    chance = random.Random(SEED)
    old = captured(sender_dials=sender_dials)
    world = World(SEED, DATA, Weather(), sender_dials=sender_dials)
    world.ask(1, ALL)
    for data, _, target in old.captured:
        place = 1 if target == LISTENER else 0
        for at in {*range(20), chance.randrange(20, len(data)), len(data) - 1}:
            give(world, place, data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :], other_end(world, place))
    assert counters(world.sender)[0] == counters(world.receiver)[0] == 0
    assert not world.assembly.complete
    assert world.listener.machine.address is None
    assert world.sender.forged > 100 < world.receiver.forged
    assert not world.sender.is_up | world.receiver.is_up


@pytest.mark.parametrize("sender_dials", [True, False])
def test_every_datagram_is_taken_once(sender_dials: bool) -> None:
    """Again in the same session, in any order, from anywhere: nothing moves."""
    world = captured(sender_dials=sender_dials)
    for data, _, target in world.captured:  # the last were on their way
        place = 1 if target == LISTENER else 0
        give(world, place, data, other_end(world, place))
    before = counters(world.sender), counters(world.receiver), world.listener.machine.address, world.sender.recovery.next
    chance = random.Random(SEED)
    again = list(world.captured)
    chance.shuffle(again)
    for data, _, target in again:
        place = 1 if target == LISTENER else 0
        give(world, place, data, chance.choice([other_end(world, place), VICTIM]))
    assert (
        counters(world.sender),
        counters(world.receiver),
        world.listener.machine.address,
        world.sender.recovery.next,
    ) == before
    assert not world.failed()


@pytest.mark.parametrize("change", [{"lane": b"lane-2"}, {"k_lane": b"\1" * 48}], ids=["another lane", "another session"])
def test_nothing_is_accepted_on_another_lane_or_in_another_session(change: dict[str, Any]) -> None:
    """Also where the id is the same: the same lane id in two sessions has two keys."""
    old = captured()
    for sender_dials in (True, False):
        world = World(SEED, DATA, Weather(), sender_dials=sender_dials)
        for machine, keys in zip((world.dialler.machine, world.listener.machine), lane_keys(**change), strict=True):
            fresh = type(machine._opener)(keys.read)
            machine._opener = fresh
        for data, _, _ in old.captured:
            for renamed in (data, data[:2] + change.get("lane", data[2:8]) + data[8:]):
                give(world, 0, renamed)
                give(world, 1, renamed, DIALLER)
        assert counters(world.sender)[0] == counters(world.receiver)[0] == 0


def test_an_end_does_not_take_its_own_datagrams() -> None:
    """Reflection: what an end sent is sent back to it."""
    for sender_dials in (True, False):
        old = captured(sender_dials=sender_dials)
        world = World(SEED, DATA, Weather(), sender_dials=sender_dials)
        world.ask(1, ALL)
        for data, source, _ in old.captured:
            place = 0 if source == DIALLER else 1
            give(world, place, data, other_end(world, place))
        assert counters(world.sender)[0] == counters(world.receiver)[0] == 0


def test_any_bytes_at_all() -> None:
    chance = random.Random(SEED)
    world = captured()
    before = counters(world.sender)[0], counters(world.receiver)[0]
    for _ in range(4_000):
        data = chance.randbytes(chance.choice([0, 1, 19, 20, 35, 36, 37, 100, 1_200, 1_472, 9_000]))
        if chance.random() < 0.5:
            data = (world.captured[0][0][:8] + data)[: max(len(data), 1)]
        size = chance.choice([len(data) or 1, 1, 36, 50, 1_200, 65_535])
        for place in (0, 1):
            give(world, place, data, other_end(world, place), size)
    assert (counters(world.sender)[0], counters(world.receiver)[0]) == before
    assert not world.failed()


# --- an authenticated peer that lies ----------------------------------------------------------------------------------
class Liar:
    """Holds the keys of a receiver and says what it likes to an honest sender that has sent ``count`` numbers or more."""

    def __init__(self, count: int = 3_000) -> None:
        self.world = World(SEED, DATA * 20, Weather(mtu=1_250), controller=Steady(rate_bytes_s=1e8, window_bytes=1 << 24))
        self.world.ask(1, [(0, len(self.world.data))])
        while self.world.sender.recovery.next < count:
            self.world.step()
        self.sender: Sender = self.world.sender
        self.sealer = Sealer(lane_keys()[1].write, slot=0)
        self.number = self.world.receiver._next

    def say(self, payload: bytes, kind: Kind = Kind.STATUS) -> str:
        """The code with which the sender ends the lane, or nothing."""
        sealed = self.sealer.seal(memoryview(payload), kind=kind, number=self.number, offset=0, size=SIZES[-1])
        self.number += 1
        self.sender.receive(Batch(memoryview(bytes(sealed)), len(sealed)), self.world.now)
        events = []
        while (event := self.sender.next_event()) is not None:
            events.append(event)
        return next((event.code for event in events if isinstance(event, Failed)), "")

    def report(self, newest: int, came: Callable[[int], bool], count: int = 8 * MAP_BYTES_MAX) -> str:
        bits = np.array([came(newest - place) for place in range(min(count, newest + 1))])
        return self.say(encode(newest=newest, held_us=0, clock_us=10**9, total_bytes=0, dropped=0, forged=0, arrived=bits))


def test_an_acknowledgement_of_what_was_not_sent_ends_the_lane() -> None:
    for ahead in (0, 1, 1_000, 2**31):
        liar = Liar(100)
        assert liar.report(liar.sender.recovery.next + ahead, lambda _: True, 50) == "acknowledged-unsent"
        assert liar.sender.is_dead
        assert liar.sender.poll_transmit(liar.world.now) is None


def test_an_acknowledgement_of_all_numbers_ends_the_lane() -> None:
    """Optimistic: who claims numbers that it has not seen claims one that was left out."""
    liar = Liar(3_000)
    assert liar.report(liar.sender.recovery.next - 1, lambda _: True) == "acknowledged-unsent"


def test_honest_reports_do_not() -> None:
    liar = Liar(3_000)
    came = liar.world.receiver._seen._ring
    newest = liar.world.receiver._seen.newest
    assert liar.report(newest, lambda number: bool(came[number % len(came)] == number)) == ""
    assert not liar.sender.is_dead


@pytest.mark.parametrize("seed", range(3))
def test_reports_that_do_not_parse_end_the_lane(seed: int) -> None:
    chance = random.Random(f"{SEED}/{seed}")
    for payload in (b"", b"\0", bytes(34), bytes(36), chance.randbytes(200), chance.randbytes(1_164)):
        liar = Liar(100)
        assert liar.say(payload) in {"malformed-status", "acknowledged-unsent"}
    for token in (b"", b"1234567", b"123456789", bytes(1_000)):
        assert Liar(100).say(token, Kind.CHALLENGE) == "malformed-status"
        assert Liar(100).say(token, Kind.RESPONSE) == "malformed-status"


def test_odd_figures_in_a_report_do_no_harm() -> None:
    chance = random.Random(SEED)
    liar = Liar(200)
    for _ in range(300):
        payload = encode(
            newest=0,
            held_us=chance.choice([0, 1, 2**32 - 1]),
            clock_us=chance.choice([0, 1, 2**63, 2**64 - 1]),
            total_bytes=chance.choice([0, 2**64 - 1]),
            dropped=chance.randrange(2**32),
            forged=chance.randrange(2**32),
            arrived=np.array([True]),
        )
        assert liar.say(payload) == ""
        assert liar.sender.recovery.in_flight_bytes >= 0
    assert liar.say(b"x" * 100, Kind.PROBE) == liar.say(b"x" * 100, Kind.DATA) == ""


def test_answers_to_a_flood_of_challenges_are_few() -> None:
    liar = Liar(100)
    before = liar.sender.sent_datagrams
    for number in range(2_000):
        liar.say(number.to_bytes(8, "big"), Kind.CHALLENGE)
    sent = 0
    while (batch := liar.sender.poll_transmit(liar.world.now)) is not None and batch.data[1] == Kind.RESPONSE:
        sent += 1
    assert 0 < sent <= 8
    assert liar.sender.sent_datagrams >= before


def test_data_that_nobody_asked_for_is_dropped_and_takes_no_memory() -> None:
    """Other ranges than were asked for, at every odd offset; what was asked for stays right."""
    world = World(SEED, DATA, Weather(mtu=1_250))
    sealer = Sealer(lane_keys()[0].write, slot=1)
    world.assembly.expect([(50_000, 10_000, (0, 0))])
    chance = random.Random(SEED)
    for number in range(5_000):
        offset = chance.choice([0, 60_000, 2**62, 2**63 - 1, chance.randrange(60_000, 2**40)])
        sealed = sealer.seal(memoryview(bytes(1_000)), kind=Kind.DATA, number=number, offset=offset, size=1_200)
        give(world, 1, bytes(sealed), DIALLER)
    assert world.receiver.received_datagrams == 5_000
    assert world.assembly.unasked_bytes == 5_000_000
    assert [unit.buffer for unit in world.assembly._units.values()] == [None]
    for number, start in enumerate(range(49_000, 61_000, 1_000), 7_000):
        piece = memoryview(DATA)[start : start + 1_000]
        give(world, 1, bytes(sealer.seal(piece, kind=Kind.DATA, number=number, offset=start, size=1_200)), DIALLER)
    unit = world.assembly.complete.popleft()
    assert unit.buffer is not None
    assert bytes(unit.buffer[:10_000]) == DATA[50_000:60_000]


def test_bytes_that_came_are_not_changed_by_what_comes_later() -> None:
    world = World(SEED, DATA, Weather())
    sealer = Sealer(lane_keys()[0].write, slot=1)
    world.assembly.expect([(0, 2_000, (0, 0))])
    for number, (offset, payload) in enumerate(
        [(0, b"a" * 1_000), (0, b"b" * 1_000), (500, b"c" * 1_000), (1_000, b"d" * 1_000)]
    ):
        give(world, 1, bytes(sealer.seal(memoryview(payload), kind=Kind.DATA, number=number, offset=offset, size=1_200)), DIALLER)
    unit = world.assembly.complete.popleft()
    assert unit.buffer is not None
    assert bytes(unit.buffer[:2_000]) == b"a" * 1_000 + b"c" * 500 + b"d" * 500


# --- somebody else's address ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("claims_at", [0.0, 1.5])
def test_traffic_is_not_aimed_at_an_address_that_does_not_answer(claims_at: float) -> None:
    """A peer names a victim as where it is, from the start or in the middle, and asks for much: the victim gets three times what
    it seemed to send at most, and no data at a rate that was learned elsewhere."""
    world = World(SEED, DATA * 20, Weather(), sender_dials=False, controller=Steady(rate_bytes_s=1e6, window_bytes=1 << 24))
    world.ask(1, [(0, len(world.data))])
    while world.now < claims_at:
        world.step()
    sealer, number = Sealer(lane_keys()[0].write, slot=1), world.receiver._next + 100
    before = world.sender.sent_bytes
    challenge = bytes(sealer.seal(memoryview(bytes(8)), kind=Kind.CHALLENGE, number=number, offset=0, size=1_200))
    give(world, 1, challenge, VICTIM)
    assert world.sender.address == VICTIM
    sent = 0
    for tick in range(600):
        now = world.now + tick / 100
        world.sender.on_timer(now)
        while (batch := world.sender.poll_transmit(now)) is not None:
            assert batch.address == VICTIM
            sent += len(batch.data)
    assert sent <= 3 * len(challenge)
    assert world.sender.sent_bytes == before + sent


def test_a_token_is_needed_to_prove_an_address() -> None:
    world = World(SEED, DATA, Weather(), sender_dials=False)
    world.ask(1, ALL)
    sealer = Sealer(lane_keys()[0].write, slot=1)
    for number in range(200):
        token = number.to_bytes(8, "big")
        give(world, 1, bytes(sealer.seal(memoryview(token), kind=Kind.RESPONSE, number=number, offset=0, size=1_200)), VICTIM)
    assert not world.sender._proven


def test_an_address_moves_at_most_once_a_second() -> None:
    world = World(SEED, DATA, Weather(), sender_dials=False)
    world.ask(1, ALL)
    while world.now < 1.5:
        world.step()
    sealer = Sealer(lane_keys()[0].write, slot=1)
    moved = 0
    for number in range(100):
        payload = memoryview(bytes(8))
        data = bytes(sealer.seal(payload, kind=Kind.CHALLENGE, number=5_000 + number, offset=0, size=1_200))
        old = world.sender.address
        world.sender.receive(Batch(memoryview(data), len(data), ("10.1.0.1", number)), world.now + number / 20)
        moved += world.sender.address != old
    assert moved == 5


class Between(threading.Thread):
    """Stands between two workers: passes on what they send, and with it what they did not - changed, forged ahead of its number,
    repeated, reflected, of another lane - from the address that each of them believes to talk to."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for sock in (self.front, self.back):
            sock.bind(("127.0.0.1", 0))
        self.back.connect(("127.0.0.1", port))
        self.port: int = self.front.getsockname()[1]
        self.passed = self.evil = 0
        self.over = False
        self._chance = random.Random(SEED)
        self._old: list[bytes] = []

    def run(self) -> None:
        caller = None
        while not self.over:
            for sock in select.select([self.front, self.back], [], [], 0.2)[0]:
                with contextlib.suppress(OSError):
                    data, source = sock.recvfrom(65_536)
                    if sock is self.front:
                        caller = source
                    if caller is not None:
                        self._pass(data, sock is self.front, caller)
        self.front.close()
        self.back.close()

    def _pass(self, data: bytes, forward: bool, caller: Any) -> None:
        for piece in (*self._evil(data), data):
            if forward:
                self.back.send(piece)
            else:
                self.front.sendto(piece, caller)
        if self._chance.random() < 0.3:  # what was sent comes back
            self.evil += 1
            if forward:
                self.front.sendto(data, caller)
            else:
                self.back.send(data)
        self.passed += 1

    def _evil(self, data: bytes) -> list[bytes]:
        chance, at = self._chance, self._chance.randrange(len(data))
        ahead = (int.from_bytes(data[8:12], "big") + chance.randrange(1, 40)).to_bytes(4, "big")
        self._old = [*self._old[-200:], data]
        out = [
            data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :],
            data[:8] + ahead + data[12:],
            data[:2] + b"lane-z" + data[8:],
            chance.choice(self._old[:-1] or [data[:-1]]),
        ]
        self.evil += len(out)
        return out


@pytest.mark.parametrize("sender_dials", [True, False], ids=["sender dials", "receiver dials"])
def test_a_real_worker_under_attack(tmp_path: Path, sender_dials: bool) -> None:
    """Four datagrams that are not honest before each that is: every byte is right, the lane stays, nothing else is accepted."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.bin").write_bytes(DATA * 15)
    (source / "b.bin").write_bytes(DATA[:5_000])

    async def main() -> None:
        async with Move(source, tmp_path / "here", cap_bytes_s=4e6) as move:
            between = Between(move.slots[1].port)
            move.port = between.port
            between.start()
            move.open(sender_dials=sender_dials)
            await move.until(lambda: len(move.of(messages.LaneUp)) == 2)
            move.ask(0, move.line.chunks - 1)
            await move.until(lambda: len(move.came) == move.line.chunks, 60.0)
            between.over = True
            between.join()
            assert between.evil > 4 * between.passed > 1_200
            assert not move.of(messages.LaneOver)
            assert not move.of(messages.LaneMoved)
            assert max(stats.forged for stats in move.of(messages.LaneStats)) > 200
            for chunk, came in move.came.items():
                assert came.digest == move.digest_of(chunk, source)
            assert move.part(0) == DATA * 15

    asyncio.run(main())


# --- batches, rings and ids -------------------------------------------------------------------------------------------
def test_a_forged_datagram_in_front_does_not_take_a_batch_with_it() -> None:
    """The kernel joins by address and size: what anybody forges from there stands in one batch with what is honest."""
    pieces = [data for data, _, target in captured().captured if target == LISTENER and len(data) == 1_200][:40]
    other = bytes([1, 0]) + b"lane-9" + bytes(1_192)
    mixed = b"".join([other, *pieces[:20], other, *pieces[20:], pieces[0][:700]])
    split = dict(by_lane(memoryview(mixed), 1_200))
    assert bytes(split[b"lane-1"]) == b"".join([*pieces, pieces[0][:700]])
    assert bytes(split[b"lane-9"]) == other * 2
    whole = memoryview(b"".join(pieces))
    ((lane, batch),) = by_lane(whole, 1_200)
    assert lane == b"lane-1"
    assert batch is whole, "not copied"
    assert [lane for lane, _ in by_lane(memoryview(b""), 1)] == [b""]
    assert [lane for lane, _ in by_lane(memoryview(b"xyz"), 1)] == [b""]


class Flooded(LaneSocket):
    """A socket that always has another datagram, of one byte."""

    def __init__(self) -> None:
        self.calls = self.received_datagrams = 0
        self.arrived_at = 0.0

    def receive_into(self, row: memoryview) -> tuple[int, int, Any]:
        self.calls += 1
        row[0] = 1
        return 1, 1, ("10.0.0.1", self.calls % 60_000)


def test_tiny_datagrams_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits costs memory by the datagram: the ring is full at so many, too, and the system drops the rest."""
    monkeypatch.setattr(lane_ring, "RECEIPTS_MAX", 500)
    ring, sock = lane_ring.Ring(), Flooded()
    for _ in range(100):
        ring._receive(sock)
    assert ring.is_full
    assert sock.calls == len(ring._got) == 500


def test_a_lane_id_is_taken_once() -> None:
    class Session:
        pass

    workers, one, two = Workers(2), Session(), Session()
    assert workers.claim(one, [b"aaaaaa", b"bbbbbb"])
    assert not workers.claim(one, [b"cccccc", b"aaaaaa"]), "used before in this session"
    assert workers.claim(one, [b"cccccc"]), "a refusal takes nothing"
    assert not workers.claim(one, [b"dddddd", b"dddddd"])
    assert workers.claim(two, [b"aaaaaa"]), "another session has other keys"
    workers.workers[1].lanes[b"eeeeee"] = lambda news: None
    assert not workers.claim(two, [b"eeeeee"]), "it would take the place of another peer's"
    assert not workers.claim(two, [number.to_bytes(6, "big") for number in range(LANES_A_SESSION)])


def test_what_the_machines_hold_is_fixed() -> None:
    """A peer chooses sizes, numbers and kinds as it likes: caches and queues stay small."""
    world = World(SEED, DATA, Weather())
    sealer = Sealer(lane_keys()[0].write, slot=1)
    for number in range(600):
        size = 37 + number * 14
        sealed = bytes(
            sealer.seal(
                memoryview(bytes(size - 36)),
                kind=Kind(number % 5) if number % 5 > 3 else Kind.DATA,
                number=number * 9_000,
                offset=0,
                size=max(size, 100),
            )
        )
        give(world, 1, sealed, DIALLER)
    assert world.receiver.received_datagrams == 600
    assert len(world.receiver._opener._outs) <= 16
    assert len(sealer._cuts._known) <= len(SIZES)
    assert len(world.receiver._replies) <= 10
    assert world.receiver.next_event() == Up()
    assert BATCH_DATAGRAMS == 704  # sixteen system calls: docs/adr/0018


def test_only_the_host_that_answered_over_quic_needs_no_challenge() -> None:
    """Its ports differ from lane to lane; any other host, and one that only looks like it, has to answer first."""
    for host, proven in (("10.0.0.1", True), ("::ffff:10.0.0.1", True), ("10.0.0.10", False), ("::1", False), ("", False)):
        world = World(SEED, DATA, Weather(), sender_dials=False)
        world.sender._known_host = "10.0.0.1"
        sealer = Sealer(lane_keys()[0].write, slot=1)
        data = bytes(sealer.seal(memoryview(bytes(8)), kind=Kind.CHALLENGE, number=0, offset=0, size=1_200))
        give(world, 1, data, (host, 1_234))
        assert world.sender._proven is proven, host
