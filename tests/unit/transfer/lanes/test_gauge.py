"""What a worker says of its lanes, and what the node makes of it: limits, losses, forgeries, moves, one rate for all lanes."""

from __future__ import annotations

from typing import Any

import pytest

from labxchange.transfer.lanes import messages
from labxchange.transfer.lanes.gauge import BACKLOG_UNITS, Busy, Gauge
from labxchange.transfer.lanes.leg import Leg, view
from labxchange.transfer.lanes.sending import Outgoing
from labxchange.wire.data.sender import SenderStats

LANE = b"lane-1"


class Socket:
    drops = 3
    received_datagrams = 90
    received_calls = 30


class Controller:
    def __init__(self, rate: float, cap: float | None) -> None:
        self.rate_bytes_s = rate
        self.cap_bytes_s = cap


class Sending:
    """A sender with the stats that a test says."""

    received_bytes = forged = 0
    size = 1_472

    def __init__(self, limit: str, *, remote_dropped: int = 0, **given: Any) -> None:
        self.remote_dropped = remote_dropped
        numbers = dict.fromkeys(SenderStats.__struct_fields__, 0) | {"min_rtt_s": 0.1, "rtt_s": 0.2} | given
        self._stats = SenderStats(**(numbers | {"limit": limit}))

    def stats(self) -> SenderStats:
        return self._stats


class Receiving:
    forged = sent_bytes = dropped = 0
    largest = 8_972

    def __init__(self) -> None:
        self.due_datagrams = self.received_datagrams = self.received_bytes = 0
        self.rtt_s = self.min_rtt_s = 0.1

    def take(self, due: int, came: int) -> None:
        self.due_datagrams += due
        self.received_datagrams += came
        self.received_bytes += 1_000 * came


def of_sender(limit: str, *, rate: float = 5e6, cap: float | None = None, busy: bool = False, **given: Any) -> messages.LaneStats:
    sender: Any = Sending(limit, **given)
    return Gauge().of_sender(LANE, sender, Controller(rate, cap), Socket(), busy=busy, now=1.0)


@pytest.mark.parametrize(
    ("limit", "given", "told"),
    [
        ("nothing to send", {}, "peer"),
        ("disk", {}, "disk"),
        ("rate", {}, "network"),
        ("network", {}, "network"),
        ("silence", {}, "network"),
        ("path not proven", {}, "network"),
        ("rate", {"cap": 5e6}, "cap"),
        ("rate", {"cap": 6e6}, "network"),
        ("nothing to send", {"cap": 5e6}, "peer"),
        ("rate", {"busy": True}, "cpu"),
        ("disk", {"busy": True}, "disk"),
        ("rate", {"busy": True, "cap": 5e6}, "cap"),
    ],
)
def test_what_limits_a_sender(limit: str, given: dict[str, Any], told: str) -> None:
    assert of_sender(limit, **given).limit == told


def test_a_packet_that_was_late_was_not_lost_and_a_round_trip_is_measured_or_not_told() -> None:
    stats = of_sender("rate", lost_packets=10, late_packets=4, sent_packets=600)
    assert (stats.lost_packets, stats.packets, stats.rtt_s, stats.datagrams_per_call) == (6, 600, 0.2, 3.0)
    assert of_sender("rate", min_rtt_s=0.0).rtt_s == 0.0


def _received(
    *, due: int = 1_000, came: int = 999, dropped: int = 0, backlog: int = 0, busy: bool = False, rtt_s: float = 0.1
) -> messages.LaneStats:
    gauge, machine = Gauge(), Receiving()
    machine.rtt_s = rtt_s
    given: Any = machine
    stats = gauge.of_receiver(LANE, given, Socket(), backlog=0, busy=False, now=0.0)
    assert stats.limit == "", "nothing moves yet"
    for turn in range(1, 9):
        machine.take(due, came)
        machine.dropped += dropped
        stats = gauge.of_receiver(LANE, given, Socket(), backlog=backlog, busy=busy, now=turn / 5)
    return stats


def test_what_limits_a_receiver() -> None:
    assert _received().limit == "peer", "a number in a thousand is left out on purpose"
    assert _received().lost_packets == 0
    assert _received(came=980).limit == "network"
    assert _received(rtt_s=0.15).limit == "network", "a queue stands"
    assert _received(backlog=BACKLOG_UNITS + 1).limit == "disk"
    assert _received(busy=True).limit == "cpu"
    stats = _received(came=900)
    assert stats.lost_packets == 8_000 - 8 - 7_200
    assert stats.rate_bytes_s == pytest.approx(4_500_000, rel=0.01)


