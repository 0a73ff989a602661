"""Both ends of a lane at the edges: timers that are due only when something can be done, numbers that end, late reading."""

from __future__ import annotations

import random
from typing import Any

import pytest

from labxchange.wire.data import lane as lane_module
from labxchange.wire.data.asked import Gone
from labxchange.wire.data.assembly import Assembly
from labxchange.wire.data.datagram import BATCH_BYTES, OVERHEAD_BYTES, Kind, Sealer, batch_rows
from labxchange.wire.data.events import Asked, Failed, Up, Worn
from labxchange.wire.data.lane import NEVER, Batch
from labxchange.wire.data.pacing import BURST_S
from labxchange.wire.data.receiver import REPORT_BYTES, Receiver
from labxchange.wire.data.sender import REPORTS_BYTES, Sender
from tests.support.lanes import DIALLER, LISTENER, Steady, Weather, World, lane_keys

DATA = random.Random(8).randbytes(300_000)
ALL = [(0, len(DATA))]


def sender(*, dials: bool = True, read: Any = None, controller: Any = None) -> Sender:
    dialler, listener = lane_keys()
    return Sender(
        dialler if dials else listener,
        slot=1,
        now=0.0,
        random_bytes=random.Random(1).randbytes,
        proven=dials,
        read=read or (lambda offset, length: memoryview(DATA)[offset : offset + length]),
        controller=controller or Steady(),
    )


def receiver(*, dials: bool = False) -> Receiver:
    dialler, listener = lane_keys()
    return Receiver(
        dialler if dials else listener,
        slot=0,
        now=0.0,
        random_bytes=random.Random(2).randbytes,
        proven=dials,
        assembly=Assembly(),
    )


def drained(machine: Any, now: float) -> list[tuple[bytes, int]]:
    out = []
    while (batch := machine.poll_transmit(now)) is not None:
        out.append((bytes(batch.data), batch.size))
        assert len(out) < 1_000, "without end"
    return out


def give(machine: Any, batches: list[tuple[bytes, int]], now: float, address: Any = None) -> None:
    for data, size in batches:
        machine.receive(Batch(memoryview(data), size, address), now)


@pytest.mark.parametrize("dials", [True, False])
def test_no_timer_is_due_while_nothing_can_be_done(dials: bool) -> None:
    """An end that spins keeps a whole processor busy: after a turn the next is later, also before anybody answered."""
    for machine in (sender(dials=dials), receiver(dials=dials)):
        if isinstance(machine, Sender):
            machine.ask(1, ALL)
        now, turns = 0.0, 0
        while now < 14.0:
            machine.on_timer(now)
            drained(machine, now)
            later = machine.next_timer()
            assert later > now
            now, turns = later, turns + 1
        assert turns < 40


def test_no_timer_is_due_at_an_address_that_does_not_answer() -> None:
    """The first datagram comes, and then nothing: neither reports nor challenges are due without end."""
    caller, callee = sender(), receiver()
    give(callee, drained(caller, 0.0), 0.0, DIALLER)
    sent, now, turns = 0, 0.0, 0
    while now < 19.0:
        callee.on_timer(now)
        sent += sum(len(data) for data, _ in drained(callee, now))
        assert callee.next_timer() > now
        now, turns = callee.next_timer(), turns + 1
    assert turns < 40
    assert sent <= 3 * 44


def test_a_sender_says_nothing_but_challenges_before_it_heard_the_other_side() -> None:
    machine = sender()
    machine.ask(1, ALL)
    sent = [piece for tick in range(40) for piece in drained(machine, tick * 0.25)]
    assert sent
    assert all(len(data) == 44 and data[1] == Kind.CHALLENGE for data, _ in sent)


def test_data_that_is_lost_whole_is_sent_again_though_a_challenge_went_first() -> None:
    """Timers run also when something else was in flight already."""
    caller, callee = sender(), receiver()
    give(callee, drained(caller, 0.0), 0.0, DIALLER)
    give(caller, drained(callee, 0.01), 0.01)
    caller.ask(1, [(0, 5_000)])
    drained(caller, 0.011)  # answers and data: all lost
    for tick in range(30):
        drained(caller, 0.012 + tick / 1000)
    assert caller.next_timer() < 1.0
    caller.on_timer(caller.next_timer())
    drained(caller, 0.6)
    caller.on_timer(1.0)
    assert any(data[1] == Kind.DATA for data, _ in drained(caller, 2.0))


