"""The bars of rate control, over modelled paths on a virtual clock (``tests.support.path``).

A transfer takes at most bytes / (0.98 of the ceiling) + 12 round trips, and what it has dropped in the bottleneck's queue is at
most 1.5 bandwidth-delay products + 1 % of what it sent. It shares a bottleneck with cubic and BBR, and ten of ours share it
evenly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from labxchange.wire.data.congestion import Controller
from labxchange.wire.data.congestion.fair import Fair
from labxchange.wire.data.congestion.fixed import Fixed
from tests.support.path.lane import Lane
from tests.support.path.link import Link
from tests.support.path.loss import Bursts, Nothing, Random, Silence, Then
from tests.support.path.scenario import MBIT, LyingLane, Run, shared, solo

GIB = 1 << 30
FOREIGN = {"c": "cubic", "b": "BBR"}


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A path of the benchmark, and how much moves over it."""

    mbit: int
    rtt_s: float
    loss: float
    total_bytes: int
    queue_s: float = 0.05


BENCH = (
    Profile(mbit=1000, rtt_s=0.001, loss=0.0001, total_bytes=2 * GIB, queue_s=0.005),
    Profile(mbit=1000, rtt_s=0.1, loss=0.0001, total_bytes=2 * GIB),
    Profile(mbit=1000, rtt_s=0.1, loss=0.01, total_bytes=2 * GIB),
    Profile(mbit=1000, rtt_s=0.2, loss=0.05, total_bytes=2 * GIB),
    Profile(mbit=200, rtt_s=0.25, loss=0.02, total_bytes=2 * GIB),
    Profile(mbit=20, rtt_s=0.6, loss=0.01, total_bytes=GIB // 4),
)


def bound_s(profile: Profile) -> float:
    """The longest that a transfer may take."""
    ceiling = profile.mbit * MBIT * (1.0 - profile.loss)
    return profile.total_bytes / (0.98 * ceiling) + 12 * profile.rtt_s


def transfer(profile: Profile, seed: int = 1) -> Run:
    return solo(
        mbit=profile.mbit,
        rtt_s=profile.rtt_s,
        loss=profile.loss,
        queue_s=profile.queue_s,
        total_bytes=profile.total_bytes,
        seconds=4 * bound_s(profile),
        seed=seed,
    )


def halves(link: Link, control: Controller) -> None:
    link.set_rate(link.rate_bytes_s / 2)


def doubles(link: Link, control: Controller) -> None:
    link.set_rate(link.rate_bytes_s * 2)


def assert_drops_little(run: Run) -> None:
    sent_bdp = run.link.tallies[0].sent / (run.rate_bytes_s * run.rtt_s)
    assert run.dropped_bdp <= 1.5 + 0.01 * sent_bdp


def assert_in_time(profile: Profile, run: Run) -> None:
    lane = run.flows[0]
    assert isinstance(lane, Lane)
    assert lane.finished_at is not None
    assert lane.finished_at <= bound_s(profile)
    assert_drops_little(run)


# --- one lane alone ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("profile", BENCH, ids=lambda p: f"{p.mbit}M-{1e3 * p.rtt_s:g}ms-{100 * p.loss:g}%")
def test_a_transfer_takes_no_longer_than_the_bar(profile: Profile) -> None:
    assert_in_time(profile, transfer(profile))


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(2, 8))
@pytest.mark.parametrize("profile", BENCH, ids=lambda p: f"{p.mbit}M-{1e3 * p.rtt_s:g}ms-{100 * p.loss:g}%")
def test_a_transfer_takes_no_longer_than_the_bar_whatever_is_lost(profile: Profile, seed: int) -> None:
    assert_in_time(profile, transfer(profile, seed))


@pytest.mark.parametrize(("mbit", "rtt_s"), [(100, 0.001), (100, 0.005), (1000, 0.02), (100, 0.1), (100, 0.3), (100, 0.6)])
@pytest.mark.parametrize("loss", [0.0001, 0.05])
def test_the_link_is_full_at_any_round_trip(mbit: int, rtt_s: float, loss: float) -> None:
    seconds = max(4.0, 60 * rtt_s)
    run = solo(mbit=mbit, rtt_s=rtt_s, loss=loss, queue_s=0.005 if rtt_s <= 0.001 else 0.05, seconds=seconds)
    assert run.share(0, seconds / 2) >= 0.98 * (1.0 - loss)


@pytest.mark.parametrize("burst_packets", [5, 20, 200])
def test_bursts_of_loss_do_not_slow_it_down(burst_packets: int) -> None:
    run = solo(mbit=1000, rtt_s=0.1, loss=Bursts(0.01, burst_packets, 1), seconds=20)
    assert run.share(0, 4.0) >= 0.98 * 0.99 * (1.0 if burst_packets < 100 else 0.97)
    assert_drops_little(run)


