"""The parts of rate control, one by one; how they do together is for ``tests/simulation/test_rate_control.py``."""

from __future__ import annotations

import random

import pytest

from labxchange.wire.data.congestion import Feedback
from labxchange.wire.data.congestion.fair import Fair
from labxchange.wire.data.congestion.fixed import Fixed
from labxchange.wire.data.congestion.look import PERIOD_S, Look, Verdict
from labxchange.wire.data.congestion.path import BEHIND_BYTES, LOSS_MAX, Path
from labxchange.wire.data.congestion.start import AHEAD, GAIN, GROW, SPAN_MIN_S, START_BYTES, START_BYTES_S, START_S, TIMES


def told(
    now: float, *, rtt_s: float | None = 0.1, acked: int = 100, lost: int = 0, rate: float = 1e6, round_: int = 0
) -> Feedback:
    return Feedback(
        now=now,
        rtt_s=rtt_s,
        acked_bytes=1_200 * acked,
        acked_packets=acked,
        lost_bytes=1_200 * lost,
        lost_packets=lost,
        delivery_bytes_s=rate,
        in_flight_bytes=0,
        limited=False,
        round=round_,
    )


def seen(*rtts_s: float, start: float = 0.0) -> Path:
    path = Path()
    for number, rtt_s in enumerate(rtts_s):
        path.add(told(start + 0.1 * number, rtt_s=rtt_s, round_=number), limited=False)
    return path


def test_the_delivery_rate_is_the_highest_of_ten_rounds() -> None:
    path = Path()
    for number, rate in enumerate([1e6, 5e6, *[2e6] * 9]):
        path.add(told(0.1 * number, rate=rate, round_=number), limited=False)
    assert path.delivery_bytes_s == 5e6
    for number in range(11, 16):
        path.add(told(0.1 * number, rate=2e6, round_=number), limited=False)
    assert path.delivery_bytes_s == 2e6


def test_rounds_with_little_to_send_make_it_forget_nothing() -> None:
    path = Path()
    path.add(told(0.0, rate=5e6), limited=False)
    for number in range(1, 100):
        path.add(told(0.1 * number, rate=1e5, round_=number), limited=True)
    assert path.delivery_bytes_s == 5e6


def test_chance_loss_is_made_up_for_within_a_bound() -> None:
    path = Path()
    for number in range(200):
        ended = path.add(told(0.1 * number, lost=50, round_=number), limited=False)
        if ended is not None:
            path.learn_loss(ended, by_chance=True)
    assert path.loss == LOSS_MAX


def test_loss_beyond_chance_and_noise_is_excess() -> None:
    path = Path()
    for number in range(200):
        ended = path.add(told(0.1 * number, acked=950, lost=50, round_=number), limited=False)
        if ended is not None:
            path.learn_loss(ended, by_chance=number % 2 == 0)
    assert path.excess == 0.0
    for number in range(200, 240):
        ended = path.add(told(0.1 * number, acked=850, lost=150, round_=number), limited=False)
        if ended is not None:
            path.learn_loss(ended, by_chance=False)
    assert 0.05 <= path.excess <= 0.1


def test_a_queue_that_grows_is_no_jitter_and_jitter_is_no_queue() -> None:
    growing = seen(*(0.1 + 0.002 * number for number in range(30)))
    assert growing.jitter_s < 1e-9
    assert growing.queue_s == pytest.approx(0.054)
    shaking = seen(*(0.1 + 0.01 * (number * 7 % 10) / 10 for number in range(30)))
    assert shaking.queue_s <= 0.003


@pytest.mark.parametrize(
    ("after_s", "lost", "verdict"),
    [(0.1005, False, Verdict.OURS), (0.140, False, Verdict.OTHERS), (0.149, True, Verdict.OTHERS)],
)
def test_a_look_tells_whose_queue_drains(after_s: float, lost: bool, verdict: Verdict) -> None:
    path = seen(0.1, 0.15, 0.15, 0.15)
    look = Look()
    look.begin(1.0, queue_s=0.05, path=path)
    assert look.yielding(1.1)
    assert look.saw(1.12, 0.15, lost=lost, path=path) is None
    for number in range(4):
        path.add(told(1.3 + 0.1 * number, rtt_s=after_s, round_=10 + number), limited=False)
    assert look.saw(1.7, after_s, lost=lost, path=path) is verdict
    assert not look.open


def test_a_way_that_became_longer_is_no_queue() -> None:
    path = Path()
    path.rtt_min_s = 0.1
    for number in range(4):
        path.add(told(20.0 + 0.1 * number, rtt_s=0.150 + 0.0005 * number, round_=number), limited=False)
    look = Look()
    look.begin(21.0, queue_s=0.05, path=path)
    assert look.saw(22.0, 0.15, lost=False, path=path) is Verdict.LONGER


def test_all_lanes_of_a_machine_look_at_once_and_who_found_others_less_often() -> None:
    path = seen(0.05)
    early, late = Look(), Look()
    early.due(0.1, path)
    late.due(1.9, path)
    times = [0.05 * number for number in range(40, 400)]
    assert [now for now in times if early.due(now, path)] == [now for now in times if late.due(now, path)]
    assert sum(int(now / PERIOD_S) != int((now - 0.05) / PERIOD_S) for now in times) >= 6


