"""What a sender knows of its packets: acknowledged, lost, spurious, and the lies that a report can tell."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labxchange.errors import PeerError
from labxchange.wire.data.datagram import OVERHEAD_BYTES
from labxchange.wire.data.recovery import (
    GRAIN_S,
    LATE_ROUND_TRIPS,
    REORDER,
    RING,
    RTT_FIRST_S,
    RTT_LEAST_S,
    Recovery,
    Report,
    _numbers,
)
from labxchange.wire.data.status import Status

ROOM = 1_000
WHOLE = ROOM + OVERHEAD_BYTES


def report(numbers: list[int] | range, *, span: int = 9_040, held_us: int = 0, clock_us: int = 1_000_000) -> Status:
    newest = max(numbers)
    first = max(newest - span + 1, 0)
    came = np.zeros(newest - first + 1, np.bool_)
    came[[number - first for number in numbers if number >= first]] = True
    return Status(
        newest=newest,
        held_us=held_us,
        clock_us=clock_us,
        bytes=0,
        dropped=0,
        forged=0,
        came=came,
    )


def send(recovery: Recovery, count: int, *, now: float = 0.0, short: int = 0) -> None:
    """Packets that carry the line in order: the offset of packet n is n times ROOM."""
    for start in range(0, count, 40):
        part = min(40, count - start)
        length = part * ROOM - (short if start + part == count else 0)
        recovery.sent(part, offset=recovery.next * ROOM, length=length, room=ROOM, now=now)


def state(recovery: Recovery) -> tuple[int, int]:
    return recovery.in_flight_packets, recovery.in_flight_bytes


def test_what_is_acknowledged_is_no_longer_in_flight() -> None:
    recovery = Recovery()
    send(recovery, 100, short=900)
    assert state(recovery) == (100, 100 * WHOLE - 900)
    told = recovery.on_status(report(range(50)), 0.1)
    assert (told.acked_packets, told.acked_bytes, told.lost, told.late_packets) == (50, 50 * WHOLE, [], 0)
    assert state(recovery) == (50, 50 * WHOLE - 900)
    again = recovery.on_status(report(range(50)), 0.11)
    assert (again.acked_packets, again.acked_bytes, again.rtt_s) == (0, 0, None)
    recovery.on_status(report(range(100)), 0.12)
    assert state(recovery) == (0, 0)


def test_lost_after_128_newer_and_not_before() -> None:
    recovery = Recovery()
    send(recovery, 300)
    known = [number for number in range(REORDER + 3) if number not in (3, 4)]
    assert recovery.on_status(report(known), 0.0).lost == []
    told = recovery.on_status(report([*known, REORDER + 3]), 0.0)
    assert told.lost == [(3_000, 4_000)]
    assert (told.lost_packets, told.lost_bytes) == (1, WHOLE)
    assert recovery.on_status(report([*known, REORDER + 3, REORDER + 4]), 0.0).lost == [(4_000, 5_000)]


def test_reordering_by_100_is_no_loss() -> None:
    recovery, chance = Recovery(), random.Random(4)
    send(recovery, 3_000)
    order = sorted(range(3_000), key=lambda number: number + chance.uniform(0, 100))
    came: list[int] = []
    for start in range(0, 3_000, 25):
        came += order[start : start + 25]
        assert recovery.on_status(report(came), 0.001).lost == []
    assert state(recovery) == (0, 0)


def test_lost_when_late_and_something_newer_came() -> None:
    recovery = Recovery()
    send(recovery, 10)
    recovery.on_status(report(range(10)), 0.1)
    assert recovery.srtt_s == pytest.approx(0.1)
    send(recovery, 10, now=1.0)
    after = 1.0 + LATE_ROUND_TRIPS * 0.1 + GRAIN_S
    assert recovery.on_status(report(range(15)), after + 0.1).lost == [], "nothing newer came"
    send(recovery, 1, now=after + 0.1)
    assert recovery.on_status(report([*range(15), 20]), after + 0.11).lost == [(15_000, 20_000)]


def test_late_packets_are_told_apart_and_counted_once() -> None:
    recovery = Recovery()
    send(recovery, 300)
    recovery.on_status(report(range(10, 300)), 0.0)
    assert state(recovery) == (0, 0)
    told = recovery.on_status(report(range(300)), 0.01)
    assert (told.acked_packets, told.acked_bytes, told.late_packets, told.lost) == (10, 0, 10, [])
    assert recovery.on_status(report(range(300)), 0.02).late_packets == 0
    assert state(recovery) == (0, 0)


@pytest.mark.parametrize("rtt_s", [0.0005, 0.1])
def test_how_late_packets_were_is_remembered_for_seconds_however_short_a_round_trip_is(rtt_s: float) -> None:
    recovery = Recovery()
    now = 0.0
    for number in range(50):
        send(recovery, 1, now=now)
        now += rtt_s
        recovery.on_status(report([number]), now)
    send(recovery, 1, now=now)
    recovery.give_up(sent_before=now)
    recovery.on_status(report([50]), now + rtt_s + 0.08)
    now += rtt_s + 0.08
    patience_s, began = recovery.patience_s, now
    assert patience_s > 0.05
    number = 51
    while now < began + 0.5:
        send(recovery, 1, now=now)
        now += rtt_s
        recovery.on_status(report([number]), now)
        number += 1
    assert 0.75 * patience_s < recovery.patience_s < patience_s
    while now < began + 20.0:
        send(recovery, 1, now=now)
        now += max(rtt_s, 0.05)
        recovery.on_status(report([number]), now)
        number += 1
    assert recovery.patience_s < 1.2 * GRAIN_S


def test_what_is_beyond_the_map_counts_as_lost() -> None:
    recovery = Recovery()
    send(recovery, 400)
    told = recovery.on_status(report([350, 351], span=64), 0.0)
    assert told.lost == [(0, 288_000)]
    assert state(recovery)[0] == 400 - 2 - 288


@given(states=st.lists(st.integers(0, 4), max_size=300), state=st.integers(1, 4), first=st.integers(0, 2**32))
def test_numbers_are_found_by_their_state(states: list[int], state: int, first: int) -> None:
    want = [first + place for place, found in enumerate(states) if found == state]
    assert _numbers(bytes(states), state, first).tolist() == want


def test_a_lost_probe_is_told_of_nowhere() -> None:
    recovery = Recovery()
    recovery.sent(1, offset=0, length=0, room=8_936, now=0.0)
    assert state(recovery) == (1, 8_972)
    send(recovery, 200)
    told = recovery.on_status(report(range(1, 201)), 0.0)
    assert (told.lost, told.lost_packets, told.lost_bytes, told.largest) == ([], 0, 0, WHOLE)
    assert state(recovery) == (0, 0)
    recovery.sent(1, offset=0, length=0, room=1_436, now=0.0)
    assert recovery.on_status(report(range(1, 202)), 0.0).largest == 1_472


@pytest.mark.parametrize("lie", ["skipped", "skipped-newest", "never-sent", "far"])
def test_lies_are_caught(lie: str) -> None:
    recovery = Recovery()
    send(recovery, 40)
    recovery.skip()
    send(recovery, 40)
    honest = [number for number in range(81) if number != 40]
    recovery.on_status(report(honest[:30]), 0.0)
    numbers = {
        "skipped": list(range(81)),
        "skipped-newest": list(range(41)),
        "never-sent": [*honest, 81],
        "far": [2**32 - 1],
    }[lie]
    with pytest.raises(PeerError) as caught:
        recovery.on_status(report(numbers), 0.0)
    assert caught.value.code == "acknowledged-unsent"


def test_nothing_was_sent_and_something_is_acknowledged() -> None:
    with pytest.raises(PeerError):
        Recovery().on_status(report([0]), 0.0)


def test_a_skipped_number_is_never_lost_and_weighs_nothing() -> None:
    recovery = Recovery()
    recovery.skip()
    send(recovery, 200)
    assert state(recovery) == (200, 200 * WHOLE)
    told = recovery.on_status(report(range(150, 201)), 0.0)
    assert told.lost == [(1_000, 73_000)]
    assert recovery.give_up(sent_before=1.0) == [(73_000, 150_000)]
    assert state(recovery) == (0, 0)


@given(gone=st.sets(st.integers(0, 399), max_size=120), probes=st.sets(st.integers(0, 399), max_size=20))
@settings(max_examples=60, deadline=None)
def test_ranges_are_joined_and_exact(gone: set[int], probes: set[int]) -> None:
    """Numbers in any order of the line: what is told is exactly their bytes, in as few ranges as there are."""
    recovery, chance = Recovery(), random.Random(len(gone))
    places = list(range(400))
    chance.shuffle(places)
    for number in range(400):
        data = 0 if number in probes else ROOM
        recovery.sent(1, offset=places[number] * ROOM, length=data, room=ROOM, now=0.0)
    told = recovery.ranges(np.array(sorted(gone), np.int64))
    lines = sorted(places[number] for number in gone - probes)
    want: list[tuple[int, int]] = []
    for line in lines:
        if want and want[-1][1] == line * ROOM:
            want[-1] = (want[-1][0], (line + 1) * ROOM)
        else:
            want.append((line * ROOM, (line + 1) * ROOM))
    assert told == want


def test_giving_up_takes_only_what_is_old() -> None:
    recovery = Recovery()
    send(recovery, 5, now=1.0)
    send(recovery, 5, now=2.0)
    assert recovery.give_up(sent_before=1.5) == [(0, 5_000)]
    assert recovery.give_up(sent_before=1.5) == []
    assert state(recovery) == (5, 5 * WHOLE)
    assert recovery.on_status(report(range(10)), 3.0).late_packets == 5


def test_the_ring_comes_round() -> None:
    """Twice round, with losses: in flight never strays, and old numbers of a report are not taken for new ones."""
    recovery, chance, window = Recovery(), random.Random(3), 4_000
    lost: set[int] = set()
    told: set[int] = set()
    while recovery.next < 2 * RING + 10_000:
        send(recovery, 2_000, now=recovery.next / 1e6)
        lost |= {number for number in range(recovery.next - 2_000, recovery.next) if chance.random() < 0.01}
        low = max(recovery.next - window, 0)
        answer = recovery.on_status(report([number for number in range(low, recovery.next) if number not in lost]), 0.0)
        told |= {place // ROOM for start, end in answer.lost for place in range(start, end, ROOM)}
        assert recovery.room()
        assert recovery.in_flight_packets <= REORDER
    assert told == {number for number in lost if number < recovery.next - REORDER - 40} | (told & lost)
    assert told <= lost


def test_the_ring_fills_when_nobody_reports() -> None:
    recovery = Recovery()
    while recovery.room():
        send(recovery, 40)
    assert RING - 128 < recovery.next <= RING - 64 + 40
    recovery.give_up(sent_before=1.0)
    recovery.on_status(report([recovery.next - 1]), 1.0)
    assert recovery.room()


def test_round_trip_and_rate() -> None:
    """Packets leave at 1 MB/s, arrive at half of it: the lower is told; the time that a report was held is not the path's."""
    recovery, told, gap = Recovery(), list[Report](), 10 * WHOLE / 1e6
    send(recovery, 10)
    for batch in range(40):
        send(recovery, 10, now=(batch + 1) * gap)  # so that there is always something in flight
        clock = 5.0 + batch * 2 * gap
        came = report(range(batch * 10 + 10), held_us=30_000, clock_us=int(clock * 1e6))
        told.append(recovery.on_status(came, batch * gap + 0.13))
    assert [item.rtt_s for item in told] == pytest.approx([0.1] * 40)
    assert recovery.srtt_s == pytest.approx(0.1)
    assert recovery.min_rtt_s == pytest.approx(0.1)
    assert [item.delivery_bytes_s for item in told[5:]] == pytest.approx([0.5e6] * 35, rel=0.001)


def test_a_round_trip_is_positive_whatever_is_claimed() -> None:
    recovery = Recovery()
    send(recovery, 1)
    assert recovery.on_status(report([0], held_us=2**32 - 1), 0.1).rtt_s == RTT_LEAST_S


def test_rounds_count_round_trips() -> None:
    recovery = Recovery()
    for number in range(10):
        send(recovery, 10)
        before = recovery.round
        recovery.on_status(report(range(number * 10 + 5)), 0.0)
        recovery.on_status(report(range(number * 10 + 10)), 0.0)
        assert recovery.round - before <= 2
    assert 10 <= recovery.round <= 20


def test_a_new_path_is_measured_anew() -> None:
    recovery = Recovery()
    send(recovery, 1)
    recovery.on_status(report([0]), 0.01)
    recovery.forget_path()
    assert recovery.srtt_s == RTT_FIRST_S
    send(recovery, 1, now=1.0)
    recovery.on_status(report([0, 1]), 1.5)
    assert recovery.srtt_s == recovery.min_rtt_s == pytest.approx(0.5)
