"""The node's clock: it never runs back, never stands still, and does not believe a great leap."""

from __future__ import annotations

import pytest

from labxchange.errors import InputError
from labxchange.node.clock import JUMP_BETWEEN_RUNS_MS, JUMP_RUNNING_MS, Clock, local_text, utc_text

NOON = 1_800_000_000_000
HOUR = 3_600_000


class Machine:
    """A wall clock that can be set, and time that passes."""

    def __init__(self, wall: int = NOON) -> None:
        self.wall, self.elapsed = wall, 5_000

    def clock(self, *, largest_seen: int = 0) -> Clock:
        return Clock(largest_seen=largest_seen, wall=lambda: self.wall, elapsed=lambda: self.elapsed)

    def pass_(self, milliseconds: int) -> None:
        self.wall += milliseconds
        self.elapsed += milliseconds


def test_it_tells_the_systems_time() -> None:
    machine = Machine()
    clock = machine.clock()
    assert clock.now() == NOON
    machine.pass_(HOUR)
    assert clock.now() == clock.largest == NOON + HOUR
    assert clock.jumps == []
    stamp = clock.stamp()
    assert (stamp.utc_ms, stamp.monotonic_ms, stamp.source) == (NOON + HOUR, HOUR, "system clock")


def test_small_corrections_are_not_told_and_do_not_turn_it_back() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall -= 5_000
    assert clock.now() == NOON
    machine.pass_(2_000)
    assert clock.now() == NOON, "it waits for the system's clock to catch up"
    machine.pass_(4_000)
    assert clock.now() == NOON + 1_000
    assert clock.jumps == []


def test_a_clock_set_back_does_not_stop_time() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall -= 365 * 24 * HOUR
    assert clock.now() == NOON
    assert clock.jumps == [(NOON, NOON - 365 * 24 * HOUR, True)]
    for hour in range(1, 4):
        machine.pass_(HOUR)
        assert clock.now() == NOON + hour * HOUR
    assert len(clock.jumps) == 1
    machine.wall = NOON + 3 * HOUR  # the system's clock is set right
    assert clock.now() == NOON + 3 * HOUR or clock.in_doubt


def test_a_clock_set_back_between_runs_goes_on_from_the_largest_time() -> None:
    machine = Machine()
    clock = machine.clock(largest_seen=NOON + 10 * HOUR)
    assert clock.jumps == [(NOON + 10 * HOUR, NOON, True)]
    assert clock.now() == NOON + 10 * HOUR
    machine.pass_(HOUR)
    assert clock.now() == NOON + 11 * HOUR
    machine.pass_(2 * HOUR)
    assert clock.now() == clock.largest == NOON + 13 * HOUR


def test_a_jump_of_hours_is_adopted_and_told() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall += 2 * HOUR
    assert clock.now() == NOON + 2 * HOUR
    assert clock.jumps == [(NOON, NOON + 2 * HOUR, True)]
    assert not clock.in_doubt


def test_a_leap_while_running_waits_for_a_person() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall += JUMP_RUNNING_MS + HOUR
    assert clock.now() == NOON
    assert clock.in_doubt
    machine.pass_(HOUR)
    assert clock.now() == NOON + HOUR, "time goes on by what elapsed"
    assert clock.stamp().source == "system clock, in doubt"
    assert clock.jumps == [(NOON, NOON + JUMP_RUNNING_MS + HOUR, False)]
    before, after = clock.reset()
    assert (before, after) == (NOON + HOUR, machine.wall)
    assert clock.now() == machine.wall
    assert not clock.in_doubt


def test_a_leap_that_is_undone_is_forgiven() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall += 48 * HOUR
    assert clock.now() == NOON
    machine.wall -= 48 * HOUR
    machine.pass_(1_000)
    assert clock.now() == NOON + 1_000
    assert not clock.in_doubt


def test_a_month_between_runs_waits_for_a_person() -> None:
    machine = Machine(NOON + JUMP_BETWEEN_RUNS_MS + HOUR)
    clock = machine.clock(largest_seen=NOON)
    assert clock.in_doubt
    assert clock.now() == NOON
    assert clock.jumps == [(NOON, machine.wall, False)]
    assert not Machine(NOON + JUMP_BETWEEN_RUNS_MS).clock(largest_seen=NOON).in_doubt


def test_a_reset_may_go_backwards() -> None:
    machine = Machine()
    clock = machine.clock(largest_seen=NOON + 20 * HOUR)
    assert clock.now() == NOON + 20 * HOUR
    assert clock.reset() == (NOON + 20 * HOUR, NOON)
    assert clock.now() == NOON
    machine.pass_(HOUR)
    assert clock.now() == NOON + HOUR


def test_a_time_that_no_calendar_has_is_adopted_by_nobody() -> None:
    machine = Machine()
    clock = machine.clock(largest_seen=NOON)
    machine.wall = 254_200_000_000_000  # in the year 10025
    assert clock.now() == NOON
    assert clock.in_doubt
    assert [utc_text(when) for _, when, _ in clock.jumps] == ["a time that does not exist"]
    with pytest.raises(InputError) as refused:
        clock.reset()
    assert refused.value.code == "clock-unusable"
    assert machine.clock().in_doubt, "also at the first start"
    machine.wall = NOON + HOUR
    assert clock.reset() == (NOON, NOON + HOUR)
    assert not clock.in_doubt


def test_times_for_people() -> None:
    assert utc_text(NOON) == "2027-01-15 08:00:00 UTC"
    assert local_text(NOON).startswith("2027-01-15T") or local_text(NOON).startswith("2027-01-14T")