@pytest.mark.parametrize("rtt_s", [0.01, 0.1, 0.4])
def test_fair_starts_at_ten_megabits_or_32_datagrams_a_round_trip_and_grows_by_its_factor_at_most(rtt_s: float) -> None:
    control = Fair()
    assert control.rate_bytes_s == START_BYTES_S
    assert control.window_bytes == START_BYTES_S * START_S
    sent = START_BYTES_S * rtt_s
    for number in range(5):
        control.on_feedback(told(rtt_s * (number + 1), rtt_s=rtt_s, acked=int(sent / 1_200), rate=sent / rtt_s, round_=number))
        grown = control.rate_bytes_s * rtt_s
        # All of a round trip is acknowledged at once here, so it grows a little more than by TIMES.
        assert TIMES * sent <= grown + 4_000 <= max(GAIN * START_BYTES, sent) * (1.0 + GAIN * GROW) + 4_000
        sent = grown


def test_a_receiver_that_is_slower_than_its_path_is_not_sent_more_than_it_can_hold() -> None:
    control, arriving, rtt_s = Fair(), 400e6, 0.0002
    for number in range(400):
        now = 0.002 * (number + 1)
        acked = int(arriving * 0.002 / 1_200)
        control.on_feedback(told(now, rtt_s=rtt_s, acked=acked, rate=arriving if number > 4 else 0.0, round_=number))
        if number > 4:
            assert control.rate_bytes_s <= AHEAD * (arriving + START_BYTES / rtt_s)
        assert control.window_bytes <= BEHIND_BYTES + AHEAD * arriving * rtt_s


@pytest.mark.parametrize("seed", [0, 1, 3, 4, 5])
def test_the_pace_is_back_soon_after_a_receiver_was_busy(seed: int) -> None:
    control, chance, now = Fair(), random.Random(seed), 0.0

    def reported(seconds: float, most_bytes_s: float) -> float:
        """For so long a receiver takes no more; returns when it was first sent 85 % of that."""
        nonlocal now
        begin, there_at = now, float("inf")
        while now < begin + seconds:
            now += 0.005
            arriving = min(control.rate_bytes_s, most_bytes_s) * (1.0 - 0.3 * chance.random())
            rtt_s = 0.0003 + 0.0004 * chance.random()
            acked = int(arriving * 0.005 / 1_200)
            control.on_feedback(told(now, rtt_s=rtt_s, acked=acked, rate=arriving, round_=int(now / 0.005)))
            if control.rate_bytes_s > 0.85 * most_bytes_s:
                there_at = min(there_at, now)
        return there_at - begin

    reported(1.0, 800e6)
    reported(0.5, 300e6)
    assert control.rate_bytes_s < 400e6
    assert reported(1.0, 800e6) < 0.25


@pytest.mark.parametrize("rtt_s", [0.0001, 0.001, SPAN_MIN_S])
def test_a_start_step_takes_four_milliseconds_on_the_shortest_way(rtt_s: float) -> None:
    control, sent = Fair(), 0
    for number in range(4):
        control.on_feedback(told(0.002 * (number + 1), rtt_s=rtt_s, acked=32, rate=0.0, round_=number))
        sent += 32 * 1_200
        assert control.rate_bytes_s == pytest.approx(GAIN * (START_BYTES + GROW * sent) / SPAN_MIN_S)


def test_fair_keeps_its_cap_and_nearly_stops_in_silence() -> None:
    control = Fair(cap_bytes_s=1e6)
    for number in range(20):
        control.on_feedback(told(0.1 * (number + 1), acked=1_000, rate=1e7, round_=number))
    assert control.rate_bytes_s == 1e6
    control.cap_bytes_s = None
    before = control.rate_bytes_s
    for _ in range(5):
        control.on_silence(3.0)
    assert control.rate_bytes_s <= before / 10


def test_rounds_of_which_no_rate_is_known_do_not_stop_a_lane() -> None:
    """A queue that stands, and reports that say nothing of the rate: the lane slows down as the queue says, not to nothing."""
    fair = Fair()
    for number in range(60):
        fair.on_feedback(told(0.02 * number, rtt_s=0.06 if 10 < number < 15 else 0.02, round_=number))
    steady = fair.rate_bytes_s
    assert 0.7e6 < steady < 1.3e6
    for number in range(60, 65):
        fair.on_feedback(told(0.02 * number, rtt_s=0.06, rate=0.0, round_=number))
    assert fair.rate_bytes_s > steady / 4


def test_fixed_keeps_its_rate_and_two_round_trips_in_flight() -> None:
    control = Fixed(rate_bytes_s=1e7)
    control.on_feedback(told(0.1, rtt_s=0.2))
    assert control.rate_bytes_s == 1e7
    assert 4.0e6 <= control.window_bytes <= 4.4e6
    control.on_silence(1.0)
    assert control.rate_bytes_s < 2e6
    control.on_feedback(told(1.2, rtt_s=0.2))
    assert control.rate_bytes_s == 1e7
    control.on_new_path(2.0)
    assert control.window_bytes < 4.0e6
