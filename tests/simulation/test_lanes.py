"""Lanes on a virtual clock and a link that does what networks do: always exactly the right bytes, never a nonce twice.

Each case prints its seed. ``LABXCHANGE_SEED`` sets it, ``LABXCHANGE_SEEDS`` how many random cases are run,
``LABXCHANGE_SEALS`` and ``LABXCHANGE_FORGED`` the amounts of the campaigns (10 million each).
"""

from __future__ import annotations

import os
import random
from itertools import pairwise
from typing import Any

import pytest

from labxchange.wire.data.datagram import SIZES
from labxchange.wire.data.events import Moved, Worn
from labxchange.wire.data.lane import Batch
from tests.fuzz.evil import resident_bytes
from tests.support.lanes import DIALLER, LISTENER, Audit, Steady, Weather, World

SEED = os.environ.get("LABXCHANGE_SEED", "1")
SEEDS = int(os.environ.get("LABXCHANGE_SEEDS", "12"))
SEALS = int(os.environ.get("LABXCHANGE_SEALS", "10000000"))
FORGED = int(os.environ.get("LABXCHANGE_FORGED", "10000000"))
BYTES = 600_000
DATA = random.Random(f"lanes/{SEED}").randbytes(4_000_000)


def ask_all(world: World, chance: random.Random) -> list[tuple[int, int]]:
    """The line in pieces, in an order of chance, in a few requests."""
    size = len(world.data)
    cuts = sorted({0, size, *(chance.randrange(size) for _ in range(8))})
    ranges = list(pairwise(cuts))
    chance.shuffle(ranges)
    for number in range(0, len(ranges), 3):
        world.ask(number, ranges[number : number + 3])
    return ranges


WEATHERS: dict[str, dict[str, Any]] = {
    "clean": {},
    "loss of 1 %": {"loss": 0.01},
    "loss of 10 %": {"loss": 0.1},
    "bursts of 200": {"bursts": (0.08, 0.2, 0.3)},
    "reordering by 100": {"late": 0.05, "late_by": 100},
    "everything twice": {"twice": 1.0},
    "any byte changed": {"damage": 0.05},
    "silence of 10 s": {"silences": ((0.15, 10.15),)},
    "silence at once": {"silences": ((0.0, 9.0),)},
    "1 ms": {"delay_s": 0.0005},
    "600 ms": {"delay_s": 0.3, "jitter_s": 0.02, "loss": 0.01},
    "datagrams of 1,200 only": {"mtu": 1_250},
    "datagrams of 1,500": {"mtu": 1_500, "loss": 0.02},
    "all of it": {"loss": 0.03, "twice": 0.03, "damage": 0.02, "late": 0.03, "jitter_s": 0.003, "bursts": (0.2,)},
}


@pytest.mark.parametrize("sender_dials", [True, False], ids=["sender dials", "receiver dials"])
@pytest.mark.parametrize("name", WEATHERS)
def test_exactly_the_right_bytes(name: str, sender_dials: bool) -> None:
    seed = f"{SEED}/{name}/{sender_dials}"
    print("seed", seed)
    audit = Audit()
    world = World(seed, DATA[:BYTES], Weather(**WEATHERS[name]), sender_dials=sender_dials, audit=audit)
    ranges = ask_all(world, world.random)
    world.run(ranges, limit_s=60.0)
    assert audit.sealed == world.sender.sent_datagrams + world.receiver.sent_datagrams
    lost = world.sender._lost_packets * world.sender.size
    resent = world.sender._resent_bytes
    assert resent <= 2 * lost + 0.02 * BYTES + world.controller.window_bytes * world.controller.silences, "sent again for nothing"
    if name in ("clean", "everything twice"):
        assert resent == 0
    if name == "any byte changed":
        assert world.receiver.forged
    mtu = WEATHERS[name].get("mtu", 9_000)
    assert world.sender.size <= max(size for size in SIZES if size + 28 <= mtu)
    if name in ("clean", "1 ms"):
        assert world.sender.size == SIZES[-1]


@pytest.mark.parametrize("number", range(SEEDS))
def test_whatever_the_network_does(number: int) -> None:
    seed = f"{SEED}/{number}"
    print("seed", seed)
    chance = random.Random(seed)
    gone_at = chance.randrange(BYTES)
    weather = Weather(
        delay_s=chance.choice([0.0005, 0.01, 0.05, 0.15]),
        jitter_s=chance.choice([0.0, 0.001, 0.01]),
        loss=chance.choice([0.0, 0.001, 0.02, 0.1]),
        twice=chance.choice([0.0, 0.05]),
        damage=chance.choice([0.0, 0.01, 0.05]),
        late=chance.choice([0.0, 0.05]),
        bursts=tuple(sorted(chance.uniform(0, 2) for _ in range(chance.randrange(3)))),
        silences=((at := chance.uniform(0, 2), at + chance.uniform(0, 6)),) if chance.random() < 0.3 else (),
        mtu=chance.choice([1_250, 1_500, 1_500, 9_000]),
    )
    world = World(
        seed,
        DATA[:BYTES],
        weather,
        sender_dials=chance.random() < 0.5,
        controller=Steady(rate_bytes_s=chance.choice([3e5, 2e6, 2e7]), window_bytes=chance.choice([20_000, 200_000, 1 << 22])),
        gone=[(gone_at, min(gone_at + 50_000, BYTES))] if chance.random() < 0.4 else (),
        audit=Audit(),
    )
    world.unready = chance.choice([0.0, 0.3])
    if chance.random() < 0.3:
        begin = chance.uniform(0.0, 1.0)
        world.ends[chance.randrange(2)].sleeps = [(begin, begin + chance.uniform(0.1, 8))]
    world.run(ask_all(world, chance), limit_s=200.0)


