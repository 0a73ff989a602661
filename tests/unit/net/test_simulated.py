"""The virtual clock: it jumps to the next timer, and never stands still under work that waits for it to move."""

from __future__ import annotations

import asyncio

from labxchange.net.simulated import run_virtual

GIVE_UP = 1000


def test_a_timer_that_finds_nothing_due_yet_fires_again_only_a_few_times() -> None:
    """As loss recovery does: what was sent is lost when ``sent <= now - delay``, and that is asked at ``sent + delay``."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        # Over 1,024 s the last digit is coarser: for some delays rounding says that ``sent + delay`` comes too early.
        await asyncio.sleep(23.95)
        sent = loop.time()
        delay = next(item for item in (0.1 + number * 1e-5 for number in range(1000)) if sent > (sent + item) - item)
        lost: asyncio.Future[int] = loop.create_future()
        turns = 0

        def on_timer() -> None:
            nonlocal turns
            turns += 1
            if sent <= loop.time() - delay or turns == GIVE_UP:
                lost.set_result(turns)
            else:
                loop.call_at(sent + delay, on_timer)

        loop.call_at(sent + delay, on_timer)
        return await lost

    assert run_virtual(main()) <= 5


def test_hours_pass_at_once_and_to_the_point() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(1000):
            await asyncio.sleep(0)
        await asyncio.sleep(7 * 3600)
        return loop.time() - begun

    assert abs(run_virtual(main()) - 7 * 3600) < 1e-4