def test_what_the_machine_of_the_receiver_dropped_is_no_loss_of_the_path() -> None:
    stats = of_sender("rate", lost_packets=10, late_packets=4, remote_dropped=5, sent_packets=600)
    assert (stats.lost_packets, stats.dropped_here) == (1, 3)
    stats = _received(came=900, dropped=95)
    assert stats.lost_packets == 8_000 - 8 - 7_200 - 8 * 95
    assert (stats.dropped_here, stats.limit) == (8 * 95, "cpu")


def test_a_loop_without_a_pause_in_a_second_is_busy() -> None:
    busy = Busy(0.0)
    assert not busy.is_busy(0.5), "it has not run for a second"
    assert busy.is_busy(1.5)
    for tenth in range(16, 40):
        busy.waited(0.01, tenth / 10)
    assert not busy.is_busy(3.9)
    assert busy.is_busy(5.5)


# --- at the node ------------------------------------------------------------------------------------------------------
class Seen:
    """Who is told."""

    def __init__(self) -> None:
        self.forgeries: list[int] = []
        self.moves: list[tuple[str, str]] = []

    def forged(self, count: int) -> None:
        self.forgeries.append(count)

    def moved(self, before: str, address: str) -> None:
        self.moves.append((before, address))


class Worker:
    """Keeps its orders."""

    def __init__(self) -> None:
        self.orders: list[messages.Order] = []

    def order(self, order: messages.Order) -> None:
        self.orders.append(order)


def a_leg(lane: bytes = LANE) -> tuple[Leg, Worker]:
    worker: Any = Worker()
    return Leg(worker, 1, lane), worker


def stats_of(**given: Any) -> messages.LaneStats:
    numbers = dict.fromkeys(messages.LaneStats.__struct_fields__, 0)
    return messages.LaneStats(**(numbers | {"lane": LANE, "sending": True, "limit": "network"} | given))


def test_forged_datagrams_and_moves_are_told_once() -> None:
    leg, seen = a_leg()[0], Seen()
    for forged in (0, 5, 5, 12):
        leg.hear(stats_of(forged=forged), seen)
    leg.hear(messages.LaneMoved(lane=LANE, before="10.0.0.1:5", address="10.0.0.2:6"), seen)
    assert seen.forgeries == [5, 7]
    assert seen.moves == [("10.0.0.1:5", "10.0.0.2:6")]


def test_a_view_is_of_all_lanes_together() -> None:
    legs = [a_leg()[0] for _ in range(3)]
    assert view(legs) is None
    for leg, loss, limit in zip(legs, (0, 10, 20), ("network", "peer", "network"), strict=True):
        leg.hear(messages.LaneUp(lane=LANE), Seen())
        leg.hear(stats_of(rate_bytes_s=1e6, rtt_s=0.02, packets=1_000, lost_packets=loss, resent_bytes=7, limit=limit), Seen())
    legs[0].is_retired = True
    seen = view(legs)
    assert seen is not None
    assert (seen.lanes, seen.rate_bytes_s, seen.rtt_ms, seen.loss) == (2, 3_000_000, 20.0, 0.01)
    assert (seen.resent_bytes, seen.limit) == (21, "network")


def test_all_lanes_of_a_transfer_share_one_rate_however_many_requests_opened_them() -> None:
    class Group:
        def __init__(self, *legs: Leg) -> None:
            self.legs = list(legs)

    outgoing = Outgoing(peer="bo", address="10.0.0.2")
    (one, first), (two, second), (three, third) = (a_leg(name) for name in (b"lane-1", b"lane-2", b"lane-3"))
    groups: Any = [Group(one, two), Group(three)]
    outgoing.groups += groups
    outgoing.divide()
    assert not first.orders, "nothing was chosen"
    outgoing.own_rate_bytes_s, outgoing.peer_rate_bytes_s = 9_000_000, 6_000_000
    outgoing.divide()
    for name, worker in ((b"lane-1", first), (b"lane-2", second), (b"lane-3", third)):
        assert worker.orders == [messages.Cap(lane=name, cap_bytes_s=2_000_000)], "the lower of both rates"
    outgoing.divide()
    assert len(first.orders) == 1
    groups[0].legs.remove(two)
    outgoing.divide()
    assert first.orders[-1] == messages.Cap(lane=b"lane-1", cap_bytes_s=3_000_000)
    outgoing.budget_bytes_s = 1_000_000
    outgoing.divide()
    assert third.orders[-1] == messages.Cap(lane=b"lane-3", cap_bytes_s=500_000)
    outgoing.own_rate_bytes_s = outgoing.peer_rate_bytes_s = 0
    outgoing.budget_bytes_s = 0.0
    outgoing.divide()
    assert third.orders[-1] == messages.Cap(lane=b"lane-3", cap_bytes_s=0)
