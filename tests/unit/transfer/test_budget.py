"""How the path to one address is divided among transfers of different priorities."""

from __future__ import annotations

import random

import pytest

from labxchange.transfer.lanes.budget import FLOOR_BYTES_S, MEMORY_S, WEIGHTS, Capacity, Flow, divide
from labxchange.wire.control.messages import Priority

MB = 1e6


def flow(priority: Priority, rate_mb: float, **given: float | bool) -> Flow:
    return Flow(priority=priority, rate_bytes_s=rate_mb * MB, **given)  # type: ignore[arg-type]


def test_transfers_of_one_priority_share_by_themselves_until_one_falls_behind() -> None:
    for priority in WEIGHTS:
        assert divide([flow(priority, 48), flow(priority, 52)], capacity_bytes_s=100 * MB) == [0.0, 0.0]
        assert divide([flow(priority, 30), flow(priority, 70)], capacity_bytes_s=100 * MB) == [0.0, pytest.approx(49 * MB)]
        assert divide([flow(priority, 40), flow(priority, 60)], capacity_bytes_s=100 * MB) == [0.0, pytest.approx(45 * MB)]
        content = [flow(priority, 30, wants_more=False), flow(priority, 70)]
        assert divide(content, capacity_bytes_s=100 * MB) == [0.0, 0.0], "who wants no more is not behind"
    assert divide([flow("high", 100)], capacity_bytes_s=100 * MB) == [0.0]
    assert divide([], capacity_bytes_s=0.0) == []


def test_a_full_path_is_divided_by_weight_and_the_highest_stays_free() -> None:
    caps = divide([flow("low", 6), flow("normal", 25), flow("high", 74)], capacity_bytes_s=105 * MB)
    assert caps == [pytest.approx(5 * MB), pytest.approx(20 * MB), 0.0]
    caps = divide([flow("low", 33), flow("normal", 33), flow("high", 39)], capacity_bytes_s=105 * MB)
    assert caps == [16.5 * MB, pytest.approx(20 * MB), 0.0], "it gives way in steps"


def test_what_a_higher_one_does_not_want_is_left_to_the_lower() -> None:
    capped = [flow("high", 10, cap_bytes_s=10 * MB), flow("low", 60)]
    assert divide(capped, capacity_bytes_s=100 * MB) == [0.0, pytest.approx(90 * MB * 1.25)]
    slow_disk = [flow("high", 40, wants_more=False), flow("low", 30)]
    assert divide(slow_disk, capacity_bytes_s=100 * MB) == [0.0, pytest.approx(60 * MB * 1.25)]
    idle = [flow("high", 0, wants_more=False), flow("low", 30)]
    assert divide(idle, capacity_bytes_s=100 * MB) == [0.0, 0.0]
    pushed_aside = [flow("high", 5, cap_bytes_s=10 * MB), flow("low", 95)]
    assert divide(pushed_aside, capacity_bytes_s=100 * MB) == [0.0, pytest.approx(90 * MB)]


def test_the_lowest_is_never_starved() -> None:
    assert divide([flow("high", 0.09), flow("low", 0.01)], capacity_bytes_s=0.1 * MB)[1] == FLOOR_BYTES_S


@pytest.mark.parametrize("seed", range(20))
def test_caps_never_exceed_the_path_while_a_higher_class_is_hungry(seed: int) -> None:
    chance = random.Random(f"budget {seed}")
    names: list[Priority] = ["low", "normal", "high"]
    flows = [
        flow(
            chance.choice(names),
            chance.uniform(0, 50),
            cap_bytes_s=chance.choice([0.0, 5 * MB]),
            wants_more=chance.random() < 0.7,
        )
        for _ in range(chance.randint(1, 8))
    ]
    capacity = sum(item.rate_bytes_s for item in flows)
    caps = divide(flows, capacity_bytes_s=capacity)
    hungry = [WEIGHTS[item.priority] for item in flows if item.wants_more and not item.cap_bytes_s]
    below = [cap for cap, item in zip(caps, flows, strict=True) if hungry and WEIGHTS[item.priority] < max(hungry)]
    assert all(cap > 0 for cap in below)
    assert sum(below) <= capacity + FLOOR_BYTES_S * len(flows)
    highest = [(cap, item) for cap, item in zip(caps, flows, strict=True) if WEIGHTS[item.priority] == 16]
    assert all(cap < item.rate_bytes_s for cap, item in highest), "held only to give way to another of the highest"
    assert not any(cap for cap, _ in highest) or any(cap == 0 and item.wants_more for cap, item in highest)


def _on_a_path(capacity: float, flows: list[Flow], wanted: list[float], *, turns: int) -> list[float]:
    """Controllers that share fairly what their caps leave them, and a budget that looks at them again and again."""
    seen, rates = Capacity(), [item.rate_bytes_s for item in flows]
    for turn in range(turns):
        now = [
            Flow(priority=item.priority, rate_bytes_s=rate, wants_more=want > 1.05 * rate)
            for item, rate, want in zip(flows, rates, wanted, strict=True)
        ]
        caps = divide(now, capacity_bytes_s=seen.see(sum(rates), turn / 10))
        limits = [min(want, cap or want) for want, cap in zip(wanted, caps, strict=True)]
        left, open_ = capacity, set(range(len(flows)))
        share = [0.0] * len(flows)
        while open_:
            even = left / len(open_)
            small = {index for index in open_ if limits[index] <= even}
            for index in small or open_:
                share[index] = limits[index] if small else even
            left -= sum(limits[index] for index in small)
            open_ = open_ - small if small else set()
        rates = [rate + 0.3 * (part - rate) for rate, part in zip(rates, share, strict=True)]
    return rates


def test_it_settles_at_the_weights() -> None:
    high, low = _on_a_path(100 * MB, [flow("high", 1), flow("low", 1)], [1e12, 1e12], turns=200)
    assert 12 < high / low < 20
    assert high + low > 95 * MB


def test_a_lower_one_fills_what_a_higher_one_leaves_and_does_not_push_it_aside() -> None:
    high, low = _on_a_path(100 * MB, [flow("high", 1), flow("low", 1)], [60 * MB, 1e12], turns=300)
    assert high > 50 * MB
    assert high + low > 85 * MB


def test_capacity_is_the_most_of_the_last_seconds() -> None:
    seen = Capacity()
    assert [seen.see(rate, at) for rate, at in ((5.0, 0.0), (9.0, 1.0), (3.0, 2.0))] == [5.0, 9.0, 9.0]
    assert seen.see(4.0, 1.0 + MEMORY_S) == 9.0
    assert seen.see(2.0, 1.5 + MEMORY_S) == 4.0
