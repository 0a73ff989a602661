"""Rates over QUIC: the bucket, its waiting, and the measuring."""

from __future__ import annotations

import asyncio

import pytest

from labxchange.net.simulated import run_virtual
from labxchange.transfer.metering import Meter
from labxchange.transfer.pace import Pace


def test_what_passes_is_the_rate_whatever_the_sizes() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        pace, passed, began = Pace(1_000_000), 0, loop.time()
        sizes = [1_000, 250_000, 40_000, 7, 100_000] * 20

        async def stream(mine: list[int]) -> None:
            nonlocal passed
            for size in mine:
                await pace.take(size)
                passed += size

        await asyncio.gather(*(stream(sizes[start::4]) for start in range(4)))
        assert passed == sum(sizes)
        assert passed / 1_000_000 - 0.3 <= loop.time() - began <= passed / 1_000_000

    run_virtual(story())


def test_without_a_limit_nothing_waits_and_a_burst_is_short() -> None:
    pace = Pace()
    pace.spend(10**9, 5.0)
    assert pace.wait_s(5.0) == 0.0
    pace = Pace(1_000)
    pace.spend(10, 100.0)
    assert pace.wait_s(100.0) == 0.0, "a little is saved up"
    pace.spend(1_000, 100.0)
    assert pace.wait_s(100.0) == pytest.approx(0.96)


def test_who_waits_for_an_old_rate_is_woken_by_a_new_one() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        pace = Pace(1_000)
        await pace.take(1_000_000)
        waiting = asyncio.ensure_future(pace.take(1))
        await asyncio.sleep(1.0)
        assert not waiting.done()
        before = loop.time()
        pace.set_rate(0)
        await waiting
        assert loop.time() - before < 0.001

    run_virtual(story())


def test_a_meter_knows_the_last_second() -> None:
    meter = Meter()
    assert meter.per_second(0.0) == 0.0
    for tenth in range(1, 51):
        meter.add(10.0, tenth / 10)
    assert meter.total == 500.0
    assert meter.per_second(5.0) == pytest.approx(100.0, rel=0.11)
    assert meter.in_window(5.0) == pytest.approx(100.0, rel=0.11)
    assert meter.per_second(5.5) == pytest.approx(50.0, rel=0.25)
    assert meter.in_window(7.0) == 0.0
    meter.reach(700.0, 60.0)
    assert meter.per_second(60.2) < 200.0 / 1.0 + 1, "not what came in a moment, as if it came all the time"
    assert meter.in_window(60.2) == 200.0