# --- changes under way ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sender_dials", [True, False], ids=["sender dials", "receiver dials"])
def test_the_dialling_side_moves_to_another_address(sender_dials: bool) -> None:
    """The listener follows, challenges the new address, and starts anew there; three times what came is the most until then."""
    steady = Steady(rate_bytes_s=1e6)
    world = World(SEED, DATA, Weather(loss=0.01), sender_dials=sender_dials, controller=steady, audit=Audit())
    ranges = ask_all(world, world.random)
    places = [("10.0.7.7", 2_000), ("10.0.7.7", 2_001), ("10.0.9.9", 2_000)]
    for at, place in zip((1.1, 2.2, 3.3), places, strict=True):
        while world.now < at:
            world.step()
        world.dialler.address = place
    world.run(ranges, limit_s=60.0)
    assert [event.address for event in world._events(Moved)] == places
    assert world.listener.machine.address == places[-1]
    assert steady.new_paths == (0 if sender_dials else 3)


def test_the_listening_side_moves_and_the_lane_ends() -> None:
    """Its new address is no part of this lane: both ends say so in time, and another lane is opened."""
    world = World(SEED, DATA[:BYTES], Weather())
    world.ask(1, [(0, BYTES)])
    while world.now < 0.1:
        world.step()
    world.listener.address = ("10.0.8.8", 47_100)
    while not (world.sender.is_dead and world.receiver.is_dead):
        world.step()
    assert set(world.failed()) == {"lane-silent"}
    assert world.now < 21.0


@pytest.mark.parametrize("who", ["dialler", "listener"])
@pytest.mark.parametrize("sender_dials", [True, False], ids=["sender dials", "receiver dials"])
def test_one_side_sleeps(who: str, sender_dials: bool) -> None:
    world = World(SEED, DATA[:BYTES], Weather(), sender_dials=sender_dials, audit=Audit())
    getattr(world, who).sleeps = [(0.1, 12.0)]
    world.run(ask_all(world, world.random), limit_s=60.0)
    assert world.now > 12.0


@pytest.mark.parametrize("start", [0, 100_000, BYTES - 30_000])
def test_files_that_are_gone_half_way(start: int) -> None:
    """The rest comes; what is gone is told with the requests that asked for it, and nothing waits for it."""
    world = World(SEED, DATA[:BYTES], Weather(loss=0.02), audit=Audit())
    ranges = ask_all(world, world.random)
    while world.now < 0.1:
        world.step()
    world.gone.append((start, start + 30_000))
    world.run(ranges, limit_s=60.0)


def test_a_path_that_shrinks() -> None:
    """Full frames of 9,000 bytes are used, then carried no more: the lane falls back to what every path carries."""
    world = World(SEED, DATA[:BYTES], Weather(), audit=Audit())
    world.ask(1, [(0, BYTES)])
    while world.sender.size != SIZES[-1]:
        world.step()
    world.weather = Weather(mtu=1_500)
    world.run([(0, BYTES)], limit_s=60.0)
    assert world.sender.size <= 1_472


def test_the_rate_is_kept() -> None:
    world = World(SEED, DATA, Weather(), controller=Steady(rate_bytes_s=1e6))
    world.ask(1, [(0, len(DATA))])
    while world.now < 2.0:
        world.step()
    assert world.sender.sent_bytes == pytest.approx(2e6, rel=0.05)
    world.controller.rate_bytes_s = 4e6
    begun, sent = world.now, world.sender.sent_bytes
    while world.now < begun + 0.4:
        world.step()
    assert world.sender.sent_bytes - sent == pytest.approx(1.6e6, rel=0.05)


# --- campaigns --------------------------------------------------------------------------------------------------------
def _nonces(seals: int, kilobytes: int) -> int:
    """Transfers one after the other, four lanes each, with loss, damage, sleep, crashes (a new lane each) and resends, under one
    audit: whatever happens, no key seals a number twice."""
    audit, number, resent = Audit(), 0, 0
    while audit.sealed < seals:
        number += 1
        seed = f"{SEED}/nonces/{number}"
        chance = random.Random(seed)
        for _ in range(4):
            data = DATA[: kilobytes * 1_000]
            loss, damage = chance.choice([0.0, 0.05]), chance.choice([0.0, 0.02])
            weather = Weather(delay_s=0.005, loss=loss, damage=damage, twice=0.01, mtu=1_250)
            world = World(
                seed,
                data,
                weather,
                sender_dials=chance.random() < 0.5,
                controller=Steady(rate_bytes_s=2e7, window_bytes=1 << 21),
                audit=audit,
                lane=chance.randbytes(6),
            )
            world.ask(1, [(0, len(data))])
            crash = chance.uniform(0.0, 0.3) if chance.random() < 0.3 else 1e9
            while not world.is_done([(0, len(data))]) and world.now < crash:
                world.step()
            resent += world.sender._resent_bytes
    assert resent
    return audit.sealed