def test_bytes_that_are_not_at_hand_are_waited_for() -> None:
    ready = False
    asked = 0

    def read(offset: int, length: int) -> memoryview:
        nonlocal asked
        asked += 1
        return memoryview(DATA)[offset : offset + length] if ready else memoryview(b"")

    world = World(1, DATA, Weather(), read=read)
    world.ask(1, ALL)
    while world.now < 1.0:
        world.step()
    assert asked < 2_500, "not over and over"
    assert world.sender.limit == "disk"
    ready = True
    world.run(ALL)
    assert world.controller.heard[-1].limited


def test_a_batch_to_an_address_that_has_not_answered_is_no_larger_than_its_credit() -> None:
    """However fast the controller would go."""
    fast = Steady(rate_bytes_s=1e9, window_bytes=1 << 30)
    machine, other = sender(dials=False, controller=fast), receiver(dials=True)
    machine.ask(1, ALL)
    got = sent = 0
    for tick in range(20):
        for data, size in drained(other, tick / 10):
            got += len(data)
            give(machine, [(data, size)], tick / 10, DIALLER)
        sent += sum(len(data) for data, _ in drained(machine, tick / 10))
        assert sent <= 3 * got
    big = lane_keys()[0].write
    filler = Sealer(big, slot=1).seal(memoryview(bytes(1_164)), kind=Kind.PROBE, number=900, offset=0, size=1_200)
    give(machine, [(bytes(filler), 1_200)], 2.1, DIALLER)
    got += 1_200
    sent += sum(len(data) for data, _ in drained(machine, 2.1))
    assert 3 * got - 1_300 < sent <= 3 * got


@pytest.mark.parametrize("place", [0, 5, 43])
def test_an_honest_datagram_behind_a_forged_one_of_its_number_is_taken(place: int) -> None:
    """The kernel joins them into one batch; the forged one must not make the honest one a repeat."""
    world = World(1, DATA, Weather(delay_s=0.01))
    world.ask(1, ALL)
    world.capture = True
    while not world.is_done(ALL):
        world.step()
    data = [piece for piece, _, _ in world.captured if piece[1] == Kind.DATA and len(piece) == 1_200][:44]
    assert len(data) == 44
    forged = [bytes([*piece[:30], piece[30] ^ 1, *piece[31:]]) for piece in data]
    machine = receiver()
    machine.assembly.expect([(0, len(DATA), (0, 0))])
    honest = data[place:]
    alternating = [one for pair in zip(forged[place:], honest, strict=True) for one in pair]
    for first in (alternating, forged + honest):
        for start in range(0, len(first), 44):
            give(machine, [(b"".join(first[start : start + 44]), 1_200)], 0.1, DIALLER)
    assert machine.received_datagrams == len(honest)
    assert machine.assembly.repeated_bytes == 0


def test_worn_is_told_once_and_the_lane_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "FORGED_MAX", 50)
    machine = receiver()
    junk = bytes([1, 0]) + b"lane-1" + bytes(100)
    for number in range(100):
        give(machine, [(junk[:8] + number.to_bytes(4, "big") + junk[12:], len(junk))], 0.0, DIALLER)
    assert machine.forged == 100
    assert machine.next_event() == Worn("forged")
    assert machine.next_event() is None
    give(machine, drained(sender(), 0.0), 0.0, DIALLER)
    assert machine.next_event() == Up()


def test_a_lane_ends_before_a_number_could_come_again() -> None:
    machine = sender()
    dead = receiver()
    give(dead, drained(machine, 0.0), 0.0, DIALLER)
    give(machine, drained(dead, 0.0), 0.0)
    machine.ask(1, ALL)
    machine.recovery.next = lane_module.NUMBER_END - 100
    machine.recovery._low = machine.recovery.next
    last = 0
    for tick in range(10_000):
        for data, size in drained(machine, 1 + tick / 1000):
            starts = range(0, len(data), size)
            numbers = [int.from_bytes(data[start + 8 : start + 12], "big") for start in starts]
            assert numbers[0] > last or not last
            last = numbers[-1]
        if machine.is_dead:
            break
    assert machine.is_dead
    assert last < 2**32 - 44
    events = [machine.next_event() for _ in range(3)]
    assert Worn("bytes") in events
    assert any(isinstance(event, Failed) and event.code == "lane-worn" for event in events)
    assert machine.next_timer() == NEVER


