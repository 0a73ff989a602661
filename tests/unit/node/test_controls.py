"""How a node divides the paths of its outgoing transfers: whose word counts, where it acts, and that it ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from labxchange.node.controls import Controls
from labxchange.transfer.lanes import messages
from labxchange.transfer.lanes.leg import Leg
from labxchange.transfer.lanes.sending import Outgoing
from labxchange.wire.control.messages import Priority

MB = 1_000_000
LANE = b"lane-1"


class Watch:
    def forged(self, count: int) -> None: ...

    def moved(self, before: str, address: str) -> None: ...


class Worker:
    def order(self, order: messages.Order) -> None: ...


class Group:
    def __init__(self, leg: Leg) -> None:
        self.legs = [leg]


def going_out(peer: str, address: str, rate: int, *, own: Priority = "normal", theirs: Priority = "normal") -> Outgoing:
    worker: Any = Worker()
    leg = Leg(worker, 1, LANE)
    numbers: Any = dict.fromkeys(messages.LaneStats.__struct_fields__, 0)
    leg.hear(messages.LaneStats(**(numbers | {"lane": LANE, "sending": True, "rate_bytes_s": rate, "limit": "network"})), Watch())
    outgoing, group = Outgoing(peer=peer, address=address), Group(leg)
    outgoing.groups.append(group)  # type: ignore[arg-type]
    outgoing.choose(0, own)
    outgoing.peer_priority = theirs
    return outgoing


def controls_of(*items: Outgoing) -> tuple[Controls, dict[str, Outgoing]]:
    nothing: Any = None
    bulk: Any = SimpleNamespace(outgoing={str(number): item for number, item in enumerate(items)})
    return Controls(nothing, bulk, nothing), bulk.outgoing


def test_the_lower_is_held_to_its_part_until_it_is_alone() -> None:
    high, low = going_out("bo", "10.0.0.2", 90 * MB, own="high"), going_out("bo", "10.0.0.2", 10 * MB, own="low")
    controls, outgoing = controls_of(high, low)
    assert controls.divide(0.0)
    assert high.cap_bytes_s == 0
    assert low.cap_bytes_s == pytest.approx(100 * MB / 17)
    assert low.legs[0].cap_bytes_s == low.cap_bytes_s
    del outgoing["0"]
    assert not controls.divide(1.0)
    assert low.cap_bytes_s == 0


def test_only_what_goes_to_one_address_shares_a_path() -> None:
    high, low = going_out("bo", "10.0.0.2", 90 * MB, own="high"), going_out("cy", "10.0.0.3", 10 * MB, own="low")
    controls, _ = controls_of(high, low)
    assert not controls.divide(0.0)
    assert (high.cap_bytes_s, low.cap_bytes_s) == (0, 0)


def test_a_recipients_word_counts_among_their_own_alone() -> None:
    mine, other = going_out("bo", "10.0.0.2", 10 * MB, theirs="high"), going_out("bo", "10.0.0.2", 90 * MB)
    controls, _ = controls_of(mine, other)
    assert controls.divide(0.0)
    assert (mine.cap_bytes_s, other.cap_bytes_s) == (0, 45 * MB), "half of what it has, and less soon"
    theirs = going_out("cy", "10.0.0.2", 90 * MB)
    controls, _ = controls_of(mine, theirs)
    assert controls.divide(0.0)
    assert (mine.cap_bytes_s, theirs.cap_bytes_s) == (0, pytest.approx(63 * MB)), "as equals: they would take from others"
    chosen = going_out("bo", "10.0.0.2", 90 * MB, own="high", theirs="low")
    controls, _ = controls_of(mine, chosen)
    assert controls.divide(0.0)
    assert (mine.cap_bytes_s, chosen.cap_bytes_s) == (0, pytest.approx(63 * MB)), "as equals: the sender's own word counts first"