def test_no_nonce_comes_twice() -> None:
    print("seed", SEED)
    assert _nonces(8_000, 700) >= 8_000


@pytest.mark.campaign
def test_no_nonce_comes_twice_in_ten_million_seals() -> None:
    print("seed", SEED, "seals", _nonces(SEALS, 4_000))


def test_an_audit_finds_a_nonce_that_comes_twice() -> None:
    """So that the tests above can fail: a lane id that is used again, as a worker that lost its state would."""
    audit = Audit()
    for _ in range(2):
        world = World(SEED, DATA[:10_000], Weather(), audit=audit)
        world.ask(1, [(0, 10_000)])
        if world.sender.sent_datagrams or audit.sealed:
            with pytest.raises(AssertionError, match="twice"):
                world.run([(0, 10_000)])
            return
        world.run([(0, 10_000)])
    raise AssertionError("the second was not noticed")


def _forge(world: World, chance: random.Random) -> bytes:
    """A datagram that no honest end sent: of an honest one that is fresh, or of nothing."""
    data = bytearray(chance.choice(world.captured)[0]) if world.captured else bytearray(chance.randbytes(60))
    way = chance.randrange(6)
    if way == 0:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif way == 1:  # ahead of the honest one of that number
        data[8:12] = (int.from_bytes(data[8:12], "big") + chance.randrange(1, 60)).to_bytes(4, "big")
    elif way == 2:
        data[12:20] = chance.randbytes(8)
    elif way == 3:
        data[20:] = chance.randbytes(len(data) - 20)
    elif way == 4:
        del data[chance.randrange(len(data)) :]
        data += b"" if data else b"\1"
    else:
        data[8:12] = chance.randbytes(4)
        data[1] ^= 1
    return bytes(data)


def _flood(count: int, *, each: int) -> tuple[float, int]:
    """Forged datagrams at one live lane, ``each`` for each honest one and from its address, while the lane carries the same bytes
    over and over: the worst share of the rate without them, and how much memory grew after a while. The clock is virtual, so
    the rate is what is lost to confusion; what opening costs is measured by the bench."""
    chance = random.Random(f"{SEED}/flood")
    world = World(f"{SEED}/flood", DATA[:3_000_000], Weather(delay_s=0.004, mtu=1_250))
    world.capture = True
    whole = [(0, len(world.data))]
    times: list[float] = []
    given = before = 0
    while given < count:
        begun = world.now
        world.complete[:] = False
        world.ask(len(times), whole)
        while world.assembly._units or not world.is_done(whole):
            known = len(world.captured)
            world.step()
            honest = len(world.captured) - known
            del world.captured[:-100]
            for _ in range(each * honest if times else 0):
                place = chance.randrange(2)
                world.inject(place, _forge(world, chance), (LISTENER, DIALLER)[place], at=world.now + chance.uniform(0, 0.008))
                given += 1
        times.append(world.now - begun)
        assert bytes(world.out) == world.data
        world.out[:] = bytes(len(world.out))
        assert not world.failed()
        assert not [event for event in world._events(Worn) if event.why != "forged"]
        for end in world.ends:
            end.events.clear()
        world.controller.heard.clear()
        before = before or (resident_bytes() if len(times) > 1 else 0)
    assert world.sender.forged + world.receiver.forged > 0.4 * count, "the rest bore numbers that had come"
    return times[0] / max(times[1:]), resident_bytes() - before


def test_forged_datagrams_at_a_live_lane() -> None:
    print("seed", SEED)
    share, _ = _flood(6_000, each=2)
    assert share > 0.5


@pytest.mark.campaign
def test_ten_million_forged_datagrams() -> None:
    share, grown = _flood(FORGED, each=8)
    print(f"seed {SEED}, {FORGED:,} forged; {share:.0%} of the rate, {grown / 2**20:.1f} MiB more")
    assert share > 0.5
    assert grown < 30 << 20


def test_forged_datagrams_wear_the_lane_and_do_not_end_it() -> None:
    """A million failed openings ask for a new lane id; the old one goes on."""
    world = World(SEED, DATA[:BYTES], Weather(), audit=Audit())
    world.ask(1, [(0, BYTES)])
    while world.now < 0.1:
        world.step()
    world.receiver.forged = (1 << 20) - 1
    junk = memoryview(bytes([1, 0]) + b"lane-1" + (5_000).to_bytes(4, "big") + bytes(100))
    world.receiver.receive(Batch(junk, len(junk), DIALLER), world.now)
    world.run([(0, BYTES)])
    assert [event.why for event in world._events(Worn)] == ["forged"]