def test_more_loss_than_any_bar_names_leaves_most_of_the_link() -> None:
    run = solo(mbit=100, rtt_s=0.1, loss=0.1, seconds=20)
    assert run.share(0, 4.0) >= 0.9 * 0.9


@pytest.mark.parametrize("loss", [0.0, 0.01])
def test_a_shallow_queue_is_not_overrun_for_ever(loss: float) -> None:
    run = solo(mbit=100, rtt_s=0.1, queue_s=0.005, loss=loss, seconds=60)
    before = next(s for s in run.link.samples if s.now >= 30.0).tallies[0]
    after = run.link.tallies[0]
    assert (after.dropped - before.dropped) / (after.sent - before.sent) <= 0.02
    assert run.share(0, 30.0) >= 0.93 * (1.0 - loss)


def test_a_deep_queue_is_not_filled() -> None:
    run = solo(mbit=100, rtt_s=0.05, queue_s=1.0, seconds=10)
    waits = [s.queue_s for s in run.link.samples if s.now > 2.0]
    assert max(waits) <= 0.025
    assert run.share(0, 2.0) >= 0.99


# --- a path that changes ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rtt_s", [0.01, 0.05, 0.2])
def test_a_rate_that_halves_is_followed_within_a_second_or_ten_round_trips(rtt_s: float) -> None:
    run = solo(mbit=100, rtt_s=rtt_s, events=[(6, halves)], seconds=20)
    later = 6 + max(1.0, 10 * rtt_s)
    waits = sorted(s.queue_s for s in run.link.samples if s.now > later)
    assert waits[len(waits) * 9 // 10] <= 0.03
    assert run.share(0, later) >= 0.96 * 0.5


@pytest.mark.parametrize("rtt_s", [0.01, 0.05, 0.2])
def test_a_rate_that_doubles_is_found_within_two_seconds_or_twenty_round_trips(rtt_s: float) -> None:
    run = solo(mbit=100, rtt_s=rtt_s, events=[(6, doubles)], seconds=20)
    assert run.share(0, 6 + max(2.0, 20 * rtt_s)) >= 0.96 * 2


@pytest.mark.parametrize("rtt_s", [0.02, 0.1, 0.3])
def test_a_path_that_begins_to_lose_by_chance_is_still_filled(rtt_s: float) -> None:
    """More loss than before looks like excess, until less is sent and it stays."""
    run = solo(mbit=200, rtt_s=rtt_s, loss=Then(Random(0.001, 1), 8.0, Random(0.05, 2)), seconds=24)
    assert run.share(0, 8.0, 16.0) >= 0.93 * 0.95
    assert run.share(0, 16.0) >= 0.97 * 0.95


@pytest.mark.parametrize(
    ("mbit", "rtt_s", "jitter_s"), [(1000, 0.001, 0.003), (1000, 0.1, 0.010), (100, 0.02, 0.010), (200, 0.25, 0.030)]
)
def test_reports_that_come_late_are_no_queue(mbit: int, rtt_s: float, jitter_s: float) -> None:
    seconds = max(4.0, 60 * rtt_s)
    queue_s = 0.005 if rtt_s <= 0.001 else 0.05
    run = solo(mbit=mbit, rtt_s=rtt_s, loss=0.001, queue_s=queue_s, jitter_s=jitter_s, seconds=seconds)
    assert run.share(0, seconds / 2) >= 0.96


def test_ten_seconds_of_silence_are_over_in_a_few_round_trips() -> None:
    run = solo(mbit=100, rtt_s=0.05, loss=Silence(5, 15, Nothing()), seconds=20)
    sent = [s.tallies[0].sent for s in run.link.samples if 7.0 <= s.now <= 14.9]
    assert sent[-1] - sent[0] <= 0.07 * 8 * run.rate_bytes_s
    again = next(s.now for s in run.link.samples if s.now > 15 and s.notes[0] >= 0.9 * run.rate_bytes_s)
    heard = next(s.now for s in run.link.samples if s.now > 15 and s.notes[0] >= 0.1 * run.rate_bytes_s)
    assert again - heard <= 8 * run.rtt_s
    assert run.share(0, 16.0) >= 0.97


def test_having_little_to_send_neither_forgets_the_path_nor_grows() -> None:
    run = solo(mbit=100, rtt_s=0.05, application=lambda now: 0.1 * 100 * MBIT if 5 < now < 25 else 1e12, seconds=30)
    paced = [s.notes[0] / run.rate_bytes_s for s in run.link.samples if 6 < s.now < 25]
    assert min(paced) >= 0.9
    assert max(paced) <= 1.3
    assert run.share(0, 26.0) >= 0.97


def test_a_cap_holds_while_it_runs_and_leaves_no_trace() -> None:
    def cap(rate: float | None) -> Any:
        return lambda link, control: setattr(control, "cap_bytes_s", rate)

    control = Fair(cap_bytes_s=2e6)
    run = solo(
        mbit=100,
        rtt_s=0.05,
        control=control,
        events=[(5, cap(6e6)), (10, cap(None)), (15, cap(1e6)), (16, cap(None))],
        seconds=20,
    )
    assert 0.97 * 2e6 <= run.share(0, 1.0, 5.0) * run.rate_bytes_s <= 2.02e6
    assert 0.97 * 6e6 <= run.share(0, 6.0, 10.0) * run.rate_bytes_s <= 6.06e6
    assert run.share(0, 12.0, 15.0) >= 0.97
    assert run.share(0, 16.5) >= 0.95


def test_a_new_path_is_learned_anew() -> None:
    run = solo(mbit=100, rtt_s=0.05, events=[(5, lambda link, control: control.on_new_path(5.0))], seconds=10)
    assert min(s.notes[0] for s in run.link.samples if s.now > 5.0) <= 0.1 * run.rate_bytes_s
    assert run.share(0, 6.5) >= 0.97


def test_a_receiver_that_lies_about_time_gains_next_to_nothing() -> None:
    run = solo(mbit=100, rtt_s=0.05, lane=LyingLane, seconds=20)
    assert run.link.tallies[0].sent <= 1.15 * 20 * run.rate_bytes_s


# --- sharing ----------------------------------------------------------------------------------------------------------
CASES = [
    pytest.param(kinds, gap_s, queue_bdp, marks=[] if gap_s == 0.1 else [pytest.mark.campaign])
    for kinds in ("oc", "co", "ob", "bo")
    for gap_s in (0.1, 0.37, 1.3)
    for queue_bdp in (0.5, 1.0, 2.0)
]


@pytest.mark.parametrize(("kinds", "gap_s", "queue_bdp"), CASES)
def test_cubic_and_bbr_keep_their_share_and_leave_ours(kinds: str, gap_s: float, queue_bdp: float) -> None:
    run = shared(kinds, queue_bdp=queue_bdp, gap_s=gap_s, seed=round(10 * gap_s))
    least = 1 / 3 if queue_bdp >= 1.0 else 1 / 4
    assert run.share(0, 1.5) >= least
    assert run.share(1, 1.5) >= least


@pytest.mark.parametrize(
    "queue_bdp", [pytest.param(0.5, marks=pytest.mark.campaign), 1.0, pytest.param(2.0, marks=pytest.mark.campaign)]
)
def test_ten_of_ours_come_to_equal_rates(queue_bdp: float) -> None:
    run = shared("o" * 10, queue_bdp=queue_bdp)
    shares = [run.share(place, 30.0) for place in range(10)]
    assert max(shares) <= 1.2 * min(shares)
    assert sum(shares) >= 0.97


@pytest.mark.parametrize("queue_bdp", [0.5, 2.0])
def test_who_comes_later_gets_its_share(queue_bdp: float) -> None:
    run = shared("oo", queue_bdp=queue_bdp, gap_s=10.0)
    assert run.share(1, 30.0) >= 0.4
    assert run.share(0, 30.0) >= 0.4


# --- a fixed rate -----------------------------------------------------------------------------------------------------
def test_a_fixed_rate_is_kept_whatever_is_lost() -> None:
    run = solo(mbit=100, rtt_s=0.1, loss=0.05, control=Fixed(rate_bytes_s=5e6), seconds=10)
    assert run.share(0, 1.0) * run.rate_bytes_s == pytest.approx(0.95 * 5e6, rel=0.02)


def test_a_fixed_rate_above_the_path_bounds_what_is_in_flight() -> None:
    control = Fixed(rate_bytes_s=5 * 100 * MBIT)
    run = solo(mbit=100, rtt_s=0.1, control=control, seconds=5)
    assert control.window_bytes <= 2.5 * control.cap_bytes_s * 0.15
    assert run.share(0, 1.0) >= 0.95


def test_a_fixed_rate_stops_when_nobody_answers() -> None:
    run = solo(mbit=100, rtt_s=0.05, loss=Silence(2, 60, Nothing()), control=Fixed(rate_bytes_s=6e6), seconds=20)
    sent = [s.tallies[0].sent for s in run.link.samples if s.now >= 4.0]
    assert sent[-1] - sent[0] <= 0.15 * 16 * 6e6
