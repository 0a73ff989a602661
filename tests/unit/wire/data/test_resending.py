"""What was lost goes out again in batches, each datagram at its own place; what is not data is no silence."""

from __future__ import annotations

import random
from collections import Counter

from labxchange.wire.data.datagram import Offsets, offsets_of
from tests.support.lanes import Steady, Weather, World


def test_lost_datagrams_that_lie_apart_share_a_call() -> None:
    """At 10 % loss hardly two neighbours are lost: one call for each would be as many calls as losses."""
    data = random.Random(1).randbytes(4_000_000)
    world = World(1, data, Weather(loss=0.10, delay_s=0.1), controller=Steady(rate_bytes_s=40e6, window_bytes=16 << 20))
    batches = [0, 0]
    sender = world.sender
    before = sender.poll_transmit

    def counted(now: float) -> object:
        resent = sender._resent_bytes
        batch = before(now)
        if batch is not None and sender._resent_bytes > resent:
            batches[0] += 1
            batches[1] += -(-len(batch.data) // batch.size)
        return batch

    sender.poll_transmit = counted  # type: ignore[method-assign,assignment]
    world.ask(1, [(0, len(data))])
    world.run([(0, len(data))], limit_s=60.0)
    calls, datagrams = batches
    assert datagrams > 200
    assert datagrams > 3 * calls


def test_lost_probes_and_challenges_are_no_silence_of_the_path() -> None:
    """Nothing was asked for yet, and some of what the lane sends for itself is lost: what comes then is not slowed for it."""
    for seed in range(20):
        steady = Steady()
        world = World(seed, bytes(1_000), Weather(loss=0.3, delay_s=0.05), controller=steady)
        while world.now < 3.0:
            world.step()
        assert steady.silences == 0
        world.ask(1, [(0, 1_000)])
        world.run([(0, 1_000)], limit_s=60.0)


def times_sent(weather: Weather, *, window_bytes: int = 16 << 20, size: int = 400_000) -> Counter[int]:
    """How often each datagram's place went out, of a file all of which is sent within a round trip."""
    data = random.Random(1).randbytes(size)
    world = World(3, data, weather, controller=Steady(rate_bytes_s=40e6, window_bytes=window_bytes))
    counted: Counter[int] = Counter()
    recovery, before = world.sender.recovery, world.sender.recovery.sent

    def sent(count: int, *, offset: Offsets, length: int, room: int, now: float) -> None:
        if length:
            counted.update(offsets_of(offset, count, room).tolist() if isinstance(offset, int) else offset.tolist())
        before(count, offset=offset, length=length, room=room, now=now)

    recovery.sent = sent  # type: ignore[method-assign]
    world.ask(1, [(0, len(data))])
    world.run([(0, len(data))], limit_s=60.0)
    while world.now < 3.0:
        world.step()
    return counted


def test_what_was_lost_at_the_tail_goes_twice_more_while_the_path_stands_idle() -> None:
    counted = times_sent(Weather(loss=0.05, delay_s=0.1))
    assert counted[0] >= 1
    assert 4 in counted.values(), "once, again, and twice more"
    assert sum(counted.values()) < 1.5 * len(counted)
    assert sum(count > 1 for count in counted.values()) < len(counted) / 5, "only of what was lost"


def test_nothing_goes_once_more_where_much_is_lost() -> None:
    counted = times_sent(Weather(loss=0.3, delay_s=0.1))
    assert sum(counted.values()) < 2 * len(counted)
