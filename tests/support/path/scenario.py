"""Runs over a path that tests and drawings share: one transfer alone, flows that compete, a receiver that lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from labxchange.wire.data.congestion import Controller
from labxchange.wire.data.congestion.fair import Fair
from tests.support.path.lane import Lane, Report
from tests.support.path.link import Flow, Link
from tests.support.path.loss import Loss, Random
from tests.support.path.tcp import Bbr, Cubic

MBIT = 1e6 / 8


@dataclass(slots=True)
class Run:
    """What is left of a run: the link with its samples, and the flows."""

    link: Link
    flows: Sequence[Flow]
    rate_bytes_s: float
    rtt_s: float

    def share(self, place: int, start: float = 0.0, end: float | None = None) -> float:
        """Of the link, what this flow had delivered between two times."""
        samples = [s for s in self.link.samples if start <= s.now and (end is None or s.now <= end)]
        first, last = samples[0], samples[-1]
        return (last.tallies[place].delivered - first.tallies[place].delivered) / (last.now - first.now) / self.rate_bytes_s

    @property
    def dropped_bdp(self) -> float:
        return self.link.tallies[0].dropped / (self.rate_bytes_s * self.rtt_s)

    @property
    def dropped_share(self) -> float:
        return self.link.tallies[0].dropped / self.link.tallies[0].sent


def solo(
    *,
    mbit: float,
    rtt_s: float,
    loss: Loss | float = 0.0,
    queue_s: float = 0.05,
    jitter_s: float = 0.0,
    total_bytes: int | None = None,
    seconds: float = 1e9,
    control: Controller | None = None,
    lane: Callable[..., Lane] = Lane,
    events: Sequence[tuple[float, Callable[[Link, Controller], Any]]] = (),
    application: Callable[[float], float] | None = None,
    seed: int = 1,
) -> Run:
    """One lane alone, until it is done or for so long; ``events`` happen at their times."""
    rate = mbit * MBIT
    model = Random(loss, seed) if isinstance(loss, float) else loss
    link = Link(rate_bytes_s=rate, rtt_s=rtt_s, queue_bytes=max(queue_s * rate, 2_400), loss=model, jitter_s=jitter_s)
    controller: Controller = Fair() if control is None else control
    flow = lane(controller, total_bytes=total_bytes, rate_limit=application)
    link.add(flow)
    for when, what in events:
        link.at(when, what, link, controller)
    each_s = max(rtt_s / 2, 0.02)
    link.run(seconds, each_s=each_s, note=lambda: [controller.rate_bytes_s], stop=lambda: flow.finished_at is not None)
    return Run(link, [flow], rate, rtt_s)


def shared(
    kinds: str,
    *,
    mbit: float = 100,
    rtt_s: float = 0.05,
    queue_bdp: float,
    seconds: float = 60.0,
    gap_s: float = 0.1,
    seed: int = 1,
) -> Run:
    """Flows through one bottleneck, each a letter: o ours, c cubic, b BBR; each begins so long after the one before."""
    rate = mbit * MBIT
    link = Link(rate_bytes_s=rate, rtt_s=rtt_s, queue_bytes=queue_bdp * rate * rtt_s)
    flows: list[Flow] = []
    for place, kind in enumerate(kinds):
        flow: Flow = Cubic() if kind == "c" else Bbr(seed + place) if kind == "b" else Lane(Fair())
        flows.append(flow)
        link.add(flow, start=place * gap_s)
    controls = [flow.control for flow in flows if isinstance(flow, Lane)]
    link.run(seconds, each_s=0.05, note=lambda: [control.rate_bytes_s for control in controls])
    return Run(link, flows, rate, rtt_s)


class LyingLane(Lane):
    """Its receiver claims that all arrived as fast as it was sent, and that any wait in the queue was its own."""

    def report(self, now: float) -> Report:
        report = super().report(now)
        waited_s = now - report.trains[-1][0].sent_at - self.quickest_s
        return Report(report.trains, arrived_at=report.trains[-1][0].sent_at, held_s=max(waited_s, 0.0))