def test_a_receiver_ends_before_a_number_could_come_again() -> None:
    machine = receiver(dials=True)
    machine._next = lane_module.NUMBER_END
    assert len(drained(machine, 0.0)) == 1
    assert machine.is_dead


@pytest.mark.parametrize("dials", [True, False])
def test_an_end_that_hears_nothing_fails(dials: bool) -> None:
    world = World(1, DATA, Weather(silences=((0.05, 1e9),)), sender_dials=dials)
    world.ask(1, ALL)
    while not (world.sender.is_dead and world.receiver.is_dead):
        world.step()
    assert set(world.failed()) == {"lane-silent"}
    assert 15.0 < world.now < 21.0


def test_files_that_are_gone_are_told_with_their_request() -> None:
    def read(offset: int, length: int) -> memoryview:
        if 40_000 <= offset < 60_000:
            raise Gone(40_000, 60_000)
        return memoryview(DATA)[offset : min(offset + length, 40_000 if offset < 40_000 else len(DATA))]

    world = World(1, DATA, Weather(), read=read)
    world.gone = [(40_000, 60_000)]
    world.ask(7, [(0, 30_000), (50_000, 55_000)])
    world.ask(8, [(30_000, 41_000), (42_000, 50_000), (55_000, 300_000)])
    world.ask(9, [(41_000, 42_000)])
    world.run([(0, 300_000)])
    told = {event.request: event.gone for event in world._events(Asked)}
    assert told == {7: ((40_000, 60_000),), 8: ((40_000, 60_000),), 9: ((40_000, 60_000),)}
    assert LISTENER in world.dialler.sent_to


def test_no_more_is_under_way_than_a_receiver_holds_however_rare_its_reports() -> None:
    data = random.Random(9).randbytes(24 << 20)
    world = World("window", data, Weather(delay_s=0.02), controller=Steady(rate_bytes_s=2e9, window_bytes=1 << 20))
    ranges, most = [(0, len(data))], 0
    world.ask(0, ranges)
    while not world.is_done(ranges):
        world.step()
        most = max(most, world.sender.recovery.in_flight_bytes)
    assert (1 << 20) < most <= (1 << 20) + REPORTS_BYTES + BATCH_BYTES


def test_a_report_goes_out_after_two_mebibytes_however_large_the_datagrams() -> None:
    machine, sealer = receiver(dials=True), Sealer(lane_keys()[1].write, slot=1)
    number, size, reports = 0, 8_972, []
    payload = memoryview(bytes(batch_rows(size) * (size - OVERHEAD_BYTES)))
    for turn in range(9):
        now = 0.1 + turn * 0.0001  # far less than the interval in all
        sealed = bytes(sealer.seal(payload, kind=Kind.DATA, number=number, offset=number * (size - OVERHEAD_BYTES), size=size))
        give(machine, [(sealed, size)], now)
        number += batch_rows(size)
        reports.append(any(data[1] == Kind.STATUS for data, _ in drained(machine, now)))
    between = -(-REPORT_BYTES // (batch_rows(size) * size))
    assert [turn for turn, told in enumerate(reports) if told] == list(range(0, 9, between))


def test_a_loop_that_was_away_sends_what_was_due_as_one_batch() -> None:
    ours, theirs = sender(controller=Steady(rate_bytes_s=12e6, window_bytes=1 << 20)), receiver()
    for turn in range(4):  # both are known to each other
        give(theirs, drained(ours, 0.01 * turn), 0.01 * turn, DIALLER)
        give(ours, drained(theirs, 0.01 * turn), 0.01 * turn)
    ours.ask(0, [(0, 4 << 20)])
    now = 1.0
    drained(ours, now)
    now += BURST_S + 0.001
    batches = [batch for batch, size in drained(ours, now) if len(batch) > size]
    assert len(batches) == 1
    assert BURST_S * 12e6 <= len(batches[0]) <= (BURST_S + 0.003) * 12e6
